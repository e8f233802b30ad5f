//! What the clients made of XDP do with a segment, and how they stand afterwards: the real program in the kernel, one
//! frame at a time, by `BPF_PROG_TEST_RUN`.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod missing_part;
mod segments;

use std::net::{Ipv4Addr, SocketAddrV4};

use abi::clients::{Client, Count, PROGRAM, initial_sequence, state};
use aya::programs::{TestRun as _, TestRunOptions};
use missing_part::{Kind, or_skip};
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::script::{FIRST_PORT, PORTS_PER_ADDRESS, script};
use perf_tests::load::scenario::Scenario;
use perf_tests::load::stamp::{Stamp, monotonic_ns};
use segments::{ACK, BOTH, FIN, Family, PSH, RST, SYN, Segment, frame, parse, segment};
use wire::auth::AuthBody;
use wire::goim::{Header, op};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

const CLIENTS: u32 = 100;
const ROOMS: u32 = 3;
const RUN: u32 = 77;
const SECRET: u32 = 0x5eed;
const FIRST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 128, 0, 1), FIRST_PORT as u16);

/// The client of most rows: neither on the first address nor on the first port.
const NUMBER: u32 = 37;
/// The server's first byte, and ours, behind SYN. The server's wraps soon.
const SERVER_AT: u32 = u32::MAX - 20;
const OURS_AT: u32 = initial_sequence(NUMBER, SECRET).wrapping_add(1);

/// The kernel's program with its clients. `None` after saying why not.
fn bring_up() -> Option<Program> {
    let loaded = match Program::load(CLIENTS, 100) {
        Err(error @ (XdpError::NotRoot | XdpError::NoObject { .. })) => Err(error.to_string()),
        // Anything else is the program's fault.
        loaded => Ok(loaded.unwrap()),
    };
    let mut program = or_skip(Kind::Kernel, "clients made of XDP", loaded)?;
    let scenario = Scenario { clients: CLIENTS, rooms: ROOMS, run: RUN, first_mid: 5000, ..Scenario::default() };
    program.set_script(&script(&scenario, FIRST, SECRET).unwrap()).unwrap();
    Some(program)
}

/// Where a client lives.
fn place_of(number: u32) -> (Ipv4Addr, u16) {
    let address = u32::from(*FIRST.ip()) + number / PORTS_PER_ADDRESS;
    (address.into(), (FIRST_PORT + number % PORTS_PER_ADDRESS) as u16)
}

/// Runs one frame and gives the verdict and what became of the frame.
fn run(program: &mut Program, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; 4096];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.program(PROGRAM).unwrap().test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// Says `segment` to a client and gives its answer.
fn say(program: &mut Program, family: Family, segment: &Segment) -> Option<Segment> {
    let (verdict, out) = run(program, &frame(family, segment, place_of(NUMBER), 0));
    match verdict {
        XDP_TX => Some(parse(family, &out, place_of(NUMBER))),
        XDP_DROP => None,
        other => panic!("the program answered {other}"),
    }
}

/// A client that is in, and has heard nothing.
fn joined() -> Client {
    Client { next_in: SERVER_AT, next_out: OURS_AT, state: state::JOINED, ..Client::default() }
}

fn packet(operation: i32, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    Header { version: 1, operation, sequence: 0 }.put_packet(body, &mut packet);
    packet
}

/// Message `number` of the client's stream, with `filling` bytes behind its stamp.
fn message_of(stamp: Stamp, filling: usize) -> Vec<u8> {
    let mut body = vec![b'.'; 32 + filling];
    stamp.write(&mut body);
    packet(op::FIRST_OF_APPLICATION, &body)
}

fn stamp(number: u64) -> Stamp {
    Stamp { run: RUN, room: NUMBER % ROOMS, phase: 0, number, sent_ns: monotonic_ns() }
}

fn message(number: u64) -> Vec<u8> {
    message_of(stamp(number), 20)
}

/// A segment that meets a client, the answer, and what of the client is different afterwards.
struct Row {
    name: &'static str,
    before: Client,
    said: Segment,
    answer: Option<Segment>,
    after: fn(&mut Client),
    counts: &'static [(Count, u64)],
}

