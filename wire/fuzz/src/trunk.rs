//! What an edge and the tier say to each other.

use bytes::BytesMut;
use prost::Message;
use wire::trunk::{
    EdgeFrame, FrameError, MAX_FIRST_FRAME_BYTES, MAX_FRAME_BYTES, TierFrame, decode, decode_within, encode,
};

/// Longest length that can stand before a message.
const MAX_LENGTH_BYTES: usize = 10;

/// The bytes are a line, read by the tier. The first byte is none of them: it says how the line is cut.
pub fn trunk_edge_frame(data: &[u8]) {
    line::<EdgeFrame>(data);
}

/// The bytes are a line, read by an edge. The first byte is none of them: it says how the line is cut.
pub fn trunk_tier_frame(data: &[u8]) {
    line::<TierFrame>(data);
}

fn line<M: Message + Default + PartialEq>(data: &[u8]) {
    let Some((&step, data)) = data.split_first() else { return };
    let (messages, rest, error) = read::<M>(data, data.len());
    let (cut_messages, cut_rest, cut_error) = read::<M>(data, usize::from(step % 64) + 1);
    assert!(messages == cut_messages, "a line means the same however it is cut");
    assert_eq!(error.is_some(), cut_error.is_some());
    match error {
        None => {
            assert_eq!(rest, cut_rest);
            assert!(rest < MAX_LENGTH_BYTES + MAX_FRAME_BYTES);
        }
        Some(error) => {
            let limit = matches!(error, FrameError::TooLong(bytes) if bytes <= MAX_FRAME_BYTES as u64);
            assert!(!limit, "a message within the limit was refused for its length");
        }
    }
    for message in messages {
        let mut again = BytesMut::from(&encode(&message)[..]);
        assert!(decode::<M>(&mut again).is_ok_and(|read| read.as_ref() == Some(&message)));
        assert!(again.is_empty());
    }

    let mut first = BytesMut::from(data);
    if let Ok(None) = decode_within::<M>(&mut first, MAX_FIRST_FRAME_BYTES) {
        assert_eq!(first, data);
        assert!(first.len() < MAX_LENGTH_BYTES + MAX_FIRST_FRAME_BYTES);
    }
}

/// All messages of a line that arrives `step` bytes at a time, what is left, and what ended it.
fn read<M: Message + Default>(data: &[u8], step: usize) -> (Vec<M>, usize, Option<FrameError>) {
    let mut input = BytesMut::new();
    let mut messages = Vec::new();
    for piece in data.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        loop {
            match decode(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, 0, Some(error)),
            }
        }
    }
    (messages, input.len(), None)
}
