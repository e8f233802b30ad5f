//! What clients do with a segment that were told to do more than listen: the real program in the kernel, one frame at a time,
//! by `BPF_PROG_TEST_RUN`.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod clients_program;
mod missing_part;
mod segments;

use abi::clients::reading::Reading;
use abi::clients::{Client, Count, UNHEARD, mark, state};
use clients_program::*;
use perf_tests::load::engine::xdp::script::script;
use perf_tests::load::scenario::Scenario;
use perf_tests::load::stamp::{Stamp, monotonic_ns};
use segments::{ACK, FIN, Family, PSH, RST, SYN, Segment, frame, segment};
use wire::goim::op;

/// What a client resets a connection with that it does not know of: the number is the one that the server awaits.
fn reset_at(sequence: u32, acknowledged: u32) -> Option<Segment> {
    Some(segment(sequence, acknowledged, RST, &[]))
}

#[test]
fn who_has_said_goodbye_hears_nothing_and_waits_for_the_servers() {
    let leaving = Client { state: state::LEAVING, ..joined() };
    check(&[
        row(
            "the goodbye has come",
            leaving,
            segment(SERVER_AT, OURS_AT + 1, ACK, &[]),
            ack(OURS_AT + 1, SERVER_AT),
            |client| client.next_out = OURS_AT + 1,
            &[],
        ),
        row(
            "a message that was under way",
            leaving,
            segment(SERVER_AT, OURS_AT, PSH | ACK, &message(0)),
            ack(OURS_AT, after(68)),
            |client| client.next_in = after(68),
            &[(Count::AfterGoodbye, 1), (Count::Bytes, 68)],
        ),
        row(
            "the server's goodbye",
            leaving,
            segment(SERVER_AT, OURS_AT + 1, FIN | ACK, &[]),
            Some(segment(OURS_AT + 1, after(1), FIN | ACK, &[])),
            |client| *client = Client { next_in: after(1), next_out: OURS_AT + 1, state: state::CLOSED, ..*client },
            &[],
        ),
        row("a reset", leaving, segment(SERVER_AT, OURS_AT, RST, &[]), None, |client| client.state = state::RESET, &[]),
    ]);
}

#[test]
fn who_has_reset_says_so_to_whatever_comes_and_who_vanished_says_nothing() {
    let aborted = Client { state: state::ABORTED, ..joined() };
    let vanished = Client { state: state::VANISHED, ..joined() };
    let said = segment(SERVER_AT, OURS_AT + 7, PSH | ACK, &message(0));
    let after_goodbye = &[(Count::AfterGoodbye, 1)];
    check(&[
        row("a message", aborted, said.clone(), reset_at(OURS_AT + 7, SERVER_AT), |_| {}, after_goodbye),
        row(
            "the server knows of none",
            aborted,
            segment(SERVER_AT, 0, RST, &[]),
            None,
            |client| client.state = state::RESET,
            &[],
        ),
        row("a message to one that vanished", vanished, said, None, |_| {}, after_goodbye),
        row("a reset", vanished, segment(SERVER_AT, 0, RST, &[]), None, |_| {}, after_goodbye),
        row("an end", vanished, segment(SERVER_AT, OURS_AT, FIN | ACK, &[]), None, |_| {}, after_goodbye),
    ]);
}

/// One on its way back, whose SYN was of this number.
fn returning() -> Client {
    Client { next_out: OURS_AT + 5001, state: state::RETURNING, ..Client::default() }
}

