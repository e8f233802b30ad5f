//! The client packet: goim's 16-byte header and a body.
//!
//! The same bytes travel on TCP and inside WebSocket binary messages, in the goim dialect and in the
//! Bilibili one. All fields are big-endian (goim: `api/protocol/protocol.go`).
//!
//! | offset | 0 | 4 | 6 | 8 | 12 | 16 |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | field | packet length i32, header included | header length i16 = 16 | version i16 | operation i32 | sequence i32 | body |
//!
//! It does not know what a body means; `auth` reads the one that matters at connect.

use bytes::BufMut;

use crate::field::field;

/// Length of the header, and the only value that its second field may hold.
pub const HEADER_BYTES: usize = 16;

/// The longest body that a client may send (goim: `MaxBodySize`).
pub const MAX_BODY_BYTES: usize = 4096;

/// goim's operations below 1000, which belong to the protocol. 1000 and up are the application's.
pub mod op {
    /// Client: I am alive.
    pub const HEARTBEAT: i32 = 2;
    /// Server: body is a u32, the people online in the client's room.
    pub const HEARTBEAT_REPLY: i32 = 3;
    /// Client: a message for its room.
    pub const SEND_MESSAGE: i32 = 4;
    /// Server: what became of the message. In the Bilibili dialect: a message.
    pub const SEND_MESSAGE_REPLY: i32 = 5;
    /// Server: the connection ends, and why.
    pub const DISCONNECT_REPLY: i32 = 6;
    /// Client: who I am and which room I want.
    pub const AUTH: i32 = 7;
    /// Server: empty body when granted, else a code and a reason.
    pub const AUTH_REPLY: i32 = 8;
    /// Server: the body is a batch of whole packets.
    pub const RAW: i32 = 9;
    /// Client: body is the new room.
    pub const CHANGE_ROOM: i32 = 12;
    /// Server: the room was changed.
    pub const CHANGE_ROOM_REPLY: i32 = 13;
    /// Client: comma-separated operations to accept from now on.
    pub const SUBSCRIBE: i32 = 14;
    /// Server: subscribed.
    pub const SUBSCRIBE_REPLY: i32 = 15;
    /// Client: comma-separated operations to accept no longer.
    pub const UNSUBSCRIBE: i32 = 16;
    /// Server: unsubscribed.
    pub const UNSUBSCRIBE_REPLY: i32 = 17;
    /// The first operation that belongs to the application.
    pub const FIRST_OF_APPLICATION: i32 = 1000;
}

/// The fields of a header that are not lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version of the body's format. A reply carries the request's.
    pub version: i16,
    /// See [`op`].
    pub operation: i32,
    /// Chosen by the client. A reply carries the request's; a push carries 0.
    pub sequence: i32,
}

impl Header {
    /// The 16 bytes that stand before a body of `body_bytes`.
    ///
    /// A body is bounded far below 2^31 by whoever accepted it, so the sum fits the length field.
    #[must_use]
    pub fn encode(&self, body_bytes: usize) -> [u8; HEADER_BYTES] {
        debug_assert!(body_bytes <= i32::MAX as usize - HEADER_BYTES);
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&((body_bytes + HEADER_BYTES) as u32).to_be_bytes());
        out[4..6].copy_from_slice(&(HEADER_BYTES as u16).to_be_bytes());
        out[6..8].copy_from_slice(&self.version.to_be_bytes());
        out[8..12].copy_from_slice(&self.operation.to_be_bytes());
        out[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        out
    }

    /// Appends a whole packet.
    pub fn put_packet(&self, body: &[u8], out: &mut impl BufMut) {
        out.put_slice(&self.encode(body.len()));
        out.put_slice(body);
    }
}

/// A packet that lies in somebody's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Version, operation and sequence.
    pub header: Header,
    /// At most as long as the limit given to [`parse`].
    pub body: &'a [u8],
}

impl Packet<'_> {
    /// Bytes on the wire, header included.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// Why bytes are no packet. Nothing after them can be trusted: the stream has lost its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The length field is negative or below the header's 16 bytes.
    #[error("packet length {0} is below the 16 bytes of a header")]
    Length(i32),
    /// The header-length field is not 16.
    #[error("header length {0} is not 16")]
    HeaderLength(i16),
    /// The body is longer than its reader allows.
    #[error("a body of {body_bytes} bytes is over the limit of {limit_bytes}")]
    BodyTooLarge {
        /// What the length field announces.
        body_bytes: usize,
        /// What the reader allows.
        limit_bytes: usize,
    },
}

/// Reads the packet at the start of `input`, whose body may hold at most `max_body_bytes`.
///
/// `None` means that it is not whole yet. The lengths are judged as soon as they are there, so a
/// peer that announces too much is refused after 6 bytes, not after having sent it all.
///
/// # Errors
/// [`PacketError`] when no continuation of `input` could become a packet.
pub fn parse(input: &[u8], max_body_bytes: usize) -> Result<Option<Packet<'_>>, PacketError> {
    let Some(length) = field::<4>(input, 0).map(i32::from_be_bytes) else { return Ok(None) };
    let body_bytes = match usize::try_from(length) {
        Ok(whole) if whole >= HEADER_BYTES => whole - HEADER_BYTES,
        _ => return Err(PacketError::Length(length)),
    };
    if body_bytes > max_body_bytes {
        return Err(PacketError::BodyTooLarge { body_bytes, limit_bytes: max_body_bytes });
    }
    let Some(header_length) = field::<2>(input, 4).map(i16::from_be_bytes) else { return Ok(None) };
    if header_length != HEADER_BYTES as i16 {
        return Err(PacketError::HeaderLength(header_length));
    }
    let Some(body) = input.get(HEADER_BYTES..HEADER_BYTES + body_bytes) else { return Ok(None) };
    let (Some(version), Some(operation), Some(sequence)) =
        (field::<2>(input, 6), field::<4>(input, 8), field::<4>(input, 12))
    else {
        return Ok(None);
    };
    let header = Header {
        version: i16::from_be_bytes(version),
        operation: i32::from_be_bytes(operation),
        sequence: i32::from_be_bytes(sequence),
    };
    Ok(Some(Packet { header, body }))
}

