//! A line of the trunk survives any cut, and what is over its limits does not get in.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::trunk::{
    Batch, ChatUp, EdgeFrame, FrameError, Hello, Keys, MAX_FIRST_FRAME_BYTES, Mids, Position, Push, TierFrame, batch,
    decode, decode_within, edge_frame, encode, encode_into, tier_frame,
};

fn position() -> impl Strategy<Value = Position> {
    any::<(u32, u64)>().prop_map(|(partition, offset)| Position { partition, offset })
}

fn edge_frame() -> impl Strategy<Value = EdgeFrame> {
    let hello = (any::<(u32, String, u64, u32, String)>(), any::<u64>(), vec(position(), 0..4)).prop_map(
        |((protocol, edge, incarnation, node, secret), bus, positions)| {
            edge_frame::Body::Hello(Hello { protocol, edge, incarnation, node, secret, bus, positions, address: None })
        },
    );
    let chat =
        (any::<(u64, String, i64, String)>(), vec(any::<u8>(), 0..300)).prop_map(|((id, place, mid, room), body)| {
            edge_frame::Body::Chat(ChatUp { id, place, mid, room, body: body.into() })
        });
    proptest::option::of(prop_oneof![hello, chat]).prop_map(|body| EdgeFrame { body })
}

fn tier_frame() -> impl Strategy<Value = TierFrame> {
    let target = prop_oneof![
        any::<String>().prop_map(batch::Target::Room),
        vec(any::<String>(), 0..4).prop_map(|keys| batch::Target::Keys(Keys { keys })),
        vec(any::<i64>(), 0..4).prop_map(|mids| batch::Target::Mids(Mids { mids })),
    ];
    let batch = (proptest::option::of(target), vec(any::<u64>(), 0..5), vec(any::<u8>(), 0..300))
        .prop_map(|(target, offsets, packets)| Batch { target, offsets, packets: Bytes::from(packets) });
    (any::<(u32, u64, u64)>(), vec(batch, 0..4)).prop_map(|((partition, previous, last), batches)| TierFrame {
        body: Some(tier_frame::Body::Push(Push { partition, previous, last, batches })),
    })
}

/// Sends `frames` in `pieces` and reads them.
fn through<M: prost::Message + Default>(frames: &[M], pieces: &[usize]) -> Vec<M> {
    let mut stream = BytesMut::new();
    for frame in frames {
        encode_into(frame, &mut stream);
    }
    let (mut input, mut read) = (BytesMut::new(), Vec::new());
    for piece in pieces.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        input.extend_from_slice(&stream.split_to(stream.len().min(*piece)));
        while let Some(frame) = decode(&mut input).expect("an encoded line can be decoded") {
            read.push(frame);
        }
    }
    assert!(input.is_empty());
    read
}

proptest! {
    #[test]
    fn what_an_edge_says_survives_any_cut(
        frames in vec(edge_frame(), 0..6),
        pieces in vec(1_usize..200, 1..20),
    ) {
        prop_assert_eq!(through(&frames, &pieces), frames);
    }

    #[test]
    fn what_the_tier_says_survives_any_cut(
        frames in vec(tier_frame(), 0..6),
        pieces in vec(1_usize..200, 1..20),
    ) {
        prop_assert_eq!(through(&frames, &pieces), frames);
    }

    /// A frame is let in at its own length and refused by one byte less, before any of it has come.
    #[test]
    fn the_limit_of_a_frame_holds(frame in tier_frame()) {
        let length = prost::Message::encoded_len(&frame);
        let line = encode(&frame);
        prop_assert_eq!(decode_within(&mut BytesMut::from(&line[..]), length).unwrap(), Some(frame));
        if let Some(less) = length.checked_sub(1) {
            let mut head = BytesMut::from(&line[..line.len() - length]);
            let refused = decode_within::<TierFrame>(&mut head, less);
            let refused_for_length = matches!(refused, Err(FrameError::TooLong(bytes)) if bytes == length as u64);
            prop_assert!(refused_for_length);
        }
    }
}

/// The first message of a line is a `Hello`: the limit for it has to let the largest that we would send pass.
#[test]
fn a_hello_with_a_thousand_partitions_is_within_the_first_limit() {
    let positions = (0..1000).map(|partition| Position { partition, offset: u64::MAX }).collect();
    let hello = Hello { edge: "e".repeat(255), secret: "s".repeat(1024), positions, ..Hello::default() };
    let frame = EdgeFrame { body: Some(edge_frame::Body::Hello(hello)) };
    let mut input = BytesMut::from(&encode(&frame)[..]);
    assert_eq!(decode_within(&mut input, MAX_FIRST_FRAME_BYTES).unwrap(), Some(frame));
}
