//! The client's half of RFC 6455: the request that opens, masked frames out, server frames in.
//!
//! Formats only: bytes in, bytes out. Reassembly of fragmented messages is its caller's business, because a load
//! client holds no buffer and a probe does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;
use sha1::{Digest, Sha1};

/// What a server appends to the client's key before it hashes it (RFC 6455, section 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The longest answer to the opening request that is read before the server is taken for something else.
pub const MAX_RESPONSE_BYTES: usize = 8 << 10;

/// The payload of a close frame: 1001, going away (RFC 6455, 7.4.1).
pub(crate) const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// Frame opcodes (RFC 6455, section 5.2).
pub mod opcode {
    /// The next part of a fragmented message.
    pub const CONTINUATION: u8 = 0;
    /// UTF-8 text.
    pub const TEXT: u8 = 1;
    /// Bytes: what goim clients send and get.
    pub const BINARY: u8 = 2;
    /// The connection ends.
    pub const CLOSE: u8 = 8;
    /// Are you there?
    pub const PING: u8 = 9;
    /// I am here.
    pub const PONG: u8 = 10;
}

/// The request that asks `host` to speak WebSocket on `path`; `extra` is whole header lines, each with its CRLF.
#[must_use]
pub fn request(host: &str, path: &str, key: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
}

/// The text of `Sec-WebSocket-Key` for 16 bytes of the client's choice.
#[must_use]
pub fn key(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

/// What the server has to answer in `Sec-WebSocket-Accept` to prove that it read `key`.
#[must_use]
pub fn accept_of(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize())
}

/// Why the answer to the opening request opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// An HTTP status other than 101.
    #[error("the server answered the upgrade with {0:?} instead of 101")]
    Status(String),
    /// 101, but the proof is missing or wrong.
    #[error("the server's Sec-WebSocket-Accept is missing or does not belong to our key")]
    Accept,
    /// No end of the headers within [`MAX_RESPONSE_BYTES`].
    #[error("the server's answer to the upgrade has no end within {MAX_RESPONSE_BYTES} bytes")]
    TooLong,
}

/// Judges the answer at the start of `input`. `Ok(Some(n))`: the connection is open and frames begin at byte n.
/// `Ok(None)`: the answer is not whole yet.
///
/// # Errors
/// [`ResponseError`] when the connection is not, and will not become, a WebSocket.
pub fn parse_response(input: &[u8], accept: &str) -> Result<Option<usize>, ResponseError> {
    let window = &input[..input.len().min(MAX_RESPONSE_BYTES)];
    let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if input.len() < MAX_RESPONSE_BYTES { Ok(None) } else { Err(ResponseError::TooLong) };
    };
    let head = String::from_utf8_lossy(&input[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(ResponseError::Status(status.to_owned()));
    }
    let proven = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == accept);
    if proven { Ok(Some(end + 4)) } else { Err(ResponseError::Accept) }
}

/// A frame that a server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// See [`opcode`].
    pub opcode: u8,
    /// At most as long as the limit given to [`parse`].
    pub payload: &'a [u8],
    /// Bytes on the wire, header included.
    pub wire_bytes: usize,
}

/// Why bytes are no frame that a server may send. Nothing after them can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Servers must not mask (section 5.1).
    #[error("the server masked a frame")]
    Masked,
    /// An extension bit that nobody negotiated.
    #[error("the server set a reserved bit")]
    Reserved,
    /// Control frames carry at most 125 bytes and are never fragmented (section 5.5).
    #[error("the server sent a fragmented or oversized control frame")]
    Control,
    /// Over the reader's limit.
    #[error("the server announced a frame of {0} bytes, over the reader's limit")]
    TooLong(u64),
}