fn row(
    name: &'static str,
    before: Client,
    said: Segment,
    answer: Option<Segment>,
    after: fn(&mut Client),
    counts: &'static [(Count, u64)],
) -> Row {
    Row { name, before, said, answer, after, counts }
}

/// Runs the rows in both families. What a row does not name must not be counted.
fn check(rows: &[Row]) {
    let Some(mut program) = bring_up() else { return };
    for (Row { name, before, said, answer, after, counts }, family) in
        rows.iter().flat_map(|row| BOTH.map(|family| (row, family)))
    {
        program.set_client(NUMBER, before).unwrap();
        let counted = program.counts().unwrap();
        assert_eq!(say(&mut program, family, said), *answer, "{name}, {family:?}");
        let moved = program.counts().unwrap().since(&counted);
        for what in Count::ALL {
            let expected = counts.iter().find(|(counted, _)| *counted == what).map_or(0, |(_, times)| *times);
            assert_eq!(moved.of(what), expected, "{name}, {family:?}: {}", what.name());
        }
        let mut expected = *before;
        after(&mut expected);
        // Of the packet that was read last, time and number stay behind, for nobody.
        let found = program.client(NUMBER).unwrap();
        let found = if found.at == 0 { Client { sent_ns: 0, field: 0, ..found } } else { found };
        assert_eq!(found, expected, "{name}, {family:?}");
    }
}

const fn after(bytes: u32) -> u32 {
    SERVER_AT.wrapping_add(bytes)
}

fn ack(sequence: u32, acknowledged: u32) -> Option<Segment> {
    Some(segment(sequence, acknowledged, ACK, &[]))
}

#[test]
fn the_servers_syn_is_answered_by_an_auth_packet_with_the_clients_own_number_and_room() {
    let Some(mut program) = bring_up() else { return };
    for (number, family) in (0..CLIENTS).flat_map(|number| BOTH.map(|family| (number, family))) {
        program.set_client(number, &Client::default()).unwrap();
        let ours = initial_sequence(number, SECRET).wrapping_add(1);
        let said = segment(SERVER_AT.wrapping_sub(1), ours, SYN | ACK, &[]);
        let (verdict, out) = run(&mut program, &frame(family, &said, place_of(number), 1));
        assert_eq!(verdict, XDP_TX, "client {number}");
        let answer = parse(family, &out, place_of(number));
        assert_eq!((answer.sequence, answer.acknowledged, answer.flags), (ours, SERVER_AT, PSH | ACK));
        let packet = wire::goim::parse(&answer.payload, 4096).unwrap().unwrap();
        assert_eq!(packet.wire_bytes(), answer.payload.len(), "one packet and nothing behind it");
        let auth = AuthBody::parse(packet.body, "live").unwrap();
        assert_eq!((packet.header.operation, auth.mid), (op::AUTH, i64::from(5000 + number)));
        assert_eq!(auth.room.unwrap().as_str(), format!("live://{}", 1000 + number % ROOMS));
        let client = program.client(number).unwrap();
        assert_eq!(client, Client { next_in: SERVER_AT, next_out: ours, state: state::GREETED, ..Client::default() });
    }
    assert_eq!(program.counts().unwrap().of(Count::Established), u64::from(2 * CLIENTS));
}

#[test]
fn a_syn_that_is_said_again_is_answered_again_as_long_as_nothing_came_of_the_first() {
    let Some(mut program) = bring_up() else { return };
    let said = segment(SERVER_AT.wrapping_sub(1), OURS_AT, SYN | ACK, &[]);
    let first = say(&mut program, Family::V4, &said).unwrap();
    assert_eq!(say(&mut program, Family::V4, &said).unwrap(), first);
    let anew = segment(9999, OURS_AT, SYN | ACK, &[]);
    assert_eq!(say(&mut program, Family::V4, &anew), Some(Segment { acknowledged: 10_000, ..first.clone() }));
    let acked = segment(10_000, OURS_AT + first.payload.len() as u32, ACK, &[]);
    let ours = acked.acknowledged;
    assert_eq!(say(&mut program, Family::V4, &acked), ack(ours, 10_000));
    assert_eq!(say(&mut program, Family::V4, &anew), ack(ours, 10_000), "not greeted twice");
    assert_eq!(program.counts().unwrap().of(Count::Established), 1);
}

