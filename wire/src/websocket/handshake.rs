//! The upgrade: an HTTP/1.1 request that asks for WebSocket, and our answer (RFC 6455 section 4.2).
//!
//! A head is read from the start each time that more of it comes. It is bounded by [`MAX_HEAD_BYTES`], real ones come in
//! one segment, and a connection keeps no parser that way.
//!
//! It does not decide: which path, origin or subprotocol is welcome is the caller's to say, with
//! [`put_accept`] or one of the ready answers.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;
use httparse::{Header, Status};
use sha1::{Digest, Sha1};

use super::refusal::{BAD_REQUEST, HEAD_TOO_LARGE, METHOD_NOT_ALLOWED, UPGRADE_REQUIRED};
pub use super::refusal::{FORBIDDEN, NOT_FOUND, REQUEST_TIMEOUT, UNAVAILABLE};

/// The longest head of a request that is read, cookies included.
pub const MAX_HEAD_BYTES: usize = 8 << 10;

/// Header lines that a request may have.
pub const MAX_HEADERS: usize = 64;

/// Length of a `Sec-WebSocket-Accept` value: 20 bytes in base64.
pub const ACCEPT_KEY_BYTES: usize = 28;

/// Length of a `Sec-WebSocket-Key` value: 16 bytes in base64.
const KEY_BYTES: usize = 24;

/// What the accept key is made with (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that may be upgraded. Everything in it points into the input, unless header lines had to be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// The path asked for, without the query.
    pub path: &'a str,
    /// What stands behind the `?`; empty when nothing does.
    pub query: &'a str,
    /// The `Host` header.
    pub host: &'a str,
    /// The `Sec-WebSocket-Key`, checked: for [`put_accept`].
    pub key: &'a str,
    /// The page that a browser opened the connection from.
    pub origin: Option<&'a str>,
    /// The `Cookie` headers, several joined by `; `; empty when there is none. Bytes that are not UTF-8 are
    /// replaced, for another site's odd cookie is no reason to refuse a client.
    pub cookie: Cow<'a, str>,
    /// The `X-Forwarded-For` headers as they came, several joined by `, `; empty when there is none. Anybody can
    /// write them: only a caller who knows the proxy in front of it may believe them.
    pub forwarded_for: Cow<'a, str>,
    /// The subprotocols offered, best liked first.
    pub subprotocols: Vec<&'a str>,
    /// Length of the head. What the client sent behind it are frames.
    pub consumed: usize,
}

/// Why a request cannot be upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not HTTP at all.
    #[error("the request is not HTTP: {0}")]
    NotHttp(httparse::Error),
    /// The head has no end within [`MAX_HEAD_BYTES`].
    #[error("the head of the request is over the limit of {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    /// More than [`MAX_HEADERS`] header lines.
    #[error("the request has more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    /// Not GET.
    #[error("the method is not GET")]
    Method,
    /// HTTP/1.0.
    #[error("the request is not HTTP/1.1")]
    HttpVersion,
    /// Neither a path nor an absolute URI.
    #[error("the request names no path")]
    Target,
    /// No `Host`, or several.
    #[error("the request has no Host header, or several")]
    Host,
    /// `Upgrade` does not name websocket or `Connection` does not name upgrade: an ordinary HTTP request.
    #[error("the request does not ask for an upgrade to WebSocket")]
    NotUpgrade,
    /// `Sec-WebSocket-Version` is not 13.
    #[error("Sec-WebSocket-Version is not 13")]
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is missing, doubled, or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key is not 16 bytes in base64")]
    Key,
    /// A header that has to be text is not.
    #[error("the header {0} is not text")]
    NotText(&'static str),
}

impl HandshakeError {
    /// The HTTP status to answer with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::NotUpgrade | Self::WebSocketVersion => 426,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            _ => 400,
        }
    }

    /// The whole answer, after which the connection is to be closed.
    #[must_use]
    pub fn response(self) -> &'static [u8] {
        match self.status() {
            405 => METHOD_NOT_ALLOWED,
            426 => UPGRADE_REQUIRED,
            431 => HEAD_TOO_LARGE,
            _ => BAD_REQUEST,
        }
    }
}

