//! What the clients made of XDP read in the stream: packets wherever segments cut them, numbers, delays.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod clients_program;
mod missing_part;
mod segments;

use abi::clients::{Client, Count, LAST_BEHIND_NS, state};
use clients_program::*;
use perf_tests::load::engine::xdp::script::script;
use perf_tests::load::scenario::Scenario;
use perf_tests::load::stamp::{Stamp, monotonic_ns};
use segments::{ACK, Family, PSH, segment};
use wire::goim::op;

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
fn the_first_run_that_is_heard_becomes_the_one_that_counts_when_none_is_named() {
    let stream = [
        packet(op::FIRST_OF_APPLICATION, &[b'x'; 40]),
        message(9),
        message_of(Stamp { run: RUN + 1, ..stamp(10) }, 20),
        message(10),
    ]
    .concat();
    // Through every byte of the first message's run, and between.
    for cut in 56 + 16..56 + 26 {
        let Some(mut program) = bring_up() else { return };
        let scenario = Scenario { clients: CLIENTS, rooms: ROOMS, run: 0, ..Scenario::default() };
        program.set_script(&script(&scenario, FIRST, SECRET).unwrap()).unwrap();
        program.set_client(NUMBER, &joined()).unwrap();
        assert_eq!(program.heard_run().unwrap(), 0);
        for (from, to) in [(0, cut), (cut, stream.len())] {
            let said = segment(after(from as u32), OURS_AT, PSH | ACK, &stream[from..to]);
            assert_eq!(say(&mut program, Family::V4, &said), ack(OURS_AT, after(to as u32)));
        }
        let counts = program.counts().unwrap();
        assert_eq!(program.heard_run().unwrap(), RUN, "cut at {cut}");
        // From the first one on, so that nothing is missing below.
        for (what, times) in [(Count::Messages, 2), (Count::Foreign, 2), (Count::Gaps, 0), (Count::Missing, 0)] {
            assert_eq!(counts.of(what), times, "{}, cut at {cut}", what.name());
        }
    }
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
        let last_ns = *told.last().unwrap();
        assert!((before - LAST_BEHIND_NS..=monotonic_ns()).contains(&last_ns));
        while monotonic_ns() <= last_ns + LAST_BEHIND_NS {
            std::hint::spin_loop();
        }
    }
    assert!(told[0] < told[1], "the later one counts");
    // One far beyond what is timed is counted all the same.
    program.set_client(NUMBER, &joined()).unwrap();
    let far = message_of(stamp(u64::from(u32::MAX) - 1), 0);
    say(&mut program, Family::V4, &segment(SERVER_AT, OURS_AT, PSH | ACK, &far)).unwrap();
    assert_eq!(program.counts().unwrap().of(Count::Messages), 3);
}
