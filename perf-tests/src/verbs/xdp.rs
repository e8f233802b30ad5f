//! `perf-tests clients --engine xdp`: the same scenario with clients made of XDP, on daemons of its own in a namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;

use perf_tests::load::engine::xdp::XdpEngine;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::rig::{CLIENT_ADDRESSES, Rig, SERVER, ServerEnd};
use perf_tests::load::engine::xdp::script::PORTS_PER_ADDRESS;
use perf_tests::load::engine::{Engine, EngineError};
use perf_tests::load::report::Report;
use perf_tests::load::run::run as conduct;
use perf_tests::load::scenario::Scenario;
use perf_tests::load::watch::Display;
use perf_tests::probe::daemons::{Addresses, Stack, StackOptions};

/// Connections beyond the clients: none of ours, but a limit is no place to be at.
const SPARE_CONNECTIONS: u32 = 1000;

/// Runs `scenario` on a rig and daemons that are made for it, and go with it.
pub(super) fn run(
    mut scenario: Scenario,
    stop: &AtomicBool,
    display: &mut Display,
) -> Result<Report, Box<dyn std::error::Error>> {
    let most = u64::from(CLIENT_ADDRESSES) * u64::from(PORTS_PER_ADDRESS);
    if u64::from(scenario.clients) > most {
        return Err(format!("{} clients, but the rig has addresses for {most}", scenario.clients).into());
    }
    let messages = scenario.publish.as_ref().map_or(0, |publish| publish.messages);
    let mut program = Program::load(scenario.clients, u32::try_from(messages).unwrap_or(u32::MAX))?;
    let addresses = addresses();
    let guarded = vec![addresses.tcp.port(), addresses.websocket.port()];
    let rig = Rig::build(&mut program, &ServerEnd::Filter(guarded))?;
    let room = scenario.clients.saturating_add(SPARE_CONNECTIONS);
    let options = StackOptions {
        push_daemon_toml: format!("[shard]\ncount = 0\nmax_connections = {room}\n"),
        namespace: Some(rig.server_path()),
        ..StackOptions::default()
    };
    let _stack = Stack::start_on(addresses, &options)?;
    scenario.connect = vec![addresses.tcp];
    if let Some(publish) = &mut scenario.publish {
        publish.http = addresses.http;
    }
    let engine = |scenario: &Scenario| -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(XdpEngine::start(scenario, program, &rig)?))
    };
    // The publishers are threads of the conductor's, and the tier is in there.
    let report = rig.in_server(|| conduct(scenario, engine, stop, display))??;
    Ok(report)
}

/// Where the daemons are, in a namespace that is theirs alone.
fn addresses() -> Addresses {
    let outside = |port| SocketAddr::from((SERVER, port));
    let inside = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Addresses {
        tcp: outside(3101),
        websocket: outside(3102),
        admin: inside(3180),
        http: inside(3111),
        trunk: inside(3119),
        trunk_as_dialled: inside(3119),
    }
}
