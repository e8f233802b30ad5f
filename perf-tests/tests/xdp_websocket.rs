//! Clients made of XDP that speak WebSocket: the upgrade, and packets in frames wherever segments cut them.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod clients_program;
mod missing_part;
mod segments;

use abi::clients::{Client, Count, GARBLED, state};
use clients_program::*;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::script::script;
use perf_tests::load::scenario::{Dialect, Scenario, Transport};
use perf_tests::load::stamp::{Stamp, monotonic_ns};
use segments::{ACK, BOTH, FIN, Family, PSH, SYN, Segment, segment};
use wire::auth::AuthBody;
use wire::goim::op;
use wire::websocket::frame::{Opcode, put_close, put_frame};
use wire::websocket::handshake;

const HOST: &str = "10.64.0.1:3102";

fn websocket(dialect: Dialect) -> Scenario {
    let connect = vec![HOST.parse().unwrap()];
    Scenario { transport: Transport::Websocket, dialect, connect, ..scenario() }
}

fn accept() -> Vec<u8> {
    let mut answer = Vec::new();
    handshake::put_accept("cGVyZi10ZXN0cyBub25jZQ==", None, &mut answer);
    answer
}

/// What a client says when the server has said SYN: the request.
fn request(program: &mut Program) -> Segment {
    program.set_client(NUMBER, &Client::default()).unwrap();
    say(program, Family::V4, &segment(SERVER_AT.wrapping_sub(1), OURS_AT, SYN | ACK, &[])).unwrap()
}