#[test]
fn handshakes_that_are_none_and_segments_to_nobody_are_dropped() {
    let fresh = Client::default();
    let stray = &[(Count::Stray, 1)];
    check(&[
        row("an acknowledgement of another SYN", fresh, segment(1, OURS_AT + 1, SYN | ACK, &[]), None, |_| {}, stray),
        row("a SYN alone", fresh, segment(1, 0, SYN, &[]), None, |_| {}, stray),
        row("data before the handshake", fresh, segment(1, OURS_AT, ACK, b"x"), None, |_| {}, stray),
        row(
            "a reset of the SYN",
            fresh,
            segment(0, OURS_AT, RST | ACK, &[]),
            None,
            |client| client.state = state::RESET,
            &[(Count::SynReset, 1)],
        ),
    ]);
    let Some(mut program) = bring_up() else { return };
    let said = segment(1, OURS_AT, SYN | ACK, &[]);
    let (address, port) = place_of(NUMBER);
    let beyond = place_of(CLIENTS);
    for (name, place) in [
        ("another port", (address, port + PORTS_PER_ADDRESS as u16)),
        ("a port below", (address, FIRST_PORT as u16 - 1)),
        ("an address below", (Ipv4Addr::new(10, 128, 0, 0), port)),
        ("an address far away", (Ipv4Addr::new(192, 0, 2, 1), port)),
        ("one client too many", beyond),
    ] {
        let frame = frame(Family::V4, &said, place, 0);
        assert_eq!(run(&mut program, &frame), (XDP_PASS, frame), "{name} is left to the kernel");
    }
}

