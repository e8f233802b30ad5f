//! The client's side, as far as probes, load generators and tests need it.
//!
//! The mask and the key are arguments: RFC 6455 wants them random (sections 4.1 and 5.3), and random numbers are the
//! caller's. A load generator that talks to its own server may use constants, there is no cache in between to poison.
//!
//! It does not join fragments: our server never sends any.

use bytes::BufMut;
use httparse::Status;

use super::WebSocketError;
use super::frame::{Head, MAX_SERVER_HEADER_BYTES, Opcode, Sender, Start, encode_masked_header, unmask};
use super::handshake::{MAX_HEAD_BYTES, MAX_HEADERS, accept_key};

/// A frame that a server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerFrame<'a> {
    /// Whether the frame ends its message.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Where it lies in the input.
    pub payload: &'a [u8],
}

/// Why a server's answer to an upgrade is no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Not HTTP.
    #[error("the answer to the upgrade is not HTTP: {0}")]
    NotHttp(#[from] httparse::Error),
    /// More than [`MAX_HEAD_BYTES`].
    #[error("the answer to the upgrade has no end within {MAX_HEAD_BYTES} bytes")]
    TooLarge,
    /// Another status than 101.
    #[error("the server answered the upgrade with status {0}")]
    Status(u16),
    /// `Sec-WebSocket-Accept` does not belong to the key.
    #[error("the server's Sec-WebSocket-Accept does not belong to our key")]
    Accept,
}

/// Appends a request to upgrade (section 4.1). `extra` is empty or whole header lines, each with its CRLF.
pub fn put_request(host: &str, target: &str, key: &str, extra: &str, out: &mut impl BufMut) {
    for part in ["GET ", target, " HTTP/1.1\r\nHost: ", host, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"] {
        out.put_slice(part.as_bytes());
    }
    for part in ["Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ", key, "\r\n", extra, "\r\n"] {
        out.put_slice(part.as_bytes());
    }
}

/// Reads the server's answer; `Some` is its length when it has switched protocols, `None` that it is not whole.
///
/// # Errors
/// [`ResponseError`] when the server did not switch.
pub fn parse_response(input: &[u8], key: &str) -> Result<Option<usize>, ResponseError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = &input[..input.len().min(MAX_HEAD_BYTES)];
    let Status::Complete(consumed) = response.parse(head)? else {
        return if head.len() == MAX_HEAD_BYTES { Err(ResponseError::TooLarge) } else { Ok(None) };
    };
    match response.code {
        Some(101) => {}
        code => return Err(ResponseError::Status(code.unwrap_or(0))),
    }
    let expected = accept_key(key);
    let accepted = response
        .headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("Sec-WebSocket-Accept") && header.value == expected);
    if accepted { Ok(Some(consumed)) } else { Err(ResponseError::Accept) }
}

/// Appends a client's frame.
pub fn put_masked_frame(opcode: Opcode, fin: bool, mask: [u8; 4], payload: &[u8], out: &mut impl BufMut) {
    let mut header = [0; MAX_SERVER_HEADER_BYTES];
    let length = encode_masked_header(opcode, fin, payload.len(), &mut header);
    out.put_slice(&header[..length]);
    out.put_slice(&mask);
    // A multiple of the mask's four bytes, so that every piece begins with the mask's first.
    let mut piece = [0; 256];
    for plain in payload.chunks(piece.len()) {
        let masked = &mut piece[..plain.len()];
        masked.copy_from_slice(plain);
        unmask(masked, mask);
        out.put_slice(masked);
    }
}

/// Takes the server's frame at the start of `input`, whose payload may hold at most `max_payload_bytes`, and says how
/// many bytes it was; `None` means that it is not whole yet.
///
/// # Errors
/// [`WebSocketError`] when no continuation of `input` could become a frame of a server.
pub fn parse_server_frame(
    input: &[u8],
    max_payload_bytes: usize,
) -> Result<Option<(ServerFrame<'_>, usize)>, WebSocketError> {
    let Some(&first) = input.first() else { return Ok(None) };
    let start = Start::parse(first)?;
    let Some(head) = Head::parse(start, input, Sender::Server, 0, max_payload_bytes)? else { return Ok(None) };
    let consumed = head.frame_bytes();
    let Some(payload) = input.get(head.header_bytes..consumed) else { return Ok(None) };
    Ok(Some((ServerFrame { fin: start.fin, opcode: start.opcode, payload }, consumed)))
}

#[cfg(test)]
mod tests {
    use super::super::frame::put_frame;
    use super::super::handshake::{self, put_accept};
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn the_masked_example_of_the_rfc() {
        let mut out = Vec::new();
        put_masked_frame(Opcode::Text, true, [0x37, 0xfa, 0x21, 0x3d], b"Hello", &mut out);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn request_and_answer_fit_each_other() {
        let mut request = Vec::new();
        put_request("127.0.0.1:3102", "/sub", KEY, "Cookie: a=1\r\n", &mut request);
        let upgrade = handshake::parse(&request).unwrap().unwrap();
        assert_eq!((upgrade.path, upgrade.host, &*upgrade.cookie), ("/sub", "127.0.0.1:3102", "a=1"));
        let mut answer = Vec::new();
        put_accept(upgrade.key, None, &mut answer);
        for length in 0..answer.len() {
            assert_eq!(parse_response(&answer[..length], KEY), Ok(None));
        }
        assert_eq!(parse_response(&answer, KEY), Ok(Some(answer.len())));
        assert_eq!(parse_response(&answer, "AAAAAAAAAAAAAAAAAAAAAA=="), Err(ResponseError::Accept));
        assert_eq!(parse_response(handshake::NOT_FOUND, KEY), Err(ResponseError::Status(404)));
    }

    #[test]
    fn a_server_frame_is_read_and_a_masked_one_refused() {
        let mut out = Vec::new();
        put_frame(Opcode::Binary, b"abc", &mut out);
        let frame = ServerFrame { fin: true, opcode: Opcode::Binary, payload: b"abc" };
        assert_eq!(parse_server_frame(&out, 3), Ok(Some((frame, 5))));
        assert_eq!(parse_server_frame(&out[..4], 3), Ok(None));
        assert_eq!(parse_server_frame(&out, 2), Err(WebSocketError::MessageTooLarge { bytes: 3, limit_bytes: 2 }));
        assert_eq!(parse_server_frame(&[0x82, 0x83], 3), Err(WebSocketError::Masked));
    }
}