/// The packet in a masked frame.
fn unmasked(frame: &[u8]) -> Vec<u8> {
    assert_eq!((frame[0], frame[1] & 0x80), (0x82, 0x80), "a final, binary, masked frame");
    let (length, at) = match frame[1] & 0x7f {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        short => (usize::from(short), 2),
    };
    assert_eq!(frame.len(), at + 4 + length, "and nothing behind it");
    frame[at + 4..].iter().zip(frame[at..at + 4].iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(Opcode::Binary, payload, &mut frame);
    frame
}

/// The same in the longest form of a header, which a server need not choose.
fn framed_long(payload: &[u8]) -> Vec<u8> {
    [&[0x82, 127][..], &(payload.len() as u64).to_be_bytes(), payload].concat()
}

#[test]
fn the_upgrade_is_asked_for_and_its_answer_is_followed_by_the_auth_packet_in_a_frame() {
    for dialect in [Dialect::Goim, Dialect::Bilibili] {
        let Some(mut program) = bring_up_as(&websocket(dialect)) else { return };
        let answer = accept();
        for cut in 1..=answer.len() {
            let asked = request(&mut program);
            let upgrade = handshake::parse(&asked.payload).unwrap().unwrap();
            assert_eq!((upgrade.path, upgrade.host, upgrade.consumed), ("/sub", HOST, asked.payload.len()));
            assert_eq!(program.client(NUMBER).unwrap().state, state::UPGRADING);
            let ours = OURS_AT.wrapping_add(asked.payload.len() as u32);
            if cut < answer.len() {
                let first = segment(SERVER_AT, ours, PSH | ACK, &answer[..cut]);
                assert_eq!(say(&mut program, Family::V4, &first), ack(ours, after(cut as u32)), "cut at {cut}");
            }
            let from = if cut < answer.len() { cut } else { 0 };
            let rest = segment(after(from as u32), ours, PSH | ACK, &answer[from..]);
            let said = say(&mut program, Family::V4, &rest).unwrap();
            assert_eq!((said.sequence, said.acknowledged), (ours, after(answer.len() as u32)), "cut at {cut}");
            let packet = unmasked(&said.payload);
            let packet = wire::goim::parse(&packet, 4096).unwrap().unwrap();
            let auth = AuthBody::parse(packet.body, "live").unwrap();
            assert_eq!((packet.header.operation, auth.mid), (op::AUTH, i64::from(5000 + NUMBER)));
            assert_eq!(auth.room.unwrap().as_str(), "live://1001");
            assert_eq!(program.client(NUMBER).unwrap().state, state::GREETED);
        }
    }
}

#[test]
fn what_got_lost_of_the_handshakes_is_said_again() {
    let Some(mut program) = bring_up_as(&websocket(Dialect::Goim)) else { return };
    let syn = segment(SERVER_AT.wrapping_sub(1), OURS_AT, SYN | ACK, &[]);
    let asked = request(&mut program);
    assert_eq!(say(&mut program, Family::V4, &syn).as_ref(), Some(&asked), "to a SYN that is said again");
    // What a server answers to a second SYN of a client's whose connection stands.
    let nothing_came = segment(SERVER_AT, OURS_AT, ACK, &[]);
    assert_eq!(say(&mut program, Family::V4, &nothing_came).as_ref(), Some(&asked), "to who has not had it");
    let ours = OURS_AT + asked.payload.len() as u32;
    let answered = segment(SERVER_AT, ours, PSH | ACK, &accept());
    let auth = say(&mut program, Family::V4, &answered).unwrap();
    assert!(!auth.payload.is_empty());
    assert_eq!(say(&mut program, Family::V4, &answered).as_ref(), Some(&auth), "to the answer when it comes again");
    let behind = after(accept().len() as u32);
    assert_eq!(say(&mut program, Family::V4, &segment(behind, ours, ACK, &[])).as_ref(), Some(&auth));
    let heard = ours + auth.payload.len() as u32;
    assert_eq!(say(&mut program, Family::V4, &segment(behind, heard, ACK, &[])), ack(heard, behind), "not once more");
    let granted = segment(behind, heard, PSH | ACK, &framed(&packet(op::AUTH_REPLY, b"")));
    assert_eq!(say(&mut program, Family::V4, &granted), ack(heard, behind.wrapping_add(18)));
    let counts = program.counts().unwrap();
    assert_eq!((counts.of(Count::Established), counts.of(Count::Joined)), (1, 1));
}

#[test]
fn an_upgrade_that_is_refused_has_a_reason_of_its_own() {
    for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n 101", &"x".repeat(100)] {
        let Some(mut program) = bring_up_as(&websocket(Dialect::Goim)) else { return };
        let asked = request(&mut program);
        let ours = OURS_AT + asked.payload.len() as u32;
        let length = answer.len() as u32;
        let said = segment(SERVER_AT, ours, PSH | ACK, answer.as_bytes());
        assert_eq!(say(&mut program, Family::V4, &said), ack(ours, after(length)), "{answer}");
        assert_eq!(program.client(NUMBER).unwrap().state, state::REFUSED, "{answer}");
        let closed = segment(after(length), ours, FIN | ACK, &[]);
        assert_eq!(say(&mut program, Family::V4, &closed).unwrap().flags, FIN | ACK);
        let counts = program.counts().unwrap();
        let counted = [Count::UpgradeRefused, Count::Refused, Count::ClosedBeforeGrant, Count::Garbled];
        assert_eq!(counted.map(|what| counts.of(what)), [1, 0, 0, 0], "{answer}");
    }
}

#[test]
fn an_answer_without_an_end_is_given_up() {
    let Some(mut program) = bring_up_as(&websocket(Dialect::Goim)) else { return };
    let ours = OURS_AT + request(&mut program).payload.len() as u32;
    let mut said = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    let mut at = 0;
    while program.client(NUMBER).unwrap().state == state::UPGRADING {
        said.resize(1000, b'x');
        say(&mut program, Family::V4, &segment(after(at), ours, PSH | ACK, &said)).unwrap();
        at += said.len() as u32;
        assert!(at < 20_000, "it reads on and on");
    }
    assert_eq!(program.counts().unwrap().of(Count::UpgradeRefused), 1);
}