#[test]
fn an_auth_is_granted_by_an_empty_body_and_refused_by_another() {
    let greeted = Client { state: state::GREETED, ..joined() };
    let refusal = packet(op::AUTH_REPLY, br#"{"code":-101}"#);
    let (granted, refused) = (packet(op::AUTH_REPLY, b""), segment(SERVER_AT, OURS_AT, PSH | ACK, &refusal));
    let mut both = granted.clone();
    both.extend(message(0));
    check(&[
        row(
            "granted",
            greeted,
            segment(SERVER_AT, OURS_AT + 90, PSH | ACK, &granted),
            ack(OURS_AT + 90, after(16)),
            |client| *client = Client { next_in: after(16), next_out: OURS_AT + 90, ..joined() },
            &[(Count::Joined, 1), (Count::Bytes, 16)],
        ),
        row(
            "granted, and a message right behind it",
            greeted,
            segment(SERVER_AT, OURS_AT, PSH | ACK, &both),
            ack(OURS_AT, after(84)),
            |client| *client = Client { next_in: after(84), next_number: 1, ..joined() },
            &[(Count::Joined, 1), (Count::Messages, 1), (Count::Bytes, 84)],
        ),
        row(
            "refused",
            greeted,
            refused,
            ack(OURS_AT, after(29)),
            |client| *client = Client { next_in: after(29), state: state::REFUSED, ..joined() },
            &[(Count::Refused, 1), (Count::Bytes, 29)],
        ),
        row(
            "closed without a word",
            greeted,
            segment(SERVER_AT, OURS_AT, FIN | ACK, &[]),
            Some(segment(OURS_AT, after(1), FIN | ACK, &[])),
            |client| *client = Client { next_in: after(1), state: state::CLOSED, ..joined() },
            &[(Count::ClosedBeforeGrant, 1)],
        ),
        row(
            "reset",
            greeted,
            segment(SERVER_AT, OURS_AT, RST, &[]),
            None,
            |client| client.state = state::RESET,
            &[(Count::ResetBeforeGrant, 1)],
        ),
    ]);
}

#[test]
fn data_is_acknowledged_once_in_order_and_counted_once() {
    let one = message(0);
    let length = one.len() as u32;
    assert_eq!(length, 68);
    let heard = Client { next_in: after(68), next_number: 1, ..joined() };
    let overlapping = [&one[60..], &message(1)[..]].concat();
    check(&[
        row(
            "a message",
            joined(),
            segment(SERVER_AT, OURS_AT, PSH | ACK, &one),
            ack(OURS_AT, after(length)),
            |client| *client = Client { next_in: after(68), next_number: 1, ..joined() },
            &[(Count::Messages, 1), (Count::Bytes, 68)],
        ),
        row(
            "the same again",
            heard,
            segment(SERVER_AT, OURS_AT, PSH | ACK, &one),
            ack(OURS_AT, after(68)),
            |_| {},
            &[(Count::Repeated, 1)],
        ),
        row(
            "half of it again, and what follows",
            heard,
            segment(after(60), OURS_AT, PSH | ACK, &overlapping),
            ack(OURS_AT, after(136)),
            |client| *client = Client { next_in: after(136), next_number: 2, ..joined() },
            &[(Count::Messages, 1), (Count::Bytes, 68)],
        ),
        row(
            "behind a hole",
            joined(),
            segment(after(5), OURS_AT, PSH | ACK, &one),
            ack(OURS_AT, SERVER_AT),
            |_| {},
            &[(Count::BehindHole, 1)],
        ),
        row("nothing new", joined(), segment(SERVER_AT, OURS_AT, ACK, &[]), None, |_| {}, &[]),
        row("a keep-alive", joined(), segment(after(0).wrapping_sub(1), OURS_AT, ACK, &[]), None, |_| {}, &[]),
        row(
            "what we sent has come",
            joined(),
            segment(SERVER_AT, OURS_AT + 16, ACK, &[]),
            ack(OURS_AT + 16, SERVER_AT),
            |client| client.next_out = OURS_AT + 16,
            &[],
        ),
        row("that had come before", joined(), segment(SERVER_AT, OURS_AT - 16, ACK, &[]), None, |_| {}, &[]),
    ]);
}

#[test]
fn a_close_is_answered_by_ours_and_a_reset_by_nothing() {
    let closed = Client { next_in: after(1), state: state::CLOSED, ..joined() };
    check(&[
        row(
            "FIN",
            joined(),
            segment(SERVER_AT, OURS_AT, FIN | ACK, &[]),
            Some(segment(OURS_AT, after(1), FIN | ACK, &[])),
            |client| *client = Client { next_in: after(1), state: state::CLOSED, ..joined() },
            &[(Count::Closed, 1)],
        ),
        row(
            "FIN with the last packet",
            joined(),
            segment(SERVER_AT, OURS_AT, FIN | PSH | ACK, &packet(op::DISCONNECT_REPLY, b"bye")),
            Some(segment(OURS_AT, after(20), FIN | ACK, &[])),
            |client| *client = Client { next_in: after(20), state: state::CLOSED, ..joined() },
            &[(Count::OtherPackets, 1), (Count::Closed, 1), (Count::Bytes, 19)],
        ),
        row(
            "FIN again",
            closed,
            segment(SERVER_AT, OURS_AT, FIN | ACK, &[]),
            Some(segment(OURS_AT, after(1), FIN | ACK, &[])),
            |_| {},
            &[(Count::Repeated, 1)],
        ),
        row(
            "FIN behind a hole",
            joined(),
            segment(after(3), OURS_AT, FIN | ACK, &[]),
            ack(OURS_AT, SERVER_AT),
            |_| {},
            &[(Count::BehindHole, 1)],
        ),
        row(
            "RST",
            joined(),
            segment(SERVER_AT, OURS_AT, RST | ACK, &[]),
            None,
            |client| client.state = state::RESET,
            &[(Count::Reset, 1)],
        ),
        row(
            "RST after all is over",
            closed,
            segment(after(1), 0, RST, &[]),
            None,
            |client| client.state = state::CLOSED,
            &[],
        ),
    ]);
}

#[test]
fn numbers_tell_gaps_duplicates_and_disorder_apart() {
    let at_ten = Client { next_number: 10, ..joined() };
    // 8 and 5 have not come.
    let with_holes = Client { missed: 0b1_0010, ..at_ten };
    let say = |number| segment(SERVER_AT, OURS_AT, PSH | ACK, &message(number));
    let answer = || ack(OURS_AT, after(68));
    check(&[
        row(
            "two are left out",
            at_ten,
            say(12),
            answer(),
            |client| *client = Client { next_in: after(68), next_number: 13, missed: 0b110, ..*client },
            &[(Count::Messages, 1), (Count::Gaps, 1), (Count::Missing, 2), (Count::Bytes, 68)],
        ),
        row(
            "a thousand are left out",
            at_ten,
            say(1010),
            answer(),
            |client| *client = Client { next_in: after(68), next_number: 1011, missed: 0b1111_1110, ..*client },
            &[(Count::Messages, 1), (Count::Gaps, 1), (Count::Missing, 1000), (Count::Bytes, 68)],
        ),
        row(
            "the next one keeps the holes in mind",
            with_holes,
            say(10),
            answer(),
            |client| *client = Client { next_in: after(68), next_number: 11, missed: 0b10_0100, ..*client },
            &[(Count::Messages, 1), (Count::Bytes, 68)],
        ),
        row(
            "one that was missing comes late",
            with_holes,
            say(5),
            answer(),
            |client| *client = Client { next_in: after(68), missed: 0b10, ..*client },
            &[(Count::Messages, 1), (Count::OrderFaults, 1), (Count::Missing, u64::MAX), (Count::Bytes, 68)],
        ),
        row(
            "one that was there comes again",
            with_holes,
            say(9),
            answer(),
            |client| client.next_in = after(68),
            &[(Count::Duplicates, 1), (Count::Bytes, 68)],
        ),
        row(
            "one from long ago",
            with_holes,
            say(0),
            answer(),
            |client| client.next_in = after(68),
            &[(Count::Duplicates, 1), (Count::Bytes, 68)],
        ),
    ]);
}

#[test]
fn what_is_not_for_this_client_and_phase_is_counted_apart() {
    let say = |stamp: Stamp| segment(SERVER_AT, OURS_AT, PSH | ACK, &message_of(stamp, 20));
    let answer = || ack(OURS_AT, after(68));
    let stays = |client: &mut Client| client.next_in = after(68);
    check(&[
        row(
            "another run's",
            joined(),
            say(Stamp { run: RUN + 1, ..stamp(0) }),
            answer(),
            stays,
            &[(Count::Foreign, 1), (Count::Bytes, 68)],
        ),
        row(
            "another room's",
            joined(),
            say(Stamp { room: (NUMBER + 1) % ROOMS, ..stamp(0) }),
            answer(),
            stays,
            &[(Count::Misrouted, 1), (Count::Bytes, 68)],
        ),
        row(
            "another phase's",
            joined(),
            say(Stamp { phase: 9, ..stamp(0) }),
            answer(),
            stays,
            &[(Count::Stragglers, 1), (Count::Bytes, 68)],
        ),
        row(
            "nobody's",
            joined(),
            segment(SERVER_AT, OURS_AT, PSH | ACK, &packet(1000, &[b'x'; 52])),
            answer(),
            stays,
            &[(Count::Foreign, 1), (Count::Bytes, 68)],
        ),
        row(
            "one without room for a stamp",
            joined(),
            segment(SERVER_AT, OURS_AT, PSH | ACK, &packet(1000, b"hello")),
            ack(OURS_AT, after(21)),
            |client| client.next_in = after(21),
            &[(Count::Foreign, 1), (Count::Bytes, 21)],
        ),
        row(
            "a heartbeat's reply",
            joined(),
            segment(SERVER_AT, OURS_AT, PSH | ACK, &packet(op::HEARTBEAT_REPLY, &[0, 0, 0, 1])),
            ack(OURS_AT, after(20)),
            |client| client.next_in = after(20),
            &[(Count::HeartbeatReplies, 1), (Count::Bytes, 20)],
        ),
    ]);
}

#[test]
fn a_length_that_is_none_ends_the_reading_and_nothing_else() {
    let garbled = |client: &mut Client| {
        *client = Client { next_in: after(48), left: client.left, at: abi::clients::GARBLED, ..*client };
    };
    for (name, length) in [("below a header", 15_u32), ("above every limit", (1 << 24) + 1), ("negative", u32::MAX)] {
        let mut bytes = vec![0; 48];
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let Some(mut program) = bring_up() else { return };
        program.set_client(NUMBER, &joined()).unwrap();
        assert_eq!(say(&mut program, Family::V4, &segment(SERVER_AT, OURS_AT, ACK, &bytes)), ack(OURS_AT, after(48)));
        let mut expected = joined();
        garbled(&mut expected);
        expected.left = length;
        assert_eq!(program.client(NUMBER).unwrap(), expected, "{name}");
        let more = segment(after(48), OURS_AT, ACK, &message(0));
        assert_eq!(say(&mut program, Family::V4, &more), ack(OURS_AT, after(116)), "{name}: it goes on to acknowledge");
        let counts = program.counts().unwrap();
        assert_eq!((counts.of(Count::Garbled), counts.of(Count::Messages), counts.of(Count::Bytes)), (1, 0, 116));
    }
}

#[test]
fn frames_that_contradict_themselves_are_dropped_and_counted() {
    let Some(mut program) = bring_up() else { return };
    let whole = frame(Family::V4, &segment(SERVER_AT, OURS_AT, ACK, &message(0)), place_of(NUMBER), 0);
    let bent = |at: usize, byte: u8| {
        let mut frame = whole.clone();
        frame[at] = byte;
        frame
    };
    for (name, frame) in [
        ("a data offset of 4 words", bent(46, 0x40)),
        ("a data offset past the end", {
            let mut frame = whole[..54].to_vec();
            (frame[17], frame[46]) = (40, 0x60);
            frame
        }),
        ("IPv4 options", bent(14, 0x46)),
        ("a fragment", bent(20, 0x20)),
        ("a length past the frame", bent(16, 1)),
        ("a length below the header", {
            let mut frame = whole.clone();
            (frame[16], frame[17]) = (0, 19);
            frame
        }),
        ("a frame that ends in TCP", whole[..50].to_vec()),
    ] {
        let before = program.counts().unwrap();
        assert_eq!(run(&mut program, &frame).0, XDP_DROP, "{name}");
        assert_eq!(program.counts().unwrap().since(&before).of(Count::Malformed), 1, "{name}");
    }
    let arp = bent(13, 0x06);
    assert_eq!(run(&mut program, &arp), (XDP_PASS, arp), "ARP is the kernel's");
    let udp = bent(23, 17)[..42].to_vec();
    assert_eq!(run(&mut program, &udp), (XDP_PASS, udp), "so is UDP, however short");
}

/// The stream of one client, cut at every place: whatever the segments, the books are the same.
#[test]
fn packets_are_read_wherever_segments_cut_them() {
    let Some(mut program) = bring_up() else { return };
    let parts: Vec<Vec<u8>> = vec![
        packet(op::AUTH_REPLY, b""),
        message_of(stamp(0), 0),
        packet(op::HEARTBEAT_REPLY, &[0, 0, 0, 9]),
        message_of(stamp(1), 40),
        message_of(Stamp { room: (NUMBER + 1) % ROOMS, ..stamp(0) }, 3),
        message_of(stamp(3), 7),
    ];
    let stream = parts.concat();
    let cuts = (1..stream.len()).map(|cut| vec![cut]).chain((1..50).map(|step| {
        // Many small ones: every `step` bytes.
        (1..).map(|piece| piece * step).take_while(|cut| *cut < stream.len()).collect()
    }));
    for cuts in cuts {
        program.set_client(NUMBER, &Client { state: state::GREETED, ..joined() }).unwrap();
        let before = program.counts().unwrap();
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            let said = segment(after(from as u32), OURS_AT, PSH | ACK, &stream[from..to]);
            assert_eq!(say(&mut program, Family::V4, &said), ack(OURS_AT, after(to as u32)), "cut at {cuts:?}");
            from = to;
        }
        let counts = program.counts().unwrap().since(&before);
        let expected = [
            (Count::Joined, 1),
            (Count::HeartbeatReplies, 1),
            (Count::Messages, 3),
            (Count::Misrouted, 1),
            (Count::Gaps, 1),
            (Count::Missing, 1),
            (Count::Bytes, stream.len() as u64),
            (Count::Foreign, 0),
            (Count::Garbled, 0),
            (Count::OtherPackets, 0),
        ];
        for (what, times) in expected {
            assert_eq!(counts.of(what), times, "{} when cut at {cuts:?}", what.name());
        }
        let client = program.client(NUMBER).unwrap();
        assert_eq!((client.next_number, client.missed, client.at, client.left), (4, 0b10, 0, 0), "cut at {cuts:?}");
    }
}