/// Reads the request at the start of `input`; `None` means that its head is not whole yet.
///
/// A caller never has to hold [`MAX_HEAD_BYTES`] or more of a head.
///
/// # Errors
/// [`HandshakeError`] has the answer ready.
pub fn parse(input: &[u8]) -> Result<Option<Upgrade<'_>>, HandshakeError> {
    let head = &input[..input.len().min(MAX_HEAD_BYTES)];
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let consumed = match request.parse(head) {
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) if head.len() == MAX_HEAD_BYTES => return Err(HandshakeError::HeadTooLarge),
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::TooManyHeaders),
        Err(error) => return Err(HandshakeError::NotHttp(error)),
    };
    if request.method != Some("GET") {
        return Err(HandshakeError::Method);
    }
    if request.version != Some(1) {
        return Err(HandshakeError::HttpVersion);
    }
    let (path, query) = request.path.and_then(split_target).ok_or(HandshakeError::Target)?;
    let headers = &*request.headers;
    let host = only(headers, "Host").and_then(text).ok_or(HandshakeError::Host)?;
    if !has_token(headers, "Upgrade", "websocket") || !has_token(headers, "Connection", "upgrade") {
        return Err(HandshakeError::NotUpgrade);
    }
    if only(headers, "Sec-WebSocket-Version") != Some(b"13") {
        return Err(HandshakeError::WebSocketVersion);
    }
    let key = only(headers, "Sec-WebSocket-Key").and_then(text).filter(|key| is_key(key));
    let key = key.ok_or(HandshakeError::Key)?;
    let origin = match values(headers, "Origin").next() {
        Some(value) => Some(text(value).ok_or(HandshakeError::NotText("Origin"))?),
        None => None,
    };
    let mut subprotocols = Vec::new();
    for value in values(headers, "Sec-WebSocket-Protocol") {
        let list = text(value).ok_or(HandshakeError::NotText("Sec-WebSocket-Protocol"))?;
        subprotocols.extend(list.split(',').map(str::trim).filter(|name| !name.is_empty()));
    }
    Ok(Some(Upgrade {
        path,
        query,
        host,
        key,
        origin,
        cookie: joined(headers, "Cookie", "; "),
        forwarded_for: joined(headers, "X-Forwarded-For", ", "),
        subprotocols,
        consumed,
    }))
}

/// The `Sec-WebSocket-Accept` that proves that `key` was read (section 4.2.2).
#[must_use]
pub fn accept_key(key: &str) -> [u8; ACCEPT_KEY_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_KEY_BYTES];
    STANDARD.encode_slice(digest, &mut accept).expect("20 bytes are 28 characters of base64");
    accept
}

/// Appends the answer that switches protocols. `subprotocol` is one of those offered, or none.
pub fn put_accept(key: &str, subprotocol: Option<&str>, out: &mut impl BufMut) {
    out.put_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    if let Some(name) = subprotocol {
        out.put_slice(b"Sec-WebSocket-Protocol: ");
        out.put_slice(name.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"Sec-WebSocket-Accept: ");
    out.put_slice(&accept_key(key));
    out.put_slice(b"\r\n\r\n");
}

/// Path and query of a request target: a path, or the absolute URI that proxies send (RFC 9112 section 3.2).
fn split_target(target: &str) -> Option<(&str, &str)> {
    let resource = if target.starts_with('/') {
        target
    } else {
        let (_, rest) = target.split_once("://")?;
        &rest[rest.find('/')?..]
    };
    Some(resource.split_once('?').unwrap_or((resource, "")))
}

fn values<'a>(headers: &[Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.trim_ascii())
}

/// The value of a header that has to be there once.
fn only<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a [u8]> {
    let mut values = values(headers, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Whether one of the comma-separated lists under `name` holds `token` (RFC 9110 section 5.6.1).
fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn joined<'a>(headers: &[Header<'a>], name: &str, separator: &str) -> Cow<'a, str> {
    let mut values = values(headers, name).map(String::from_utf8_lossy);
    let Some(first) = values.next() else { return Cow::Borrowed("") };
    values.fold(first, |all, value| Cow::Owned(all.into_owned() + separator + &value))
}

