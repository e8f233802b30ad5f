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

/// Longest varint that a length can have.
const MAX_VARINT_BYTES: usize = 10;

/// Why a line cannot be read on. It has to be closed: its frames are lost.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A message longer than [`MAX_FRAME_BYTES`].
    #[error("a trunk message of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
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

/// Takes the first whole message from the start of `input`; `None` means that it is not whole yet.
///
/// `bytes` fields of the message are slices of what `input` held, not copies.
///
/// # Errors
/// [`FrameError`] ends the line.
pub fn decode<M: Message + Default>(input: &mut BytesMut) -> Result<Option<M>, FrameError> {
    let mut peek = &input[..input.len().min(MAX_VARINT_BYTES)];
    let available = peek.len();
    let length = match decode_varint(&mut peek) {
        Ok(length) => length,
        // A varint that does not end within its ten bytes never will.
        Err(error) if available == MAX_VARINT_BYTES => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    if length > MAX_FRAME_BYTES as u64 {
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
