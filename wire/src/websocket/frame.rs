//! One frame: its header in both directions, opcodes, close codes, and what a server writes (RFC 6455 section 5.2).
//!
//! A server's frame is always final and never masked, so its header depends on opcode and length alone and can be
//! made once for all receivers of a block.
//!
//! It does not know messages: `message` joins frames and keeps their order.

use bytes::BufMut;

use super::WebSocketError;
use crate::field::field;

/// The longest header of a server's frame; a client's has four bytes more, the mask.
pub const MAX_SERVER_HEADER_BYTES: usize = 10;

/// The longest payload of a control frame (section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// The longest reason of a close frame: its payload without the code.
pub const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

const FIN: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0f;
const MASK: u8 = 0x80;

/// What a frame is (section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message that has begun.
    Continuation = 0x0,
    /// Begins a message that is UTF-8.
    Text = 0x1,
    /// Begins a message of any bytes.
    Binary = 0x2,
    /// The sender will send nothing more.
    Close = 0x8,
    /// To be answered by a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or is a heartbeat of its own.
    Pong = 0xA,
}

impl Opcode {
    /// Control frames are short, whole, and may stand between the fragments of a message (section 5.5).
    #[must_use]
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }
}

/// Why a side closes: a code that may stand in a close frame (section 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes: a server that drains, a page that is left.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A kind of message that this endpoint does not take.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// A message whose bytes do not fit its kind: text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A rule of this endpoint was broken.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// A message too long to be taken.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// The server failed at something of its own.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server is too full now; come again later (IANA registry; not in the RFC).
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// `code`, if it may stand in a close frame.
    ///
    /// Those are 1000 to 1003 and 1007 to 1014 by the RFC and the IANA registry, and 3000 to 4999, which belong to
    /// libraries and applications. 1004 has no meaning; 1005, 1006 and 1015 only ever name what was not received
    /// (section 7.4.1).
    #[must_use]
    pub fn new(code: u16) -> Option<Self> {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(Self(code))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

/// Length of the header of a server's frame with a payload of `payload_bytes`.
#[must_use]
pub fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => MAX_SERVER_HEADER_BYTES,
    }
}

/// Writes the header of a server's frame to the start of `out` and returns its length.
///
/// A control frame's payload is at most [`MAX_CONTROL_BYTES`]; whoever makes one sees to that.
pub fn encode_header(opcode: Opcode, payload_bytes: usize, out: &mut [u8; MAX_SERVER_HEADER_BYTES]) -> usize {
    debug_assert!(!opcode.is_control() || payload_bytes <= MAX_CONTROL_BYTES);
    out[0] = FIN | opcode as u8;
    encode_length(payload_bytes, 0, out)
}

/// Appends a server's frame: final, not masked.
pub fn put_frame(opcode: Opcode, payload: &[u8], out: &mut impl BufMut) {
    let mut header = [0; MAX_SERVER_HEADER_BYTES];
    let length = encode_header(opcode, payload.len(), &mut header);
    out.put_slice(&header[..length]);
    out.put_slice(payload);
}

/// Appends a server's close frame. A reason of more than [`MAX_REASON_BYTES`] is cut, between two characters.
pub fn put_close(code: CloseCode, reason: &str, out: &mut impl BufMut) {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    let mut header = [0; MAX_SERVER_HEADER_BYTES];
    let length = encode_header(Opcode::Close, 2 + reason.len(), &mut header);
    out.put_slice(&header[..length]);
    out.put_u16(code.get());
    out.put_slice(reason.as_bytes());
}

/// Writes a frame's header for the client module, which has masks and fragments.
pub(super) fn encode_masked_header(
    opcode: Opcode,
    fin: bool,
    payload_bytes: usize,
    out: &mut [u8; MAX_SERVER_HEADER_BYTES],
) -> usize {
    out[0] = if fin { FIN } else { 0 } | opcode as u8;
    encode_length(payload_bytes, MASK, out)
}