/// 16 bytes in base64. What they are is of no interest.
fn is_key(key: &str) -> bool {
    // The decoder wants room for whole groups of three.
    let mut bytes = [0; 18];
    key.len() == KEY_BYTES && STANDARD.decode_slice(key, &mut bytes) == Ok(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The handshake of RFC 6455 section 1.2, with lines added before the empty one.
    fn request(extra: &str) -> String {
        format!(
            "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
             Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
        )
    }

    #[test]
    fn the_example_of_the_rfc_is_upgraded() {
        let request = request("");
        let with_a_frame = [request.as_bytes(), b"\x81\x80"].concat();
        let upgrade = parse(&with_a_frame).unwrap().unwrap();
        assert_eq!(upgrade.path, "/chat");
        assert_eq!(upgrade.query, "");
        assert_eq!(upgrade.host, "server.example.com");
        assert_eq!(upgrade.origin, Some("http://example.com"));
        assert_eq!(upgrade.subprotocols, ["chat", "superchat"]);
        assert_eq!((&*upgrade.cookie, &*upgrade.forwarded_for), ("", ""));
        assert_eq!(upgrade.consumed, request.len());

        let mut answer = Vec::new();
        put_accept(upgrade.key, Some("chat"), &mut answer);
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn no_part_of_a_head_is_a_head() {
        let request = request("");
        for length in 0..request.len() {
            assert_eq!(parse(&request.as_bytes()[..length]), Ok(None), "{length} bytes");
        }
    }

    #[test]
    fn several_lines_of_one_header_are_joined() {
        let request =
            request("Cookie: a=1\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: b=2\r\nX-Forwarded-For: 192.0.2.2\r\n");
        let upgrade = parse(request.as_bytes()).unwrap().unwrap();
        assert_eq!(upgrade.cookie, "a=1; b=2");
        assert_eq!(upgrade.forwarded_for, "192.0.2.1, 192.0.2.2");
    }

    #[test]
    fn what_proxies_and_browsers_vary_is_accepted() {
        let row = |from: &str, to: &str, path: &str, query: &str| {
            let request = request("").replace(from, to);
            let upgrade = parse(request.as_bytes()).unwrap_or_else(|error| panic!("{to}: {error}")).unwrap();
            assert_eq!((upgrade.path, upgrade.query), (path, query), "{to}");
        };
        row("/chat ", "/sub?room=1&x=a?b ", "/sub", "room=1&x=a?b");
        row("/chat ", "ws://server.example.com/sub?a ", "/sub", "a");
        row("Upgrade: websocket", "Upgrade: h2c, WebSocket", "/chat", "");
        row("Upgrade: websocket", "upgrade: h2c\r\nUPGRADE: WEBSOCKET", "/chat", "");
        row("Connection: Upgrade", "connection:keep-alive ,\tuPgRaDe", "/chat", "");
        row("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key:   dGhlIHNhbXBsZSBub25jZQ==  ", "/chat", "");
    }

    #[test]
    fn what_is_no_handshake_is_refused_with_its_status() {
        let row = |from: &str, to: &str, status: u16, error: HandshakeError| {
            let request = request("").replacen(from, to, 1);
            assert_eq!(parse(request.as_bytes()), Err(error), "{from} -> {to}");
            assert_eq!(error.status(), status, "{error}");
            assert!(error.response().starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{error}");
        };
        row("GET", "POST", 405, HandshakeError::Method);
        row("HTTP/1.1", "HTTP/1.0", 400, HandshakeError::HttpVersion);
        row("HTTP/1.1", "HTTP/2.0", 400, HandshakeError::NotHttp(httparse::Error::Version));
        row("/chat", "chat", 400, HandshakeError::Target);
        row("Host: server.example.com", "X-Host: a", 400, HandshakeError::Host);
        row("Host: server.example.com", "Host: a\r\nHost: b", 400, HandshakeError::Host);
        row("Upgrade: websocket", "Upgrade: websocketx", 426, HandshakeError::NotUpgrade);
        row("Connection: Upgrade", "Connection: keep-alive", 426, HandshakeError::NotUpgrade);
        row("Version: 13", "Version: 8", 426, HandshakeError::WebSocketVersion);
        row("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 426, HandshakeError::WebSocketVersion);
        row("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400, HandshakeError::Key);
        row("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSEh", 400, HandshakeError::Key);
        row("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j*Q==", 400, HandshakeError::Key);
        row("Sec-WebSocket-Key", "X-Key", 400, HandshakeError::Key);
        row(
            "Origin: http://example.com",
            "Origin: http://\u{e9}\u{0}",
            400,
            HandshakeError::NotHttp(httparse::Error::HeaderValue),
        );
    }

    #[test]
    fn a_head_without_an_end_is_refused_at_the_limit() {
        let mut request = request("").into_bytes();
        request.truncate(request.len() - 2);
        request.extend_from_slice(b"Cookie: ");
        request.resize(MAX_HEAD_BYTES - 1, b'a');
        assert_eq!(parse(&request), Ok(None));
        request.push(b'a');
        assert_eq!(parse(&request), Err(HandshakeError::HeadTooLarge));
        // An end behind the limit does not save it.
        request.extend_from_slice(b"\r\n\r\n");
        assert_eq!(parse(&request), Err(HandshakeError::HeadTooLarge));
        assert_eq!(HandshakeError::HeadTooLarge.status(), 431);
    }

    #[test]
    fn too_many_headers_are_refused() {
        let given = request("").matches("\r\n").count() - 2;
        assert!(parse(request(&"A: b\r\n".repeat(MAX_HEADERS - given)).as_bytes()).unwrap().is_some());
        let refused = parse(request(&"A: b\r\n".repeat(MAX_HEADERS - given + 1)).as_bytes()).map(|_| ());
        assert_eq!(refused, Err(HandshakeError::TooManyHeaders));
        assert_eq!(HandshakeError::TooManyHeaders.status(), 431);
    }

    #[test]
    fn bytes_that_are_not_utf8_spoil_a_cookie_and_refuse_an_origin() {
        let mut request = request("Cookie: good=1; odd=~\r\n").into_bytes();
        *request.iter_mut().rfind(|byte| **byte == b'~').unwrap() = 0xe9;
        assert_eq!(parse(&request).unwrap().unwrap().cookie, "good=1; odd=\u{fffd}");
        let at = request.windows(7).position(|window| window == b"Origin:").unwrap();
        request[at + 8] = 0xe9;
        assert_eq!(parse(&request), Err(HandshakeError::NotText("Origin")));
    }
}
