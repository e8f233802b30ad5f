//! The clients' program in the kernel, run one frame at a time by `BPF_PROG_TEST_RUN`, and rows to run through it.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::net::{Ipv4Addr, SocketAddrV4};

use abi::clients::{Client, Count, PROGRAM, initial_sequence, state};
use aya::programs::{TestRun as _, TestRunOptions};
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::script::{FIRST_PORT, PORTS_PER_ADDRESS, script};
use perf_tests::load::scenario::Scenario;
use perf_tests::load::stamp::{Stamp, monotonic_ns};
use wire::goim::{Header, op};

use crate::missing_part::{Kind, or_skip};
use crate::segments::{ACK, BOTH, Family, Segment, frame, parse, segment};

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;

pub(crate) const CLIENTS: u32 = 100;
pub(crate) const ROOMS: u32 = 3;
pub(crate) const RUN: u32 = 77;
pub(crate) const SECRET: u32 = 0x5eed;
pub(crate) const FIRST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 128, 0, 1), FIRST_PORT as u16);

/// The client of most rows: neither on the first address nor on the first port.
pub(crate) const NUMBER: u32 = 37;
/// The server's first byte, and ours, behind SYN. The server's wraps soon.
pub(crate) const SERVER_AT: u32 = u32::MAX - 20;
pub(crate) const OURS_AT: u32 = initial_sequence(NUMBER, SECRET).wrapping_add(1);

/// What the clients of most rows are.
pub(crate) fn scenario() -> Scenario {
    Scenario { clients: CLIENTS, rooms: ROOMS, run: RUN, first_mid: 5000, ..Scenario::default() }
}

/// The kernel's program with its clients. `None` after saying why not.
pub(crate) fn bring_up() -> Option<Program> {
    bring_up_as(&scenario())
}

/// The same, with the clients of a scenario.
pub(crate) fn bring_up_as(scenario: &Scenario) -> Option<Program> {
    let loaded = match Program::load(CLIENTS, 100) {
        Err(error @ (XdpError::NotRoot | XdpError::NoObject { .. })) => Err(error.to_string()),
        // Anything else is the program's fault.
        loaded => Ok(loaded.unwrap()),
    };
    let mut program = or_skip(Kind::Kernel, "clients made of XDP", loaded)?;
    program.set_script(&script(scenario, FIRST, SECRET).unwrap()).unwrap();
    Some(program)
}

/// Where a client lives.
pub(crate) fn place_of(number: u32) -> (Ipv4Addr, u16) {
    let address = u32::from(*FIRST.ip()) + number / PORTS_PER_ADDRESS;
    (address.into(), (FIRST_PORT + number % PORTS_PER_ADDRESS) as u16)
}

/// Runs one frame and gives the verdict and what became of the frame.
pub(crate) fn run(program: &mut Program, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; 4096];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.program(PROGRAM).unwrap().test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// Says `segment` to a client and gives its answer.
pub(crate) fn say(program: &mut Program, family: Family, segment: &Segment) -> Option<Segment> {
    let (verdict, out) = run(program, &frame(family, segment, place_of(NUMBER), 0));
    match verdict {
        XDP_TX => Some(parse(family, &out, place_of(NUMBER))),
        XDP_DROP => None,
        other => panic!("the program answered {other}"),
    }
}

/// A client that is in, and has heard nothing.
pub(crate) fn joined() -> Client {
    Client { next_in: SERVER_AT, next_out: OURS_AT, state: state::JOINED, ..Client::default() }
}

pub(crate) fn packet(operation: i32, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    Header { version: 1, operation, sequence: 0 }.put_packet(body, &mut packet);
    packet
}

/// Message `number` of the client's stream, with `filling` bytes behind its stamp.
pub(crate) fn message_of(stamp: Stamp, filling: usize) -> Vec<u8> {
    let mut body = vec![b'.'; 32 + filling];
    stamp.write(&mut body);
    packet(op::FIRST_OF_APPLICATION, &body)
}

pub(crate) fn stamp(number: u64) -> Stamp {
    Stamp { run: RUN, room: NUMBER % ROOMS, phase: 0, number, sent_ns: monotonic_ns() }
}

pub(crate) fn message(number: u64) -> Vec<u8> {
    message_of(stamp(number), 20)
}

/// A segment that meets a client, the answer, and what of the client is different afterwards.
pub(crate) struct Row {
    name: &'static str,
    before: Client,
    said: Segment,
    answer: Option<Segment>,
    after: fn(&mut Client),
    counts: &'static [(Count, u64)],
}

pub(crate) fn row(
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
pub(crate) fn check(rows: &[Row]) {
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

pub(crate) const fn after(bytes: u32) -> u32 {
    SERVER_AT.wrapping_add(bytes)
}

pub(crate) fn ack(sequence: u32, acknowledged: u32) -> Option<Segment> {
    Some(segment(sequence, acknowledged, ACK, &[]))
}