/// Walks over packets that stand one after another, as in a batch or a WebSocket message.
///
/// After an error, and after an incomplete packet at the end ([`Packets::rest`] is not empty), it yields no more.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
    max_body_bytes: usize,
}

impl<'a> Packets<'a> {
    /// A walk over `input`; bodies may hold at most `max_body_bytes`.
    #[must_use]
    pub fn new(input: &'a [u8], max_body_bytes: usize) -> Self {
        Self { rest: input, max_body_bytes }
    }

    /// What the walk has not taken: empty after a batch that was whole.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        match parse(self.rest, self.max_body_bytes) {
            Ok(Some(packet)) => {
                self.rest = &self.rest[packet.wire_bytes()..];
                Some(Ok(packet))
            }
            Ok(None) => None,
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// Reads the body of a subscribe or unsubscribe packet: decimals separated by commas (goim: `pkg/strings/ints.go`, which
/// `internal/comet/operation.go` reads them with).
///
/// Blanks around a number and empty parts are let through, which goim does not: neither can mean anything else.
///
/// `None` when a part is no number or when there are more than `max` of them.
#[must_use]
pub fn parse_operations(body: &[u8], max: usize) -> Option<Vec<i32>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut operations = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if operations.len() == max {
            return None;
        }
        operations.push(part.parse().ok()?);
    }
    Some(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1, auth, sequence 0x01020304, body `{}`.
    const AUTH: &[u8] = &[0, 0, 0, 18, 0, 16, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4, b'{', b'}'];

    #[test]
    fn the_bytes_of_a_packet() {
        let header = Header { version: 1, operation: op::AUTH, sequence: 0x0102_0304 };
        let mut out = Vec::new();
        header.put_packet(b"{}", &mut out);
        assert_eq!(out, AUTH);
        assert_eq!(parse(AUTH, 2), Ok(Some(Packet { header, body: b"{}" })));
        assert_eq!(header.encode(0), [0, 0, 0, 16, 0, 16, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4]);
        let signed = Header { version: -1, operation: -2, sequence: i32::MIN };
        assert_eq!(signed.encode(0)[6..], [0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0x80, 0, 0, 0]);
    }

    #[test]
    fn lengths_are_judged_before_anything_else_has_come() {
        let row = |bytes: &[u8], error: PacketError| {
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length], MAX_BODY_BYTES), Ok(None), "{length} bytes of {bytes:x?}");
            }
            assert_eq!(parse(bytes, MAX_BODY_BYTES), Err(error), "{bytes:x?}");
        };
        row(&[0, 0, 0, 0], PacketError::Length(0));
        row(&[0, 0, 0, 15], PacketError::Length(15));
        row(&[0xff, 0xff, 0xff, 0xff], PacketError::Length(-1));
        row(&[0x80, 0, 0, 0], PacketError::Length(i32::MIN));
        let too_large = |body_bytes| PacketError::BodyTooLarge { body_bytes, limit_bytes: MAX_BODY_BYTES };
        row(&[0x7f, 0xff, 0xff, 0xff], too_large(i32::MAX as usize - HEADER_BYTES));
        row(&[0, 0, 0x10, 0x11], too_large(4097));
        row(&[0, 0, 0x10, 0x10, 0, 17], PacketError::HeaderLength(17));
        row(&[0, 0, 0, 16, 0xff, 0xff], PacketError::HeaderLength(-1));
    }

    #[test]
    fn a_walk_takes_whole_packets_and_leaves_the_rest() {
        let batch = [AUTH, AUTH, &AUTH[..17]].concat();
        let mut packets = Packets::new(&batch, MAX_BODY_BYTES);
        assert_eq!(packets.by_ref().filter_map(Result::ok).count(), 2);
        assert_eq!(packets.rest(), &AUTH[..17]);
        assert!(packets.next().is_none());

        let broken = [AUTH, &[0; 16], AUTH].concat();
        let mut packets = Packets::new(&broken, MAX_BODY_BYTES);
        assert!(packets.next().is_some_and(|first| first.is_ok()));
        assert_eq!(packets.next(), Some(Err(PacketError::Length(0))));
        assert_eq!(packets.next(), None);
    }

    #[test]
    fn operations_in_decimals() {
        let row = |body: &str, expected: Option<&[i32]>| {
            assert_eq!(parse_operations(body.as_bytes(), 3).as_deref(), expected, "{body:?}");
        };
        row("", Some(&[]));
        row("1000", Some(&[1000]));
        row("1000,1001,1002", Some(&[1000, 1001, 1002]));
        row(" 1000 , ,1001,", Some(&[1000, 1001]));
        row("-5,2147483647", Some(&[-5, i32::MAX]));
        row("1,2,3,4", None);
        row("1;2", None);
        row("0x10", None);
        row("2147483648", None);
        row("1.0", None);
        assert_eq!(parse_operations(b"1,\xff", 3), None);
        assert_eq!(parse_operations(b"1", 0), None);
    }
}
