//! Messages survive any way of sending them: any fragments, any pings between them, any cut of the stream.

use proptest::collection::vec;
use proptest::prelude::*;
use wire::websocket::client::{ServerFrame, parse_server_frame, put_masked_frame};
use wire::websocket::frame::{header_bytes, put_frame};
use wire::websocket::{Event, Fragments, Limits, MessageKind, Opcode, WebSocketError, next};

const LIMITS: Limits = Limits { message_bytes: 70_000, fragments: 32 };

#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

/// A frame to send: FIN, opcode, mask, payload.
type Frame = (bool, Opcode, [u8; 4], Vec<u8>);

/// A message, the frames that it goes in, and what is to be seen of them. Cuts may fall inside a character.
fn message() -> impl Strategy<Value = (Vec<Frame>, Vec<Seen>)> {
    let text = any::<String>().prop_map(|text| (MessageKind::Text, text.into_bytes()));
    let binary = vec(any::<u8>(), 0..400).prop_map(|data| (MessageKind::Binary, data));
    // Around the borders of the three forms of a length.
    let long =
        prop_oneof![124_usize..130, 65_530_usize..65_540].prop_map(|bytes| (MessageKind::Binary, vec![7; bytes]));
    let control = proptest::option::of((any::<bool>(), any::<[u8; 4]>(), vec(any::<u8>(), 0..=125)));
    let cuts = vec((any::<prop::sample::Index>(), control, any::<[u8; 4]>()), 0..6);
    (prop_oneof![4 => text, 4 => binary, 1 => long], cuts, any::<[u8; 4]>()).prop_map(|((kind, data), cuts, mask)| {
        let mut ends: Vec<_> =
            cuts.into_iter().map(|(at, control, mask)| (at.index(data.len() + 1), control, mask)).collect();
        ends.sort_by_key(|end| end.0);
        let (mut frames, mut seen, mut start) = (Vec::new(), Vec::new(), 0);
        let opcode = |first: bool| match kind {
            _ if !first => Opcode::Continuation,
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        for (end, control, mask) in ends {
            frames.push((false, opcode(frames.is_empty()), mask, data[start..end].to_vec()));
            start = end;
            if let Some((is_ping, mask, payload)) = control {
                let opcode = if is_ping { Opcode::Ping } else { Opcode::Pong };
                seen.push(if is_ping { Seen::Ping(payload.clone()) } else { Seen::Pong(payload.clone()) });
                frames.push((true, opcode, mask, payload));
            }
        }
        frames.push((true, opcode(frames.is_empty()), mask, data[start..].to_vec()));
        seen.push(Seen::Message(kind, data));
        (frames, seen)
    })
}

/// What is seen of `stream` when it comes in `pieces`. Nothing but the tail and the fragments is kept between them.
fn receive(stream: &[u8], pieces: &[usize], limits: &Limits) -> Result<Vec<Seen>, WebSocketError> {
    let (mut held, mut fragments, mut seen, mut sent) = (Vec::new(), Fragments::default(), Vec::new(), 0);
    for piece in pieces.iter().cycle() {
        let end = (sent + piece).min(stream.len());
        held.extend_from_slice(&stream[sent..end]);
        sent = end;
        while let Some((event, consumed)) = next(&mut held, &mut fragments, limits)? {
            match event {
                Event::Message { kind, data } => seen.push(Seen::Message(kind, data.to_vec())),
                Event::Ping(data) => seen.push(Seen::Ping(data.to_vec())),
                Event::Pong(data) => seen.push(Seen::Pong(data.to_vec())),
                Event::Part => assert!(!fragments.is_empty()),
                Event::Close { .. } => panic!("nobody sent a close"),
            }
            held.drain(..consumed);
            if fragments.is_empty() {
                // As a shard does: between messages a connection keeps nothing.
                fragments = Fragments::default();
            }
        }
        assert!(held.len() < limits.max_frame_bytes());
        if sent == stream.len() {
            break;
        }
    }
    assert!(held.is_empty() && fragments.is_empty(), "the stream ended with a whole message");
    Ok(seen)
}

fn written(frames: &[Frame]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (fin, opcode, mask, payload) in frames {
        put_masked_frame(*opcode, *fin, *mask, payload, &mut stream);
    }
    stream
}

proptest! {
    #[test]
    fn messages_survive_fragments_pings_and_cuts(
        messages in vec(message(), 1..4),
        pieces in vec(prop_oneof![1_usize..20, 1_usize..5000], 1..20),
    ) {
        let (frames, seen): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let stream = written(&frames.concat());
        prop_assert_eq!(receive(&stream, &pieces, &LIMITS), Ok(seen.concat()));
    }

    /// A limit of its length lets a message in, however it is cut; one byte less keeps it out.
    #[test]
    fn the_limit_is_the_same_for_all_ways_of_sending((frames, seen) in message(), pieces in vec(1_usize..5000, 1..20)) {
        let Some(Seen::Message(_, data)) = seen.last() else { panic!("a message is last") };
        let stream = written(&frames);
        let limits = Limits { message_bytes: data.len(), ..LIMITS };
        prop_assert_eq!(receive(&stream, &pieces, &limits), Ok(seen.clone()));
        if let Some(less) = data.len().checked_sub(1) {
            let refused = receive(&stream, &pieces, &Limits { message_bytes: less, ..LIMITS });
            let refused_for_length =
                matches!(refused, Err(WebSocketError::MessageTooLarge { limit_bytes, .. }) if limit_bytes == less);
            prop_assert!(refused_for_length);
        }
    }

    /// As many fragments as the limit says, and no more.
    #[test]
    fn the_limit_of_fragments_holds((frames, seen) in message(), fewer in any::<bool>()) {
        let parts = frames.iter().filter(|frame| !frame.1.is_control()).count() as u32;
        prop_assume!(parts > 1);
        let limits = Limits { fragments: parts - u32::from(fewer), ..LIMITS };
        let expected = if fewer { Err(WebSocketError::TooManyFragments(parts - 1)) } else { Ok(seen) };
        prop_assert_eq!(receive(&written(&frames), &[usize::MAX / 2], &limits), expected);
    }

    #[test]
    fn what_a_server_writes_a_client_reads(
        payloads in vec(prop_oneof![vec(any::<u8>(), 0..300), Just(vec![1; 65_536])], 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut stream = Vec::new();
        for payload in &payloads {
            let before = stream.len();
            put_frame(Opcode::Binary, payload, &mut stream);
            prop_assert_eq!(stream.len() - before, header_bytes(payload.len()) + payload.len());
        }
        let mut rest = &stream[..];
        for payload in &payloads {
            let frame = ServerFrame { fin: true, opcode: Opcode::Binary, payload };
            let (read, consumed) = parse_server_frame(rest, 70_000).unwrap().unwrap();
            prop_assert_eq!(read, frame);
            prop_assert_eq!(parse_server_frame(&rest[..cut.index(consumed)], 70_000), Ok(None));
            rest = &rest[consumed..];
        }
        prop_assert!(rest.is_empty());
    }
}