/// Frames of every kind, and what they hold: six messages of the client's, and what else there is.
fn many_frames() -> Vec<u8> {
    let batch = |packets: &[Vec<u8>]| packet(op::RAW, &packets.concat());
    let mut ping = Vec::new();
    put_frame(Opcode::Ping, b"are you there?", &mut ping);
    let mut empty_ping = Vec::new();
    put_frame(Opcode::Ping, b"", &mut empty_ping);
    let mut close = Vec::new();
    put_close(wire::websocket::frame::CloseCode::NORMAL, "bye", &mut close);
    let elsewhere = Stamp { room: (NUMBER + 1) % ROOMS, ..stamp(0) };
    let parts = [
        framed(&packet(op::AUTH_REPLY, br#"{"code":0}"#)),
        framed(&message_of(stamp(0), 0)),
        ping,
        framed(&packet(op::HEARTBEAT_REPLY, &[0, 0, 0, 9])),
        // As goim batches, and as Bilibili does.
        framed(&batch(&[message_of(stamp(1), 40), message_of(stamp(2), 0), packet(op::HEARTBEAT_REPLY, b"")])),
        framed(&[message_of(elsewhere, 3), message_of(stamp(3), 70)].concat()),
        empty_ping,
        framed(b""),
        framed_long(&message_of(stamp(5), 7)),
        framed_long(&batch(&[message_of(stamp(6), 1)])),
        close,
    ];
    parts.concat()
}

/// Everywhere, and many small pieces: every so many bytes.
fn cuts_of(stream: &[u8]) -> impl Iterator<Item = Vec<usize>> {
    let length = stream.len();
    let even = move |step: usize| (1..).map(|piece| piece * step).take_while(|cut| *cut < length).collect();
    (1..length).map(|cut| vec![cut]).chain((1..50).map(even))
}

/// The stream of one client, cut at every place: whatever the segments, the books are the same.
#[test]
fn frames_and_packets_are_read_wherever_segments_cut_them() {
    let stream = many_frames();
    let Some(mut program) = bring_up_as(&websocket(Dialect::Goim)) else { return };
    for cuts in cuts_of(&stream) {
        program.set_client(NUMBER, &Client { state: state::GREETED, ..joined() }).unwrap();
        let before = program.counts().unwrap();
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            let said = segment(after(from as u32), OURS_AT, PSH | ACK, &stream[from..to]);
            // A pong may go with it.
            let answer = say(&mut program, Family::V4, &said).unwrap();
            assert_eq!((answer.sequence, answer.acknowledged), (OURS_AT, after(to as u32)), "cut at {cuts:?}");
            from = to;
        }
        let counts = program.counts().unwrap().since(&before);
        let expected = [
            (Count::Joined, 1),
            (Count::HeartbeatReplies, 2),
            (Count::Messages, 6),
            (Count::Misrouted, 1),
            (Count::Gaps, 1),
            (Count::Missing, 1),
            (Count::ControlFrames, 3),
            (Count::Bytes, stream.len() as u64),
            (Count::Foreign, 0),
            (Count::Garbled, 0),
            (Count::OtherPackets, 0),
        ];
        for (what, times) in expected {
            assert_eq!(counts.of(what), times, "{} when cut at {cuts:?}", what.name());
        }
        let client = program.client(NUMBER).unwrap();
        assert_eq!((client.next_number, client.missed, client.at, client.left), (7, 0b100, 0, 0), "cut at {cuts:?}");
    }
}

#[test]
fn a_ping_is_answered_by_what_it_says() {
    let ping = |said: &[u8]| {
        let mut frame = Vec::new();
        put_frame(Opcode::Ping, said, &mut frame);
        frame
    };
    let pong = |said: &[u8]| [&[0x8a, 0x80 | said.len() as u8, 0, 0, 0, 0][..], said].concat();
    let Some(mut program) = bring_up_as(&websocket(Dialect::Goim)) else { return };
    let (longest, with_message) = ([b'x'; 125], [framed(&message(0)), ping(b"there?"), framed(&message(1))].concat());
    for (name, said, answer) in [
        ("an empty one", ping(b""), pong(b"")),
        ("a short one", ping(b"hello"), pong(b"hello")),
        ("the longest", ping(&longest), pong(&longest)),
        ("the last of two", [ping(b"one"), ping(b"two")].concat(), pong(b"two")),
        ("one between messages", with_message, pong(b"there?")),
    ] {
        for family in BOTH {
            program.set_client(NUMBER, &joined()).unwrap();
            let answered = say(&mut program, family, &segment(SERVER_AT, OURS_AT, PSH | ACK, &said)).unwrap();
            let expected = segment(OURS_AT, after(said.len() as u32), PSH | ACK, &answer);
            assert_eq!(answered, expected, "{name}, {family:?}");
        }
    }
    let said = ping(b"hello");
    let whole = Some(segment(OURS_AT, after(7), PSH | ACK, &pong(b"hello")));
    for (cut, answer, unanswered) in [(1, whole.clone(), 0), (2, whole, 0), (3, ack(OURS_AT, after(7)), 1)] {
        program.set_client(NUMBER, &joined()).unwrap();
        let before = program.counts().unwrap();
        let first = segment(SERVER_AT, OURS_AT, PSH | ACK, &said[..cut]);
        assert_eq!(say(&mut program, Family::V4, &first), ack(OURS_AT, after(cut as u32)), "cut at {cut}");
        let rest = segment(after(cut as u32), OURS_AT, PSH | ACK, &said[cut..]);
        assert_eq!(say(&mut program, Family::V4, &rest), answer, "cut at {cut}");
        let counts = program.counts().unwrap().since(&before);
        assert_eq!((counts.of(Count::ControlFrames), counts.of(Count::Unanswered)), (1, unanswered), "cut at {cut}");
    }
}

/// Whoever reads at a rate keeps its reading where others keep what comes behind a packet that was cut.
#[test]
fn frames_are_read_at_a_rate_too_and_across_its_beginning_and_end() {
    let scenario = websocket(Dialect::Goim);
    let Some(mut program) = bring_up_as(&scenario) else { return };
    let mut slowly = script(&scenario, FIRST, SECRET).unwrap();
    slowly.room_bytes = 60_000;
    slowly.bytes_per_second[1] = 1000;
    program.set_script(&slowly).unwrap();
    let stream = many_frames();
    let slow = state::SLOW + 1;
    for (name, first, between, last) in [
        ("all the time", slow, slow, slow),
        ("from there on", state::RESUMED, slow, slow),
        ("up to there", slow, state::RESUMED, state::RESUMED),
        ("for a moment", state::RESUMED, slow, state::RESUMED),
    ] {
        for cuts in cuts_of(&stream) {
            program.set_client(NUMBER, &Client { state: first, sent_ns: 1, ..joined() }).unwrap();
            let before = program.counts().unwrap();
            let mut from = 0;
            for to in cuts.iter().copied().chain([stream.len()]) {
                let said = segment(after(from as u32), OURS_AT, PSH | ACK, &stream[from..to]);
                let answer = say(&mut program, Family::V4, &said).unwrap();
                assert_eq!(answer.acknowledged, after(to as u32), "{name}, cut at {cuts:?}");
                let client = program.client(NUMBER).unwrap();
                program.set_client(NUMBER, &Client { state: between, ..client }).unwrap();
                // The server asks how much room there is.
                let probe = segment(after(to as u32).wrapping_sub(1), OURS_AT, ACK, &[]);
                say(&mut program, Family::V4, &probe).unwrap();
                let client = program.client(NUMBER).unwrap();
                program.set_client(NUMBER, &Client { state: last, ..client }).unwrap();
                from = to;
            }
            let counts = program.counts().unwrap().since(&before);
            let expected = [
                (Count::AstrayMessages, 6),
                (Count::AstrayGaps, 1),
                (Count::HeartbeatReplies, 2),
                (Count::Misrouted, 1),
                (Count::ControlFrames, 3),
                (Count::Garbled, 0),
                (Count::Foreign, 0),
            ];
            for (what, times) in expected {
                assert_eq!(counts.of(what), times, "{}, {name}, cut at {cuts:?}", what.name());
            }
            assert_eq!(program.client(NUMBER).unwrap().at, 0, "{name}, cut at {cuts:?}");
        }
    }
}

#[test]
fn what_a_server_may_not_send_ends_the_reading() {
    let good = message(0);
    let cut_short = [&[0x82, 60][..], &good].concat();
    let masked = [&[0x82, 0x80 | 68, 0, 0, 0, 0][..], &good].concat();
    let two_in_one = [&[0x82, 100][..], &good, &good].concat();
    let batch_past_its_frame = [&[0x82, 84][..], &packet(op::RAW, &[good.clone(), good.clone()].concat())].concat();
    let Some(mut program) = bring_up_as(&websocket(Dialect::Goim)) else { return };
    for (name, bytes, messages) in [
        ("a packet that passes its frame", cut_short, 0),
        ("a second packet that passes it", two_in_one, 1),
        ("a batch that passes it", batch_past_its_frame, 0),
        ("a frame that ends in a packet's header", [&[0x82, 78][..], &good, &[0; 10], &framed(&good)].concat(), 1),
        ("a packet without a frame", good.clone(), 0),
        ("a packet behind its frame", [framed(&good), good.clone()].concat(), 1),
        ("a mask", masked, 0),
        ("a reserved bit", [&[0xc2, 68][..], &good].concat(), 0),
        ("text", [&[0x81, 68][..], &good].concat(), 0),
        ("a fragment", [&[0x02, 68][..], &good].concat(), 0),
        ("a continuation", [&[0x80, 68][..], &good].concat(), 0),
        ("a long ping", [&[0x89, 126, 0, 68][..], &good].concat(), 0),
        ("an unknown opcode", [&[0x83, 68][..], &good].concat(), 0),
        ("a length that nobody has", [&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 68][..], &good].concat(), 0),
    ] {
        for cut in 1..bytes.len() {
            program.set_client(NUMBER, &joined()).unwrap();
            let before = program.counts().unwrap();
            for (from, to) in [(0, cut), (cut, bytes.len())] {
                let said = segment(after(from as u32), OURS_AT, PSH | ACK, &bytes[from..to]);
                assert_eq!(
                    say(&mut program, Family::V4, &said),
                    ack(OURS_AT, after(to as u32)),
                    "{name}, cut at {cut}"
                );
            }
            let counts = program.counts().unwrap().since(&before);
            assert_eq!(program.client(NUMBER).unwrap().at, GARBLED, "{name}, cut at {cut}");
            assert_eq!((counts.of(Count::Garbled), counts.of(Count::Messages)), (1, messages), "{name}, cut at {cut}");
        }
    }
}

