//! `perf-tests clients --engine xdp`: the same scenario with clients made of XDP, on daemons of its own in a namespace, or
//! around a server that somebody else has in one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use perf_tests::load::engine::xdp::XdpEngine;
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::rig::{CLIENT_ADDRESSES, Rig, SERVER, SERVER_V6, ServerEnd};
use perf_tests::load::engine::xdp::script::PORTS_PER_ADDRESS;
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

/// Runs `scenario` on a rig and daemons that are made for it, and go with it.
pub(super) fn run(
    mut scenario: Scenario,
    is_ipv6: bool,
    stop: &AtomicBool,
    display: &mut Display,
) -> Result<Report, Box<dyn std::error::Error>> {
    check(&scenario)?;
    let mut program = load(&scenario)?;
    let addresses = addresses(if is_ipv6 { SERVER_V6.into() } else { SERVER.into() });
    let guarded = vec![addresses.tcp.port(), addresses.websocket.port()];
    let rig = Rig::build(&mut program, &ServerEnd::Filter(guarded))?;
    let room = scenario.clients.saturating_add(SPARE_CONNECTIONS);
    let options = StackOptions {
        push_daemon_toml: format!("[shard]\ncount = 0\nmax_connections = {room}\n"),
        namespace: Some(rig.server_path()),
        ..StackOptions::default()
    };
    let _stack = Stack::start_on(addresses, &options)?;
    scenario.connect = match scenario.transport {
        Transport::Tcp => vec![addresses.tcp],
        Transport::Websocket => vec![addresses.websocket],
    };
    if let Some(publish) = &mut scenario.publish {
        publish.http = addresses.http;
    }
    conduct_on(&rig, program, scenario, stop, display)
}

/// Runs `scenario` on a server that is there, in the network namespace called `name`.
pub(super) fn run_around(
    scenario: Scenario,
    name: &Path,
    stop: &AtomicBool,
    display: &mut Display,
) -> Result<Report, Box<dyn std::error::Error>> {
    check(&scenario)?;
    let mut program = load(&scenario)?;
    let is_path = name.components().count() > 1;
    let path = if is_path { name.to_path_buf() } else { Path::new(NAMED_NAMESPACES).join(name) };
    let rig = Rig::build_around(&mut program, &path, scenario.connect[0])?;
    conduct_on(&rig, program, scenario, stop, display)
}

fn conduct_on(
    rig: &Rig,
    program: Program,
    scenario: Scenario,
    stop: &AtomicBool,
    display: &mut Display,
) -> Result<Report, Box<dyn std::error::Error>> {
    let engine = |scenario: &Scenario| -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(XdpEngine::start(scenario, program, rig)?))
    };
    // The publishers are threads of the conductor's, and the publisher's API is in there.
    Ok(rig.in_server(|| conduct(scenario, engine, stop, display))??)
}

fn load(scenario: &Scenario) -> Result<Program, XdpError> {
    let timed = |publish: &Publish| u32::try_from(publish.messages).unwrap_or(u32::MAX);
    Program::load(scenario.clients, scenario.publish.as_ref().map_or(HEARD_BROADCASTS, timed))
}

/// What these clients cannot do, before anything is made.
fn check(scenario: &Scenario) -> Result<(), String> {
    let most = u64::from(CLIENT_ADDRESSES) * u64::from(PORTS_PER_ADDRESS);
    if u64::from(scenario.clients) > most {
        return Err(format!("{} clients, but the rig has addresses for {most}", scenario.clients));
    }
    if !scenario.behaviour.orders().is_empty() {
        return Err("clients made of XDP only listen yet: leave out what they shall do besides".to_owned());
    }
    Ok(())
}

/// Where the daemons are, in a namespace that is theirs alone.
fn addresses(server: IpAddr) -> Addresses {
    let outside = |port| SocketAddr::from((server, port));
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