#[test]
fn who_comes_back_takes_no_old_connection_for_the_new_one() {
    let stray = &[(Count::Stray, 1)];
    check(&[
        row(
            "the old connection is alive",
            returning(),
            segment(SERVER_AT, OURS_AT, ACK, &[]),
            reset_at(OURS_AT, 0),
            |_| {},
            stray,
        ),
        row("a SYN that was answered late", returning(), segment(9, OURS_AT, SYN | ACK, &[]), None, |_| {}, stray),
        row(
            "the old connection is no more",
            returning(),
            segment(OURS_AT, 0, RST, &[]),
            None,
            |_| {},
            &[(Count::OutOfWindow, 1)],
        ),
        row(
            "nobody listens",
            returning(),
            segment(0, OURS_AT + 5001, RST | ACK, &[]),
            None,
            |client| client.state = state::RESET,
            &[(Count::BackSynReset, 1)],
        ),
    ]);
    let again = Client { next_in: SERVER_AT, state: state::GREETED_AGAIN, ..returning() };
    let ours = again.next_out;
    let refusal = packet(op::AUTH_REPLY, br#"{"code":-101}"#);
    check(&[
        row(
            "refused",
            again,
            segment(SERVER_AT, ours, PSH | ACK, &refusal),
            ack(ours, after(29)),
            |client| *client = Client { next_in: after(29), state: state::REFUSED, ..*client },
            &[(Count::BackRefused, 1), (Count::Bytes, 29)],
        ),
        row(
            "closed",
            again,
            segment(SERVER_AT, ours, FIN | ACK, &[]),
            Some(segment(ours, after(1), FIN | ACK, &[])),
            |client| *client = Client { next_in: after(1), state: state::CLOSED, ..*client },
            &[(Count::BackClosed, 1)],
        ),
        row(
            "reset",
            again,
            segment(SERVER_AT, ours, RST, &[]),
            None,
            |client| client.state = state::RESET,
            &[(Count::BackReset, 1)],
        ),
    ]);
}

#[test]
fn who_is_back_is_owed_from_the_first_message_that_it_hears() {
    let Some(mut program) = bring_up() else { return };
    program.set_client(NUMBER, &returning()).unwrap();
    let ours = returning().next_out;
    let greeting = say(&mut program, Family::V4, &segment(SERVER_AT.wrapping_sub(1), ours, SYN | ACK, &[])).unwrap();
    assert_eq!((greeting.sequence, greeting.acknowledged, greeting.flags), (ours, SERVER_AT, PSH | ACK));
    assert_eq!(wire::goim::parse(&greeting.payload, 4096).unwrap().unwrap().header.operation, op::AUTH);
    let granted = packet(op::AUTH_REPLY, b"");
    say(&mut program, Family::V4, &segment(SERVER_AT, ours, PSH | ACK, &granted));
    let client = program.client(NUMBER).unwrap();
    assert_eq!((client.state, client.next_number), (state::JOINED, UNHEARD));
    assert!(client.sent_ns > 0 && client.sent_ns <= monotonic_ns(), "when it was granted");
    let both = [message(70), message(72)].concat();
    say(&mut program, Family::V4, &segment(after(16), ours, PSH | ACK, &both));
    let client = program.client(NUMBER).unwrap();
    assert_eq!((client.next_number, client.missed, program.heard_from(NUMBER).unwrap()), (73, 0b10, 70));
    let counts = program.counts().unwrap();
    for (what, times) in
        [(Count::Joined, 0), (Count::Back, 1), (Count::Messages, 2), (Count::Gaps, 1), (Count::Missing, 1)]
    {
        assert_eq!(counts.of(what), times, "{}", what.name());
    }
}

#[test]
fn who_is_astray_is_counted_apart() {
    let stopped = Client { state: state::STOPPED, ..joined() };
    let silent = Client { state: state::SILENT, ..joined() };
    let slow = Client { state: state::SLOW + 3, ..joined() };
    let resumed = Client { state: state::RESUMED, ..joined() };
    let numbers: Vec<u8> = [0, 2, 1, 1].into_iter().flat_map(message).collect();
    let apart = &[
        (Count::AstrayMessages, 3),
        (Count::AstrayGaps, 1),
        (Count::AstrayOrderFaults, 1),
        (Count::AstrayDuplicates, 1),
        (Count::Bytes, 4 * 68),
    ];
    for (name, client, reset, closed) in [
        ("reads nothing", stopped, Count::StoppedReset, Count::StoppedClosed),
        ("is silent", silent, Count::SilentReset, Count::SilentClosed),
        ("reads slowly", slow, Count::SlowReset, Count::SlowClosed),
        ("reads again", resumed, Count::Reset, Count::Closed),
    ] {
        let Some(mut program) = bring_up() else { return };
        let expect = |program: &mut _, said: Segment, counts: &[(Count, u64)]| {
            let before = perf_tests::load::engine::xdp::program::Program::counts(program).unwrap();
            say(program, Family::V4, &said);
            let moved = program.counts().unwrap().since(&before);
            for what in Count::ALL {
                let expected = counts.iter().find(|(counted, _)| *counted == what).map_or(0, |(_, times)| *times);
                assert_eq!(moved.of(what), expected, "{name}: {}", what.name());
            }
        };
        program.set_client(NUMBER, &client).unwrap();
        expect(&mut program, segment(SERVER_AT, OURS_AT, PSH | ACK, &numbers), apart);
        expect(&mut program, segment(after(4 * 68), OURS_AT, FIN | ACK, &[]), &[(closed, 1)]);
        program.set_client(NUMBER, &client).unwrap();
        expect(&mut program, segment(SERVER_AT, OURS_AT, RST, &[]), &[(reset, 1)]);
        assert_eq!(program.delays().unwrap().iter().sum::<u64>(), 0, "{name}: nobody times what is owed to nobody");
    }
}

#[test]
fn as_many_segments_with_data_get_lost_as_the_script_says() {
    let Some(mut program) = bring_up() else { return };
    let scenario = Scenario { clients: CLIENTS, rooms: ROOMS, run: RUN, ..Scenario::default() };
    let mut lossy = script(&scenario, FIRST, SECRET).unwrap();
    for (name, lost, least, most) in
        [("none", 0, 0, 0), ("half", 1 << 31, 400, 600), ("all but one of four billion", u32::MAX, 1000, 1000)]
    {
        lossy.lost = lost;
        program.set_script(&lossy).unwrap();
        let before = program.counts().unwrap();
        let mut lost = 0;
        for _ in 0..1000 {
            program.set_client(NUMBER, &joined()).unwrap();
            let answer = say(&mut program, Family::V4, &segment(SERVER_AT, OURS_AT, PSH | ACK, &message(0)));
            let heard = program.client(NUMBER).unwrap().next_in != SERVER_AT;
            assert_eq!(answer.is_some(), heard, "{name}: what is not heard is not answered");
            lost += u64::from(!heard);
        }
        let moved = program.counts().unwrap().since(&before);
        assert_eq!((moved.of(Count::Lost), moved.of(Count::Messages)), (lost, 1000 - lost), "{name}");
        assert!((least..=most).contains(&lost), "{name}: {lost}");
    }
    let probe = segment(SERVER_AT.wrapping_sub(1), OURS_AT, ACK, &[]);
    assert_eq!(say(&mut program, Family::V4, &probe), ack(OURS_AT, SERVER_AT), "what carries nothing comes");
}

#[test]
fn what_is_acknowledged_late_is_left_to_userspace_with_its_time() {
    let Some(mut program) = bring_up() else { return };
    let scenario = Scenario { clients: CLIENTS, rooms: ROOMS, run: RUN, ..Scenario::default() };
    let late = abi::clients::Script { acknowledges_late: 1, ..script(&scenario, FIRST, SECRET).unwrap() };
    program.set_script(&late).unwrap();
    program.set_client(NUMBER, &joined()).unwrap();
    let before_ns = monotonic_ns();
    let said = segment(SERVER_AT, OURS_AT, PSH | ACK, &message(0));
    assert_eq!(say(&mut program, Family::V4, &said), None, "it is heard");
    assert_eq!(program.counts().unwrap().of(Count::Messages), 1);
    let end = say(&mut program, Family::V4, &segment(after(68), OURS_AT, FIN | ACK, &[]));
    assert_eq!(end, Some(segment(OURS_AT, after(69), FIN | ACK, &[])), "an end is answered at once");
    let mut taken = Vec::new();
    program.take_late(|late| taken.push((late.number, late.next_in, late.came_ns >= before_ns)));
    assert_eq!(taken, [(NUMBER, after(68), true)]);
    assert_eq!(program.counts().unwrap().of(Count::Late), 1);
}

/// The window that an answer offers.
fn window_of(out: &[u8]) -> u16 {
    u16::from_be_bytes([out[48], out[49]])
}

#[test]
fn who_does_not_read_offers_what_room_is_left_and_takes_no_more() {
    let Some(mut program) = bring_up() else { return };
    let scenario = Scenario { clients: CLIENTS, rooms: ROOMS, run: RUN, ..Scenario::default() };
    let mut slowly = script(&scenario, FIRST, SECRET).unwrap();
    slowly.room_bytes = 200;
    program.set_script(&slowly).unwrap();
    // What it held before is no reading.
    let stopped = Client { state: state::STOPPED, sent_ns: monotonic_ns(), ..joined() };
    program.set_client(NUMBER, &stopped).unwrap();
    let stream = [message(0), message(1), message(2)].concat();
    let mut hear = |said: &Segment, what: &str, acknowledged: u32, window: u16| {
        let (verdict, out) = run(&mut program, &frame(Family::V4, said, place_of(NUMBER), 0));
        assert_eq!(verdict, XDP_TX, "{what}");
        let answer = segments::parse(Family::V4, &out, place_of(NUMBER));
        assert_eq!((answer.acknowledged, window_of(&out)), (acknowledged, window), "{what}");
    };
    let at = |from: usize, to: usize| segment(after(from as u32), OURS_AT, PSH | ACK, &stream[from..to]);
    hear(&at(0, 68), "a message", after(68), 132);
    hear(&at(68, 136), "with less than half of the room left, none is offered", after(136), 0);
    hear(&at(136, 204), "and yet it takes what it has room for", after(200), 0);
    hear(&at(200, 204), "and no more", after(200), 0);
    hear(&segment(after(199), OURS_AT, ACK, &[]), "a probe", after(200), 0);
    slowly.all_read = 1;
    program.set_script(&slowly).unwrap();
    let mut hear = |said: &Segment, what: &str, acknowledged: u32, window: u16| {
        let (_, out) = run(&mut program, &frame(Family::V4, said, place_of(NUMBER), 0));
        let answer = segments::parse(Family::V4, &out, place_of(NUMBER));
        assert_eq!((answer.acknowledged, window_of(&out)), (acknowledged, window), "{what}");
    };
    hear(&at(200, 204), "when everybody reads, it takes all", after(204), u16::MAX);
    let counts = program.counts().unwrap();
    assert_eq!((counts.of(Count::AstrayMessages), counts.of(Count::NoRoom), counts.of(Count::Garbled)), (3, 2, 0));
}

#[test]
fn who_reads_slowly_has_room_again_after_a_while() {
    let Some(mut program) = bring_up() else { return };
    let scenario = Scenario { clients: CLIENTS, rooms: ROOMS, run: RUN, ..Scenario::default() };
    let mut slowly = script(&scenario, FIRST, SECRET).unwrap();
    slowly.room_bytes = 1000;
    slowly.bytes_per_second[2] = 100;
    program.set_script(&slowly).unwrap();
    // A thousand bytes have come, five seconds ago.
    let now_ms = (monotonic_ns() / 1_000_000) as u32;
    let read = u64::from(after(0).wrapping_sub(1000)) << 32 | u64::from(now_ms.wrapping_sub(5000));
    assert_eq!(Reading::of(read).free(SERVER_AT, now_ms, 100, 1000), 500);
    let slow = Client { state: state::SLOW + 2, sent_ns: read, ..joined() };
    program.set_client(NUMBER, &slow).unwrap();
    let probe = segment(SERVER_AT.wrapping_sub(1), OURS_AT, ACK, &[]);
    let (_, out) = run(&mut program, &frame(Family::V4, &probe, place_of(NUMBER), 0));
    let most = 500 + (monotonic_ns() / 1_000_000) as u32 - now_ms;
    assert!((500..=most).contains(&u32::from(window_of(&out))), "{} of {most}", window_of(&out));
}

#[test]
fn a_phase_begins_the_books_of_one_that_had_come_back_anew() {
    let Some(mut program) = bring_up() else { return };
    let scenario = Scenario { clients: CLIENTS, rooms: ROOMS, run: RUN, ..Scenario::default() };
    let ours = abi::clients::Script { habits: 0, ..script(&scenario, FIRST, SECRET).unwrap() };
    program.set_script(&ours).unwrap();
    let before = Client { next_number: UNHEARD, marks: 5 << mark::PHASE_SHIFT, ..joined() };
    program.set_client(NUMBER, &before).unwrap();
    let said = message_of(Stamp { number: 2, ..stamp(0) }, 20);
    say(&mut program, Family::V4, &segment(SERVER_AT, OURS_AT, PSH | ACK, &said));
    let client = program.client(NUMBER).unwrap();
    assert_eq!((client.next_number, client.marks), (3, 0));
    assert_eq!(program.counts().unwrap().of(Count::Missing), 2, "it is owed the phase from its beginning");
}
