//! The trunk's messages, as `prost` makes them of `proto/trunk.proto`, and how they stand on a line.
//!
//! A line is a byte stream of length-delimited messages: a varint length, then the message. Reading and
//! writing sockets is the business of the two ends.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{decode_varint, encoded_len_varint};

#[allow(missing_docs, unreachable_pub, clippy::doc_markdown)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/push.trunk.v1.rs"));
}
pub use generated::*;

/// The version of this protocol, said in `Hello`.
pub const PROTOCOL: u32 = 1;

/// The longest message either side may send. A stretch of the bus is cut well below it.
pub const MAX_FRAME_BYTES: usize = 4 << 20;

/// The longest first message of a line, which comes before anybody has shown the trunk's secret: for [`decode_within`].
///
/// Decoded, a message can be seventy times as long as on the line (a [`SessionEvent`] that says nothing takes two bytes
/// there), which is too much to spend on a stranger who may send [`MAX_FRAME_BYTES`].
pub const MAX_FIRST_FRAME_BYTES: usize = 64 << 10;

/// Longest varint that a length can have.
const MAX_VARINT_BYTES: usize = 10;

/// Why a line cannot be read on. It has to be closed: its frames are lost.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A message longer than [`MAX_FRAME_BYTES`], or than the limit given to [`decode_within`].
    #[error(
        "a trunk message of {0} bytes is over the limit ({MAX_FIRST_FRAME_BYTES} for the first, else {MAX_FRAME_BYTES})"
    )]
    TooLong(u64),
    /// Not the Protobuf that was expected.
    #[error("a trunk message cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// `message` as it stands on a line.
#[must_use]
pub fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(encoded_len_varint(length as u64) + length);
    encode_into(message, &mut out);
    out.freeze()
}

/// Appends `message` as it stands on a line.
pub fn encode_into(message: &impl Message, out: &mut BytesMut) {
    out.reserve(MAX_VARINT_BYTES + message.encoded_len());
    message.encode_length_delimited(out).expect("the room for the message was reserved above");
}

/// Takes the first whole message, of at most [`MAX_FRAME_BYTES`], from the start of `input`; `None` means that it is not
/// whole yet.
///
/// `bytes` fields of the message are slices of what `input` held, not copies.
///
/// # Errors
/// [`FrameError`] ends the line.
pub fn decode<M: Message + Default>(input: &mut BytesMut) -> Result<Option<M>, FrameError> {
    decode_within(input, MAX_FRAME_BYTES)
}

/// [`decode`] with a limit of its own.
///
/// # Errors
/// [`FrameError`] ends the line.
pub fn decode_within<M: Message + Default>(input: &mut BytesMut, max_bytes: usize) -> Result<Option<M>, FrameError> {
    let mut peek = &input[..input.len().min(MAX_VARINT_BYTES)];
    let available = peek.len();
    let length = match decode_varint(&mut peek) {
        Ok(length) => length,
        // A varint that does not end within its ten bytes never will.
        Err(error) if available == MAX_VARINT_BYTES => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    if length > max_bytes as u64 {
        return Err(FrameError::TooLong(length));
    }
    let length = length as usize;
    let prefix = available - peek.len();
    if input.len() < prefix + length {
        input.reserve(prefix + length - input.len());
        return Ok(None);
    }
    input.advance(prefix);
    Ok(Some(M::decode(input.split_to(length).freeze())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(id: u64) -> EdgeFrame {
        EdgeFrame { body: Some(edge_frame::Body::Ping(Ping { id })) }
    }

    #[test]
    fn the_bytes_of_a_frame() {
        // Field 7 (ping), length 2; inside it field 1 (id), varint 5.
        let line = encode(&ping(5));
        assert_eq!(line[..], [4, 0x3a, 2, 0x08, 5]);
        let mut input = BytesMut::from(&line[..]);
        assert_eq!(decode(&mut input).unwrap(), Some(ping(5)));
        assert!(input.is_empty());
    }

    #[test]
    fn the_packets_of_a_push_are_not_copied() {
        let batch = Batch { packets: Bytes::from_static(&[7; 100]), ..Batch::default() };
        let push = Push { batches: vec![batch], ..Push::default() };
        let mut input = BytesMut::from(&encode(&TierFrame { body: Some(tier_frame::Body::Push(push)) })[..]);
        let held = input.as_ptr_range();
        let Some(TierFrame { body: Some(tier_frame::Body::Push(push)) }) = decode(&mut input).unwrap() else {
            panic!("another frame than was sent")
        };
        let packets = &push.batches[0].packets;
        assert_eq!(packets[..], [7; 100]);
        assert!(held.contains(&packets.as_ptr()), "the packets were copied");
    }

    #[test]
    fn a_length_is_judged_before_the_message_has_come() {
        let row = |length: &[u8], limit: usize, expected: u64| {
            let mut input = BytesMut::from(length);
            let error = decode_within::<EdgeFrame>(&mut input, limit).unwrap_err();
            assert!(matches!(error, FrameError::TooLong(bytes) if bytes == expected), "{error}");
        };
        row(&[0x81, 0x80, 0x80, 0x02], MAX_FRAME_BYTES, (4 << 20) + 1);
        row(&[0x81, 0x80, 0x04], MAX_FIRST_FRAME_BYTES, (64 << 10) + 1);
        row(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], MAX_FRAME_BYTES, u64::MAX);
        let mut allowed = BytesMut::from(&[0x80, 0x80, 0x80, 0x02][..]);
        assert!(decode::<EdgeFrame>(&mut allowed).unwrap().is_none());
    }

    #[test]
    fn junk_ends_the_line() {
        for junk in [&[0xff; 10][..], &[2, 0x3a, 5], &[1, 0xff]] {
            let mut input = BytesMut::from(junk);
            assert!(matches!(decode::<EdgeFrame>(&mut input), Err(FrameError::Decode(_))), "{junk:x?}");
        }
        for begun in [&[][..], &[0xff; 9], &[5, 0x3a]] {
            let mut input = BytesMut::from(begun);
            assert!(decode::<EdgeFrame>(&mut input).unwrap().is_none(), "{begun:x?}");
            assert_eq!(input, begun);
        }
    }
}