/// The shortest of the three forms of a length (section 5.2); returns the length of the header up to here.
fn encode_length(payload_bytes: usize, mask: u8, out: &mut [u8; MAX_SERVER_HEADER_BYTES]) -> usize {
    match payload_bytes {
        0..=125 => {
            out[1] = mask | payload_bytes as u8;
            2
        }
        126..=0xffff => {
            out[1] = mask | 126;
            out[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = mask | 127;
            out[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    }
}

/// The first byte of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
}

impl Start {
    /// Judges what the first byte alone can be judged by.
    pub(super) fn parse(byte: u8) -> Result<Self, WebSocketError> {
        if byte & RESERVED_BITS != 0 {
            return Err(WebSocketError::ReservedBits);
        }
        let bits = byte & OPCODE_BITS;
        let opcode = Opcode::from_bits(bits).ok_or(WebSocketError::ReservedOpcode(bits))?;
        let fin = byte & FIN != 0;
        if opcode.is_control() && !fin {
            return Err(WebSocketError::ControlFragmented);
        }
        Ok(Self { fin, opcode })
    }
}

/// Who sent the frame: a client's is masked, a server's is not (section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

/// The rest of a frame's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) header_bytes: usize,
    pub(super) payload_bytes: usize,
    /// Zero in a server's frame, which is what not masked means.
    pub(super) mask: [u8; 4],
}

impl Head {
    /// Reads the header that begins `input` with `start`, which may announce `limit_bytes` besides the `held_bytes`
    /// of its message that have come before. Each field is judged as soon as it is there.
    pub(super) fn parse(
        start: Start,
        input: &[u8],
        sender: Sender,
        held_bytes: usize,
        limit_bytes: usize,
    ) -> Result<Option<Self>, WebSocketError> {
        let Some(&second) = input.get(1) else { return Ok(None) };
        match (second & MASK != 0, sender) {
            (false, Sender::Client) => return Err(WebSocketError::NotMasked),
            (true, Sender::Server) => return Err(WebSocketError::Masked),
            _ => {}
        }
        let short = second & !MASK;
        if start.opcode.is_control() && usize::from(short) > MAX_CONTROL_BYTES {
            return Err(WebSocketError::ControlTooLong);
        }
        let (payload_bytes, length_end) = match short {
            126 => {
                let Some(length) = field(input, 2).map(u16::from_be_bytes) else { return Ok(None) };
                if length < 126 {
                    return Err(WebSocketError::LengthNotMinimal);
                }
                (u64::from(length), 4)
            }
            127 => {
                let Some(length) = field(input, 2).map(u64::from_be_bytes) else { return Ok(None) };
                if length >> 63 != 0 {
                    return Err(WebSocketError::LengthTopBit);
                }
                if length <= 0xffff {
                    return Err(WebSocketError::LengthNotMinimal);
                }
                (length, 10)
            }
            _ => (u64::from(short), 2),
        };
        let payload_bytes = if start.opcode.is_control() {
            usize::from(short)
        } else {
            // A sum that fits a usize is the whole message so far, so neither part can overflow below.
            let bytes = payload_bytes.saturating_add(held_bytes as u64);
            match usize::try_from(bytes) {
                Ok(whole) if whole <= limit_bytes => whole - held_bytes,
                _ => return Err(WebSocketError::MessageTooLarge { bytes, limit_bytes }),
            }
        };
        let (mask, header_bytes) = match sender {
            Sender::Server => ([0; 4], length_end),
            Sender::Client => {
                let Some(mask) = field(input, length_end) else { return Ok(None) };
                (mask, length_end + 4)
            }
        };
        Ok(Some(Self { header_bytes, payload_bytes, mask }))
    }

    /// Length of the whole frame.
    pub(super) fn frame_bytes(&self) -> usize {
        self.header_bytes.saturating_add(self.payload_bytes)
    }
}

/// Takes the mask off `payload`, or puts it on (section 5.3). Eight bytes a step, which compilers widen further.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unmasked_examples_of_the_rfc() {
        // Section 5.7: a text message, a ping, and the headers of binary messages of 256 bytes and of 64 KiB.
        let mut out = Vec::new();
        put_frame(Opcode::Text, b"Hello", &mut out);
        put_frame(Opcode::Ping, b"Hello", &mut out);
        assert_eq!(out, b"\x81\x05Hello\x89\x05Hello");
        let mut header = [0; MAX_SERVER_HEADER_BYTES];
        assert_eq!(encode_header(Opcode::Binary, 256, &mut header), 4);
        assert_eq!(header[..4], [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(encode_header(Opcode::Binary, 65536, &mut header), 10);
        assert_eq!(header, [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        let mut header = [0; MAX_SERVER_HEADER_BYTES];
        for (payload, expected) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10), (usize::MAX >> 1, 10)] {
            assert_eq!(encode_header(Opcode::Binary, payload, &mut header), expected);
            assert_eq!(header_bytes(payload), expected);
        }
    }

    #[test]
    fn a_close_frame_keeps_its_reason_within_a_control_frame() {
        let mut out = Vec::new();
        put_close(CloseCode::GOING_AWAY, "drain", &mut out);
        assert_eq!(out, b"\x88\x07\x03\xe9drain");
        out.clear();
        // 41 characters of three bytes are 123 bytes: the 42nd does not fit, nor does a part of it.
        put_close(CloseCode::POLICY_VIOLATION, &"\u{5f39}".repeat(42), &mut out);
        assert_eq!(out[1], 125);
        assert_eq!(std::str::from_utf8(&out[4..]), Ok(&*"\u{5f39}".repeat(41)));
        out.clear();
        put_close(CloseCode::POLICY_VIOLATION, &("a".to_owned() + &"\u{5f39}".repeat(41)), &mut out);
        assert_eq!(out[1], 123);
    }

    #[test]
    fn codes_that_may_not_be_sent_are_none() {
        for code in [1000, 1003, 1007, 1014, 3000, 4999] {
            assert_eq!(CloseCode::new(code).map(CloseCode::get), Some(code));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(CloseCode::new(code), None, "{code}");
        }
    }

    #[test]
    fn unmasking_is_the_same_at_every_length() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        for length in 0..40 {
            let plain: Vec<u8> = (0..length).collect();
            let mut masked = plain.clone();
            unmask(&mut masked, mask);
            let by_byte: Vec<u8> = plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(masked, by_byte);
        }
    }
}
