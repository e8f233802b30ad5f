//! `perf-tests clients --engine xdp`: the same scenario with clients made of XDP, on daemons of its own in a namespace, or
//! around a server that somebody else has in one.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use perf_tests::load::engine::xdp::XdpEngine;
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::rig::{self, MOST_CLIENTS, Rig, SERVER_V6, ServerEnd};
use perf_tests::load::engine::{Engine, EngineError};
use perf_tests::load::report::Report;
use perf_tests::load::run::run as conduct;
use perf_tests::load::scenario::{Publish, Scenario, Transport};
use perf_tests::load::watch::Display;
use perf_tests::probe::daemons::{Addresses, Stack, StackOptions};

/// Connections beyond the clients: none of ours, but a limit is no place to be at.
const SPARE_CONNECTIONS: u32 = 1000;

/// Messages that are timed when somebody else publishes, and nobody knows how many there will be.
const HEARD_BROADCASTS: u32 = 1 << 18;

/// Where `ip netns` shows the namespaces that it names.
const NAMED_NAMESPACES: &str = "/run/netns";

/// Which server a run is about.
#[derive(Clone, Copy)]
pub(super) enum Server<'a> {
    /// Ours, started for the run.
    Ours {
        /// Whether clients and server speak IPv6.
        is_ipv6: bool,
    },
    /// One that is there, in the network namespace of this name or path.
    Theirs(&'a Path),
}

/// Loads and builds what `scenario` needs of the kernel. It goes with the value.
pub(super) fn bring_up(scenario: &Scenario, server: Server<'_>) -> Result<Rig, XdpError> {
    let timed = |publish: &Publish| u32::try_from(publish.messages).unwrap_or(u32::MAX);
    let broadcasts = scenario.publish.as_ref().map_or(HEARD_BROADCASTS, timed);
    let program = Program::load(scenario.clients, broadcasts)?;
    match server {
        Server::Ours { .. } => {
            let Addresses { tcp, websocket, .. } = rig::addresses();
            Rig::build(program, &ServerEnd::Filter(vec![tcp.port(), websocket.port()]))
        }
        Server::Theirs(name) => Rig::build_around(program, &namespace(name), scenario.connect[0]),
    }
}

/// Runs `scenario`, with daemons that are started for it and go with it when the server is ours.
pub(super) fn run(
    rig: &Rig,
    mut scenario: Scenario,
    server: Server<'_>,
    stop: &AtomicBool,
    display: &mut Display,
) -> Result<Report, Box<dyn std::error::Error>> {
    let Server::Ours { is_ipv6 } = server else {
        return conduct_on(rig, scenario, stop, display);
    };
    let addresses = if is_ipv6 { rig::addresses_at(SERVER_V6.into()) } else { rig::addresses() };
    let options = StackOptions { namespace: Some(rig.server_path()), ..options_for(&scenario) };
    let _stack = Stack::start_on(addresses, &options)?;
    lead_to(&mut scenario, &addresses);
    conduct_on(rig, scenario, stop, display)
}

/// Daemons with room for the clients of `scenario`.
pub(super) fn options_for(scenario: &Scenario) -> StackOptions {
    let room = scenario.clients.saturating_add(SPARE_CONNECTIONS);
    let push_daemon_toml = format!("[shard]\ncount = 0\nmax_connections = {room}\n");
    StackOptions { push_daemon_toml, ..StackOptions::default() }
}

/// Has clients and publishers go to the daemons at `addresses`.
pub(super) fn lead_to(scenario: &mut Scenario, addresses: &Addresses) {
    scenario.connect = match scenario.transport {
        Transport::Tcp => vec![addresses.tcp],
        Transport::Websocket => vec![addresses.websocket],
    };
    if let Some(publish) = &mut scenario.publish {
        publish.http = addresses.http;
    }
}

/// Where the namespace of this name is, which may be a path already.
pub(super) fn namespace(name: &Path) -> PathBuf {
    if name.components().count() > 1 { name.to_path_buf() } else { Path::new(NAMED_NAMESPACES).join(name) }
}

fn conduct_on(
    rig: &Rig,
    scenario: Scenario,
    stop: &AtomicBool,
    display: &mut Display,
) -> Result<Report, Box<dyn std::error::Error>> {
    let engine = |scenario: &Scenario| -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(XdpEngine::start(scenario, rig)?))
    };
    // The publishers are threads of the conductor's, and the publisher's API is in there.
    Ok(rig.in_server(|| conduct(scenario, engine, stop, display))??)
}

/// What these clients cannot do, before anything is made.
pub(super) fn check(scenario: &Scenario) -> Result<(), String> {
    if scenario.clients > MOST_CLIENTS {
        return Err(format!("{} clients, but the rig has addresses for {MOST_CLIENTS}", scenario.clients));
    }
    Ok(())
}