#[test]
fn the_delay_of_a_packet_that_was_cut_is_as_long_as_of_one_that_was_not() {
    let Some(mut program) = bring_up_as(&websocket(Dialect::Goim)) else { return };
    const MINUTE_NS: u64 = 60_000_000_000;
    for (number, ago_ns) in [1_000_000, 1_000_000_000, 20 * MINUTE_NS].into_iter().enumerate() {
        let sent_ns = monotonic_ns().saturating_sub(ago_ns);
        let bytes = framed(&message_of(Stamp { sent_ns, ..stamp(number as u64) }, 0));
        for cut in [0, 20, 43, 44, 45, 46, 47, 48, 49, 50] {
            program.set_client(NUMBER, &Client { next_number: number as u32, ..joined() }).unwrap();
            let before = program.delays().unwrap();
            for (from, to) in [(0, cut), (cut, bytes.len())] {
                if from < to {
                    let said = segment(after(from as u32), OURS_AT, PSH | ACK, &bytes[from..to]);
                    say(&mut program, Family::V4, &said).unwrap();
                }
            }
            let most_ns = monotonic_ns() - sent_ns;
            let now = program.delays().unwrap();
            let counted: Vec<usize> = (0..now.len()).filter(|at| now[*at] > before[*at]).collect();
            let [bucket] = counted[..] else { panic!("not one bucket, but {counted:?}") };
            // A tick is little more than a microsecond.
            let least_ns = (monotonic_ns() - sent_ns).min(ago_ns) - 2048;
            let expected = abi::clients::delay_bucket(least_ns)..=abi::clients::delay_bucket(most_ns + 2048);
            assert!(expected.contains(&(bucket as u32)), "{ago_ns} ns, cut at {cut}: {bucket}, not in {expected:?}");
        }
    }
}
