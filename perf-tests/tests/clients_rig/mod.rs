//! What tests of the engine without sockets share: a rig, a scenario, and how they begin.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use perf_tests::load::engine::xdp::XdpEngine;
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::rig::{Rig, SERVER, ServerEnd};
use perf_tests::load::engine::{Books, Due, Engine};
use perf_tests::load::numbers::Numbers;
use perf_tests::load::scenario::Scenario;
use perf_tests::load::target::Target;
use wire::goim::op;

use crate::missing_part::{Kind, or_skip};
use crate::socket_server::{eventually, packet};

pub(crate) const RUN: u32 = 4711;
pub(crate) const ROOMS: u32 = 3;
pub(crate) const FIRST_MID: i64 = 100;
pub(crate) const PORT: u16 = 3101;

pub(crate) fn scenario(clients: u32) -> Scenario {
    Scenario {
        connect: vec![SocketAddr::from((SERVER, PORT))],
        clients,
        rooms: ROOMS,
        run: RUN,
        first_mid: FIRST_MID,
        heartbeat: Duration::ZERO,
        ..Scenario::default()
    }
}

/// The kernel's side. `None` after saying why not.
pub(crate) fn bring_up(clients: u32, server_end: &ServerEnd) -> Option<Rig> {
    let built = Program::load(clients, 1000).and_then(|program| Rig::build(program, server_end));
    let built = match built {
        Err(error @ (XdpError::NotRoot | XdpError::NoObject { .. })) => Err(error.to_string()),
        // Anything else is ours.
        built => Ok(built.unwrap()),
    };
    or_skip(Kind::Kernel, "clients made of XDP", built)
}

pub(crate) fn granted(_client: u32) -> Option<Vec<u8>> {
    Some(packet(op::AUTH_REPLY, b""))
}

/// Opens the first phase, when all that shall are in, and says how many follow each room.
pub(crate) fn open(engine: &mut XdpEngine, joined: u64) -> Vec<u32> {
    open_with(engine, joined, &Arc::new(Numbers::new(ROOMS)))
}

/// The same, with numbers that say how far the messages have gone.
pub(crate) fn open_with(engine: &mut XdpEngine, joined: u64, numbers: &Arc<Numbers>) -> Vec<u32> {
    eventually("all have joined", || engine.gauges().joined == joined);
    assert_eq!(engine.seal().unwrap(), joined);
    let built = engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
    assert_eq!((built.joined, built.failed.total(), built.join_us.len()), (joined, 0, joined));
    assert_eq!(built.begun_by_second.iter().map(|begun| u64::from(*begun)).sum::<u64>(), joined);
    open_phase(engine, 0, numbers)
}

/// Opens a phase.
pub(crate) fn open_phase(engine: &mut XdpEngine, phase: u32, numbers: &Arc<Numbers>) -> Vec<u32> {
    let numbers = Some(Arc::clone(numbers));
    engine.open(&Books { run: RUN, phase, target: Target::Rooms, numbers }).unwrap()
}
