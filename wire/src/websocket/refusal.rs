//! Ready answers to requests that are not upgraded: whole HTTP responses, after which the connection is to be closed.
//!
//! They are constants, so that refusing costs a write and nothing else, and say in a line what was wrong for the person
//! who tries the port with a browser or curl.
//!
//! It does not choose among them: [`super::handshake`] does, or its caller.

/// A whole answer that refuses: status line, the headers that it needs (each with its CRLF), and a body of the length
/// given, which the compiler checks.
macro_rules! refusal {
    ($status:literal, $headers:literal, $length:literal, $body:literal) => {{
        const { assert!($body.len() == $length) };
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\n",
            $headers,
            "Content-Type: text/plain\r\nContent-Length: ",
            $length,
            "\r\n\r\n",
            $body
        )
        .as_bytes()
    }};
}

/// Answer for a caller that knows no such path.
pub const NOT_FOUND: &[u8] = refusal!("404 Not Found", "Connection: close\r\n", 13, "no such path\n");

/// Answer for a caller that has waited long enough for the rest of the head (RFC 9110 section 15.5.9).
pub const REQUEST_TIMEOUT: &[u8] =
    refusal!("408 Request Timeout", "Connection: close\r\n", 32, "the request did not end in time\n");

/// Answer for a caller that refuses the origin.
pub const FORBIDDEN: &[u8] = refusal!("403 Forbidden", "Connection: close\r\n", 24, "this origin is refused.\n");

/// Answer for a caller that takes no more connections now.
pub const UNAVAILABLE: &[u8] =
    refusal!("503 Service Unavailable", "Connection: close\r\nRetry-After: 5\r\n", 9, "full now\n");

pub(super) const BAD_REQUEST: &[u8] =
    refusal!("400 Bad Request", "Connection: close\r\n", 26, "not a WebSocket handshake\n");

pub(super) const METHOD_NOT_ALLOWED: &[u8] =
    refusal!("405 Method Not Allowed", "Connection: close\r\nAllow: GET\r\n", 8, "use GET\n");

pub(super) const UPGRADE_REQUIRED: &[u8] = refusal!(
    "426 Upgrade Required",
    "Connection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    35,
    "this port speaks WebSocket 13 only\n"
);

pub(super) const HEAD_TOO_LARGE: &[u8] =
    refusal!("431 Request Header Fields Too Large", "Connection: close\r\n", 30, "the request head is too large\n");

#[cfg(test)]
mod tests {
    use httparse::Status;

    use super::*;

    #[test]
    fn each_is_whole_http_and_closes() {
        let refusals = [
            NOT_FOUND,
            REQUEST_TIMEOUT,
            FORBIDDEN,
            UNAVAILABLE,
            BAD_REQUEST,
            METHOD_NOT_ALLOWED,
            UPGRADE_REQUIRED,
            HEAD_TOO_LARGE,
        ];
        for refusal in refusals {
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let Status::Complete(head) = response.parse(refusal).unwrap() else { panic!("no end of the head") };
            let value = |name| {
                let header = response.headers.iter().find(|header| header.name == name).unwrap();
                std::str::from_utf8(header.value).unwrap()
            };
            assert_eq!(value("Content-Length").parse::<usize>().unwrap(), refusal.len() - head);
            assert!(value("Connection").ends_with("close"));
        }
    }

    #[test]
    fn an_old_client_learns_what_is_spoken_here() {
        let text = std::str::from_utf8(UPGRADE_REQUIRED).unwrap();
        assert!(text.contains("\r\nUpgrade: websocket\r\n"), "RFC 9110 section 15.5.22");
        assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"), "RFC 6455 section 4.4");
    }
}