#[test]
fn a_segment_full_of_packets_is_read_to_its_end() {
    let Some(mut program) = bring_up() else { return };
    let smallest: Vec<u8> = packet(op::HEARTBEAT_REPLY, b"").repeat(1460 / 16);
    let messages: Vec<u8> = (0..30).flat_map(|number| message_of(stamp(number), 0)).collect();
    for (stream, what, times) in [(smallest, Count::HeartbeatReplies, 91), (messages, Count::Messages, 30)] {
        program.set_client(NUMBER, &joined()).unwrap();
        let before = program.counts().unwrap();
        say(&mut program, Family::V4, &segment(SERVER_AT, OURS_AT, PSH | ACK, &stream)).unwrap();
        assert_eq!(program.counts().unwrap().since(&before).of(what), times, "{}", what.name());
        assert_eq!(program.client(NUMBER).unwrap().at, 0);
    }
}

#[test]
fn a_new_phase_begins_the_numbers_anew() {
    let Some(mut program) = bring_up() else { return };
    program.set_client(NUMBER, &Client { next_number: 500, ..joined() }).unwrap();
    let scenario = Scenario { clients: CLIENTS, rooms: ROOMS, run: RUN, ..Scenario::default() };
    let mut next = script(&scenario, FIRST, SECRET).unwrap();
    next.phase = 1;
    program.set_script(&next).unwrap();
    let said = segment(SERVER_AT, OURS_AT, PSH | ACK, &message_of(Stamp { phase: 1, ..stamp(0) }, 20));
    say(&mut program, Family::V4, &said).unwrap();
    let counts = program.counts().unwrap();
    assert_eq!((counts.of(Count::Messages), counts.of(Count::Gaps), counts.of(Count::Duplicates)), (1, 0, 0));
    assert_eq!(program.client(NUMBER).unwrap().next_number, 1);
}

