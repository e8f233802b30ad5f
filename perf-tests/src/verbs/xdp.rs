//! `perf-tests clients --engine xdp`: the same scenario with clients made of XDP, on daemons of its own in a namespace.

use std::sync::atomic::AtomicBool;

use perf_tests::load::engine::xdp::XdpEngine;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::rig::{self, MOST_CLIENTS, Rig, ServerEnd};
use perf_tests::load::engine::{Engine, EngineError};
use perf_tests::load::report::Report;
use perf_tests::load::run::run as conduct;
use perf_tests::load::scenario::Scenario;
use perf_tests::load::watch::Display;
use perf_tests::probe::daemons::{Stack, StackOptions};

/// Connections beyond the clients: none of ours, but a limit is no place to be at.
const SPARE_CONNECTIONS: u32 = 1000;

/// Runs `scenario` on a rig and daemons that are made for it, and go with it.
pub(super) fn run(
    mut scenario: Scenario,
    stop: &AtomicBool,
    display: &mut Display,
) -> Result<Report, Box<dyn std::error::Error>> {
    if scenario.clients > MOST_CLIENTS {
        return Err(format!("{} clients, but the rig has addresses for {MOST_CLIENTS}", scenario.clients).into());
    }
    let messages = scenario.publish.as_ref().map_or(0, |publish| publish.messages);
    let program = Program::load(scenario.clients, u32::try_from(messages).unwrap_or(u32::MAX))?;
    let addresses = rig::addresses();
    let guarded = vec![addresses.tcp.port(), addresses.websocket.port()];
    let rig = Rig::build(program, &ServerEnd::Filter(guarded))?;
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
        Ok(Box::new(XdpEngine::start(scenario, &rig)?))
    };
    // The publishers are threads of the conductor's, and the tier is in there.
    let report = rig.in_server(|| conduct(scenario, engine, stop, display))??;
    Ok(report)
}
