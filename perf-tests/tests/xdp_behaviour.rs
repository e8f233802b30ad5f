//! The same scenario with clients made of XDP and with clients that have sockets, each against the real daemons: who does
//! not read, falls silent or goes and comes back is in the books of both in the same way.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use missing_part::{Kind, or_skip};
use perf_tests::load::behaviour::{Behaviour, Churn, Goodbye, SlowReaders};
use perf_tests::load::engine::socket::SocketEngine;
use perf_tests::load::engine::xdp::XdpEngine;
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::engine::xdp::rig::{Rig, ServerEnd, addresses};
use perf_tests::load::engine::{Engine, EngineError};
use perf_tests::load::report::{FateReport, Report};
use perf_tests::load::run::run;
use perf_tests::load::scenario::{Publish, Scenario, Transport};
use perf_tests::load::target::Target;
use perf_tests::load::watch::Unwatched;
use perf_tests::probe::daemons::{Addresses, Stack, StackOptions};
use wire::goim::op;

const CLIENTS: u32 = 60;

/// Long enough for a busy machine; nobody waits for it but a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages of a hundred bytes to one room, at a pace.
fn scenario(behaviour: Behaviour) -> Scenario {
    let http = addresses().http;
    Scenario {
        clients: CLIENTS,
        heartbeat: Duration::from_millis(200),
        behaviour,
        publish: Some(Publish {
            http,
            messages: 300,
            per_second: 200.0,
            message_bytes: 100,
            workers: 1,
            abreast: 1,
            operation: op::FIRST_OF_APPLICATION,
            target: Target::Rooms,
        }),
        settle: PATIENCE,
        ..Scenario::default()
    }
}

fn at(scenario: &Scenario, addresses: &Addresses) -> Scenario {
    let publish = scenario.publish.clone().map(|publish| Publish { http: addresses.http, ..publish });
    let connect = if scenario.transport == Transport::Tcp { addresses.tcp } else { addresses.websocket };
    Scenario { connect: vec![connect], publish, ..scenario.clone() }
}

/// What each engine has to say, by its name. Nothing after saying why there can be no clients made of XDP.
fn with_both(scenario: &Scenario, edge_toml: &str) -> Vec<Report> {
    let built =
        Program::load(CLIENTS, 1000).and_then(|program| Rig::build(program, &ServerEnd::Filter(vec![3101, 3102])));
    let built = match built {
        Err(error @ (XdpError::NotRoot | XdpError::NoObject { .. })) => Err(error.to_string()),
        // Anything else is ours.
        built => Ok(built.unwrap()),
    };
    let Some(rig) = or_skip(Kind::Kernel, "clients made of XDP", built) else { return Vec::new() };
    let stop = AtomicBool::new(false);
    let options = StackOptions { push_daemon_toml: edge_toml.to_owned(), ..StackOptions::default() };
    let on_rig = StackOptions { namespace: Some(rig.server_path()), ..options.clone() };
    let made_of_xdp = {
        let _stack = Stack::start_on(addresses(), &on_rig).unwrap();
        let engine = |scenario: &Scenario| -> Result<Box<dyn Engine>, EngineError> {
            Ok(Box::new(XdpEngine::start(scenario, &rig)?))
        };
        rig.in_server(|| run(at(scenario, &addresses()), engine, &stop, &mut Unwatched)).unwrap().unwrap()
    };
    let stack = Stack::start_with(&options).unwrap();
    let engine =
        |scenario: &Scenario| -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(SocketEngine::start(scenario)?)) };
    let with_sockets = run(at(scenario, stack.addresses()), engine, &stop, &mut Unwatched).unwrap();
    vec![made_of_xdp, with_sockets]
}

/// All that was owed was heard, once and in order, and there was something to hear.
fn assert_nothing_lost(report: &Report) {
    let messages = &report.messages;
    assert!(messages.due > 0 && messages.received == messages.due, "{}: {messages:?}", report.engine);
    assert_eq!(report.faults, Vec::<String>::new(), "{}", report.engine);
}