#[test]
fn delays_are_those_between_the_stamp_and_now() {
    let Some(mut program) = bring_up() else { return };
    program.set_client(NUMBER, &joined()).unwrap();
    let second = 1_000_000_000;
    let sent_ns = monotonic_ns() - second;
    say(
        &mut program,
        Family::V4,
        &segment(SERVER_AT, OURS_AT, PSH | ACK, &message_of(Stamp { sent_ns, ..stamp(0) }, 0)),
    );
    let most = monotonic_ns() - sent_ns;
    let delays = program.delays().unwrap();
    let counted: Vec<u32> = (0..abi::clients::DELAY_BUCKETS).filter(|at| delays[*at as usize] > 0).collect();
    let [bucket] = counted[..] else { panic!("not one bucket, but {counted:?}") };
    assert!((abi::clients::delay_bucket(second)..=abi::clients::delay_bucket(most)).contains(&bucket));
}

#[test]
fn a_message_remembers_its_last_receiver() {
    let Some(mut program) = bring_up() else { return };
    let mut ends = [0; ROOMS as usize];
    ends[(NUMBER % ROOMS) as usize] = 9;
    let mut told = Vec::new();
    for _ in 0..2 {
        program.set_client(NUMBER, &joined()).unwrap();
        let (sent_ns, before) = (5, monotonic_ns());
        let said = message_of(Stamp { sent_ns, ..stamp(7) }, 0);
        say(&mut program, Family::V4, &segment(SERVER_AT, OURS_AT, PSH | ACK, &said)).unwrap();
        let mut heard = Vec::new();
        program
            .for_each_broadcast(&ends, |stream, number, broadcast| {
                if broadcast.last_ns > 0 {
                    heard.push((stream, number, broadcast.sent_ns));
                    told.push(broadcast.last_ns);
                }
            })
            .unwrap();
        assert_eq!(heard, [(NUMBER % ROOMS, 7, sent_ns)]);
        assert!((before..=monotonic_ns()).contains(told.last().unwrap()));
    }
    assert!(told[0] < told[1], "the later one counts");
    // One far beyond what is timed is counted all the same.
    program.set_client(NUMBER, &joined()).unwrap();
    let far = message_of(stamp(u64::from(u32::MAX) - 1), 0);
    say(&mut program, Family::V4, &segment(SERVER_AT, OURS_AT, PSH | ACK, &far)).unwrap();
    assert_eq!(program.counts().unwrap().of(Count::Messages), 3);
}