/// Reads the frame at the start of `input`; `None` means that it is not whole yet.
///
/// # Errors
/// [`FrameError`] when no continuation of `input` could become a frame.
pub fn parse(input: &[u8], max_payload_bytes: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let [first, second, ..] = *input else { return Ok(None) };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    if opcode >= opcode::CLOSE && (!fin || second > 125) {
        return Err(FrameError::Control);
    }
    let (length, at) = match second {
        126 => match input.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match input.get(2..10).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
            Some(bytes) => (u64::from_be_bytes(bytes), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if length > max_payload_bytes as u64 {
        return Err(FrameError::TooLong(length));
    }
    let end = at + length as usize;
    Ok(input.get(at..end).map(|payload| Frame { fin, opcode, payload, wire_bytes: end }))
}

/// Appends one masked frame, as a client must send it. `mask` is the caller's randomness.
pub fn put_frame(fin: bool, opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut impl BufMut) {
    out.put_u8(if fin { 0x80 } else { 0 } | (opcode & 0x0f));
    match payload.len() {
        short @ 0..=125 => out.put_u8(0x80 | short as u8),
        middle @ 126..=0xffff => {
            out.put_u8(0x80 | 126);
            out.put_u16(middle as u16);
        }
        long => {
            out.put_u8(0x80 | 127);
            out.put_u64(long as u64);
        }
    }
    out.put_slice(&mask);
    for (byte, key) in payload.iter().zip(mask.iter().cycle()) {
        out.put_u8(byte ^ key);
    }
}

/// The code and the text of a close frame's payload; 1005 stands for "none was given" (section 7.1.5).
#[must_use]
pub fn close_reason(payload: &[u8]) -> (u16, String) {
    match payload {
        [a, b, text @ ..] => (u16::from_be_bytes([*a, *b]), String::from_utf8_lossy(text).into_owned()),
        _ => (1005, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_of_the_rfc_example() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn answers_to_the_upgrade() {
        let good = b"HTTP/1.1 101 Switching Protocols\r\nSEC-websocket-accept: abc=\r\n\r\n\x82";
        assert_eq!(parse_response(good, "abc="), Ok(Some(good.len() - 1)));
        assert_eq!(parse_response(&good[..40], "abc="), Ok(None));
        assert_eq!(parse_response(good, "other"), Err(ResponseError::Accept));
        let refused = parse_response(b"HTTP/1.1 404 Not Found\r\n\r\n", "abc=");
        assert_eq!(refused, Err(ResponseError::Status("HTTP/1.1 404 Not Found".to_owned())));
        assert_eq!(parse_response(&[b'x'; MAX_RESPONSE_BYTES], "abc="), Err(ResponseError::TooLong));
    }

    #[test]
    fn server_frames_of_every_length_form() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let mut bytes = vec![0x82];
            match length {
                0..=125 => bytes.push(length as u8),
                126..=65_535 => {
                    bytes.push(126);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(127);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.resize(bytes.len() + length, 7);
            let frame = parse(&bytes, 1 << 20).unwrap().unwrap();
            assert_eq!((frame.fin, frame.opcode, frame.payload.len()), (true, opcode::BINARY, length));
            assert_eq!(frame.wire_bytes, bytes.len());
            assert_eq!(parse(&bytes[..bytes.len() - 1], 1 << 20), Ok(None));
        }
    }

    #[test]
    fn what_a_server_may_not_send() {
        assert_eq!(parse(&[0x82, 0x81, 0, 0, 0, 0, 0], 99), Err(FrameError::Masked));
        assert_eq!(parse(&[0xc2, 0], 99), Err(FrameError::Reserved));
        assert_eq!(parse(&[0x09, 0], 99), Err(FrameError::Control));
        assert_eq!(parse(&[0x88, 126, 0, 126], 999), Err(FrameError::Control));
        assert_eq!(parse(&[0x82, 100], 99), Err(FrameError::TooLong(100)));
    }

    #[test]
    fn a_masked_frame_is_the_rfc_example() {
        let mut out = Vec::new();
        put_frame(true, opcode::TEXT, b"Hello", [0x37, 0xfa, 0x21, 0x3d], &mut out);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }
}