/// Clients told so, closed by the server, and still there.
fn fate_of(fate: &FateReport) -> (u64, u64, u64) {
    (fate.clients, fate.closed_by_server.values().sum(), fate.stuck)
}

#[test]
fn who_does_not_read_is_closed_and_the_others_miss_nothing() {
    for (transport, bytes_per_second) in [(Transport::Tcp, 0), (Transport::Tcp, 500), (Transport::Websocket, 500)] {
        let plain = scenario(Behaviour {
            slow: vec![SlowReaders { share: 0.1, bytes_per_second }],
            slow_buffer_bytes: 4096,
            ..Behaviour::default()
        });
        let publish = plain.publish.clone();
        let publish =
            publish.map(|publish| Publish { messages: 120, per_second: 40.0, message_bytes: 60_000, ..publish });
        // Who reads may be behind by some of these messages for a moment: the kernel takes what it takes by itself.
        let limits = "[limits]\nunsent_bytes = 4194304\ndebt_bytes = 65536\ndebt_age_ms = 600000\nheartbeat_timeout_ms = 600000\n";
        for report in with_both(&Scenario { publish, transport, ..plain }, limits) {
            assert_nothing_lost(&report);
            let fate = if bytes_per_second == 0 { &report.astray.stopped } else { &report.astray.slow };
            assert_eq!(fate_of(fate), (6, 6, 0), "{}: {fate:?}", report.engine);
            assert_eq!(report.messages.due, 54 * 120, "{}: only those who read are owed anything", report.engine);
            assert_eq!(report.connections.closed.len(), 0, "{}", report.engine);
        }
    }
}

#[test]
fn who_does_not_read_but_owes_little_is_stuck_and_found_with_all_that_lay_there() {
    let slow = vec![SlowReaders { share: 0.1, bytes_per_second: 0 }];
    let plain = scenario(Behaviour { slow, ..Behaviour::default() });
    for transport in [Transport::Tcp, Transport::Websocket] {
        for report in with_both(&Scenario { transport, ..plain.clone() }, "") {
            assert_nothing_lost(&report);
            assert_eq!(fate_of(&report.astray.stopped), (6, 0, 6), "{}", report.engine);
            assert_eq!((report.astray.received, report.astray.gaps), (6 * 300, 0), "{}", report.engine);
        }
    }
}

#[test]
fn the_silent_are_found_by_the_edge_and_nobody_else() {
    let closes_within_ms = PATIENCE.as_millis() as u32;
    let behaviour = Behaviour { silent_share: 0.1, closes_within_ms, ..Behaviour::default() };
    for report in with_both(&scenario(behaviour), "[limits]\nheartbeat_timeout_ms = 5000\n") {
        assert_nothing_lost(&report);
        assert_eq!(fate_of(&report.astray.silent), (6, 6, 0), "{}: {:?}", report.engine, report.astray);
        assert!(report.heartbeats.answered > 0, "{}: {:?}", report.engine, report.heartbeats);
    }
}

#[test]
fn who_churns_is_owed_what_it_is_there_for() {
    let churn = Some(Churn { per_second: 100.0, goodbye: Goodbye::Mixed, away_ms: 20 });
    let plain = scenario(Behaviour { churn, ..Behaviour::default() });
    let both = [Transport::Tcp, Transport::Websocket].map(|transport| Scenario { transport, ..plain.clone() });
    for report in both.iter().flat_map(|scenario| with_both(scenario, "")) {
        assert_nothing_lost(&report);
        let returns = &report.returns;
        let left = returns.left_orderly + returns.left_reset;
        assert!(left > 10 && returns.left_orderly.abs_diff(returns.left_reset) <= 1, "{}: {returns:?}", report.engine);
        assert_eq!((returns.back, returns.not_back, returns.unanswered), (left, 0, 0), "{}", report.engine);
        assert_eq!(returns.back_us.map(|times| times.count), Some(left), "{}", report.engine);
        assert!(report.messages.due < u64::from(CLIENTS) * 300, "{}: who was away is not owed all", report.engine);
    }
}
