//! What the clients made of XDP do with a segment, and how they stand afterwards: the real program in the kernel, one
//! frame at a time, by `BPF_PROG_TEST_RUN`.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod clients_program;
mod missing_part;
mod segments;

use std::net::Ipv4Addr;

use abi::clients::{Client, Count, initial_sequence, state};
use clients_program::*;
use perf_tests::load::engine::xdp::script::{FIRST_PORT, PORTS_PER_ADDRESS};
use segments::{ACK, BOTH, FIN, Family, PSH, RST, SYN, Segment, frame, parse, segment};
use wire::auth::AuthBody;
use wire::goim::op;

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
        row(
            "a keep-alive",
            joined(),
            segment(after(0).wrapping_sub(1), OURS_AT, ACK, &[]),
            ack(OURS_AT, SERVER_AT),
            |_| {},
            &[],
        ),
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
fn segments_outside_the_window_change_nothing() {
    const FAR: u32 = 65_536;
    let one = message(0);
    let again = ack(OURS_AT, SERVER_AT);
    let outside = &[(Count::OutOfWindow, 1)];
    let say = |sequence, acknowledged, flags| segment(sequence, acknowledged, flags, &one);
    let beyond = SERVER_AT.wrapping_add(FAR);
    let reset = |client: &mut Client| client.state = state::RESET;
    check(&[
        row("data beyond it", joined(), say(beyond, OURS_AT, PSH | ACK), again.clone(), |_| {}, outside),
        row("data from long ago", joined(), say(SERVER_AT - FAR, OURS_AT, PSH | ACK), again.clone(), |_| {}, outside),
        row(
            "from the other side",
            joined(),
            say(SERVER_AT ^ 1 << 31, OURS_AT, PSH | ACK),
            again.clone(),
            |_| {},
            outside,
        ),
        row(
            "an acknowledgement of what nobody said",
            joined(),
            say(SERVER_AT, OURS_AT + 1000, ACK),
            again.clone(),
            |_| {},
            outside,
        ),
        row("one from long ago", joined(), say(SERVER_AT, OURS_AT - FAR, ACK), again.clone(), |_| {}, outside),
        row("a FIN beyond it", joined(), segment(beyond, OURS_AT, FIN | ACK, &[]), again, |_| {}, outside),
        row("a RST beyond it", joined(), segment(beyond, OURS_AT, RST | ACK, &[]), None, |_| {}, outside),
        row("a RST from long ago", joined(), segment(SERVER_AT - FAR, 0, RST, &[]), None, |_| {}, outside),
        row("a RST within", joined(), segment(after(FAR - 1), 0, RST, &[]), None, reset, &[(Count::Reset, 1)]),
        row(
            "a RST of no SYN of ours",
            Client::default(),
            segment(0, OURS_AT + 1, RST | ACK, &[]),
            None,
            |_| {},
            outside,
        ),
        row("a RST of nothing", Client::default(), segment(0, OURS_AT, RST, &[]), None, |_| {}, outside),
        row(
            "the last byte of it is behind a hole",
            joined(),
            say(after(FAR - 1), OURS_AT, PSH | ACK),
            ack(OURS_AT, SERVER_AT),
            |_| {},
            &[(Count::BehindHole, 1)],
        ),
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
