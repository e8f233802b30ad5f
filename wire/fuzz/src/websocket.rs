//! What browsers say: the upgrade, and frames.

use wire::websocket::client::{parse_response, parse_server_frame, put_request};
use wire::websocket::frame::put_frame;
use wire::websocket::handshake::{MAX_HEAD_BYTES, parse, put_accept};
use wire::websocket::{CloseCode, Event, Fragments, Limits, MessageKind, WebSocketError, next};

/// Small, so that the fuzzer meets them.
const LIMITS: Limits = Limits { message_bytes: 300, fragments: 5 };

/// The bytes are a request. The first two are none of them: they say where it is cut.
pub fn websocket_handshake(data: &[u8]) {
    let Some((&[high, low], data)) = data.split_first_chunk::<2>() else { return };
    let whole = parse(data);
    let cut = (usize::from(high) << 8 | usize::from(low)) % (data.len() + 1);
    match parse(&data[..cut]) {
        Ok(None) => assert!(cut < MAX_HEAD_BYTES, "a head without an end is refused at the limit"),
        decided => assert_eq!(decided, whole, "more bytes changed what was decided"),
    }
    // The client's reader of heads gets the same junk.
    let _ = parse_response(data, "dGhlIHNhbXBsZSBub25jZQ==");
    match whole {
        Ok(None) => assert!(data.len() < MAX_HEAD_BYTES),
        Err(error) => {
            let status = format!("HTTP/1.1 {} ", error.status());
            assert!(error.response().starts_with(status.as_bytes()));
        }
        Ok(Some(upgrade)) => {
            assert!(upgrade.consumed <= data.len().min(MAX_HEAD_BYTES));
            assert_eq!(parse(&data[..upgrade.consumed - 1]), Ok(None));
            assert!(upgrade.path.starts_with('/'));
            assert!(!upgrade.path.contains('?'));
            assert!(upgrade.subprotocols.iter().all(|name| !name.is_empty() && !name.contains(',')));

            let mut again = Vec::new();
            put_request(upgrade.host, &format!("{}?{}", upgrade.path, upgrade.query), upgrade.key, "", &mut again);
            if again.len() <= MAX_HEAD_BYTES {
                let again = parse(&again).expect("what was read can be written").expect("the head is whole");
                assert_eq!((again.path, again.query, again.key), (upgrade.path, upgrade.query, upgrade.key));
            }
            for subprotocol in upgrade.subprotocols.first().copied().map(Some).into_iter().chain([None]) {
                let mut answer = Vec::new();
                put_accept(upgrade.key, subprotocol, &mut answer);
                if answer.len() <= MAX_HEAD_BYTES {
                    assert_eq!(parse_response(&answer, upgrade.key), Ok(Some(answer.len())));
                }
            }
        }
    }
}

/// The bytes are frames, a client's and then a server's. The first byte is none of them: it says how they are cut.
pub fn websocket_frames(data: &[u8]) {
    let Some((&step, data)) = data.split_first() else { return };
    let whole = read(data, data.len());
    let cut = read(data, usize::from(step % 64) + 1);
    assert_eq!(whole, cut, "frames mean the same however they are cut");
    server_frames(data);
}

/// An event, kept.
#[derive(Debug, PartialEq)]
enum Kept {
    Message(MessageKind, Vec<u8>),
    Part,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
    Failed(WebSocketError),
}

fn read(data: &[u8], step: usize) -> Vec<Kept> {
    let mut input = Vec::new();
    let mut fragments = Fragments::default();
    let mut kept = Vec::new();
    for piece in data.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        loop {
            let before = input.clone();
            let consumed = match next(&mut input, &mut fragments, &LIMITS) {
                Ok(None) => {
                    assert_eq!(input, before, "an incomplete frame was altered");
                    break;
                }
                Ok(Some((event, consumed))) => {
                    kept.push(keep(event));
                    consumed
                }
                Err(error) => {
                    assert!(CloseCode::new(error.close_code().get()).is_some());
                    kept.push(Kept::Failed(error));
                    return kept;
                }
            };
            assert!(consumed > 0);
            assert!(fragments.held_bytes() <= LIMITS.message_bytes);
            input.drain(..consumed);
        }
        assert!(input.len() < LIMITS.max_frame_bytes(), "no more than one frame has to be held");
    }
    kept
}

fn keep(event: Event<'_>) -> Kept {
    match event {
        Event::Message { kind, data } => {
            assert!(data.len() <= LIMITS.message_bytes);
            assert!(kind == MessageKind::Binary || std::str::from_utf8(data).is_ok());
            Kept::Message(kind, data.to_vec())
        }
        Event::Part => Kept::Part,
        Event::Ping(data) => {
            assert!(data.len() <= 125);
            Kept::Ping(data.to_vec())
        }
        Event::Pong(data) => {
            assert!(data.len() <= 125);
            Kept::Pong(data.to_vec())
        }
        Event::Close { code, reason } => {
            assert!(code.is_some() || reason.is_empty());
            Kept::Close(code, reason.to_owned())
        }
    }
}

/// What a probe reads is what a server would have written.
fn server_frames(mut data: &[u8]) {
    while let Ok(Some((frame, consumed))) = parse_server_frame(data, LIMITS.message_bytes) {
        let mut again = Vec::new();
        put_frame(frame.opcode, frame.payload, &mut again);
        // The writer sets FIN always.
        again[0] = if frame.fin { again[0] } else { again[0] & 0x7f };
        assert_eq!(again, data[..consumed]);
        data = &data[consumed..];
    }
}
