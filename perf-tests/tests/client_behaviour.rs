//! What clients do besides listening, against the real daemons: they ramp, churn, storm, read slowly, fall silent, vanish.
//! Whoever behaves misses nothing, and what becomes of the others is counted, by the generator and by the edge alike.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod edge_rig;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use edge_rig::{PUSH, Rig, eventually};
use perf_tests::load::behaviour::{Behaviour, Churn, Goodbye, Order, Ramp, SlowReaders, Storm};
use perf_tests::load::conduct::{Conductor, Phase, RunError};
use perf_tests::load::engine::socket::SocketEngine;
use perf_tests::load::engine::{Engine, EngineError};
use perf_tests::load::report::{PhaseReport, Report};
use perf_tests::load::run::run;
use perf_tests::load::scenario::{Dialect, Publish, Scenario, Transport};
use perf_tests::load::target::Target;
use perf_tests::load::watch::Unwatched;

const CLIENTS: u32 = 300;
const THREADS: usize = 2;

/// Long enough for a busy machine; nobody waits for it but a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn scenario(rig: &Rig, transport: Transport) -> Scenario {
    let addresses = rig.stack.addresses();
    Scenario {
        connect: vec![if transport == Transport::Tcp { addresses.tcp } else { addresses.websocket }],
        transport,
        clients: CLIENTS,
        threads: THREADS,
        rooms: 3,
        heartbeat: Duration::from_millis(500),
        publish: Some(Publish {
            http: addresses.http,
            messages: 300,
            per_second: 200.0,
            message_bytes: 100,
            workers: 3,
            abreast: 1,
            operation: PUSH,
            target: Target::Rooms,
        }),
        settle: PATIENCE,
        ..Scenario::default()
    }
}

fn engine(scenario: &Scenario) -> Result<Box<dyn Engine>, EngineError> {
    Ok(Box::new(SocketEngine::start(scenario)?))
}

fn conduct(scenario: Scenario) -> Report {
    run(scenario, engine, &AtomicBool::new(false), &mut Unwatched).unwrap()
}

/// All that was owed was heard, once and in order, and there was something to hear.
fn assert_nothing_lost(report: &Report) {
    let messages = &report.messages;
    assert!(messages.due > 0 && messages.received == messages.due, "{messages:?}");
    assert_eq!(report.faults, Vec::<String>::new(), "{report:?}");
}

#[test]
fn who_churns_is_owed_what_it_is_there_for_and_nobody_misses_anything() {
    for (transport, dialect) in [(Transport::Tcp, Dialect::Goim), (Transport::Websocket, Dialect::Bilibili)] {
        let rig = Rig::start("", "");
        let churn = Churn { per_second: 100.0, goodbye: Goodbye::Mixed, away_ms: 20 };
        let behaviour = Behaviour { churn: Some(churn), ..Behaviour::default() };
        let report = conduct(Scenario { behaviour, dialect, ..scenario(&rig, transport) });
        assert_nothing_lost(&report);
        let returns = &report.returns;
        let left = returns.left_orderly + returns.left_reset;
        assert!(left > 10, "{returns:?}");
        assert!(returns.left_orderly.abs_diff(returns.left_reset) <= THREADS as u64, "{returns:?}");
        assert_eq!((returns.back, returns.not_back, returns.unanswered), (left, 0, 0), "{returns:?}");
        assert_eq!(returns.back_us.map(|times| times.count), Some(left));
        assert!(report.messages.due < u64::from(CLIENTS) * 100, "who was away is not owed all: {report:?}");
        // The edge has seen the same, as far as it can tell: a reset that follows a close at once is one or the other.
        let peers = rig.closed("peer_closed") + rig.closed("peer_reset");
        assert!(peers >= left, "{peers} of {left}");
    }
}

#[test]
fn half_of_all_reconnect_at_once_and_are_all_back() {
    let rig = Rig::start("", "");
    let storm = Storm { after_ms: 500, share: 0.5, goodbye: Goodbye::Reset, away_ms: 0 };
    let behaviour = Behaviour { storm: Some(storm), ..Behaviour::default() };
    let report = conduct(Scenario { behaviour, ..scenario(&rig, Transport::Tcp) });
    assert_nothing_lost(&report);
    let half = u64::from(CLIENTS) / 2;
    assert_eq!((report.returns.left_reset, report.returns.back, report.returns.not_back), (half, half, 0));
    let orders = &report.phases[0].orders;
    assert_eq!(orders.iter().map(|given| given.clients).collect::<Vec<_>>(), [half]);
    assert!(orders[0].at_seconds >= 0.5, "{orders:?}");
}

/// Messages and settings by which a client that reads nothing owes too much soon.
fn heavy(rig: &Rig, share: f64, bytes_per_second: u32) -> Scenario {
    let plain = scenario(rig, Transport::Tcp);
    let publish = plain.publish.clone().map(|publish| Publish {
        messages: 300,
        per_second: 0.0,
        message_bytes: 60_000,
        ..publish
    });
    let behaviour = Behaviour {
        slow: vec![SlowReaders { share, bytes_per_second }],
        slow_buffer_bytes: 4096,
        ..Behaviour::default()
    };
    Scenario { publish, behaviour, clients: 60, rooms: 1, ..plain }
}

#[test]
fn who_does_not_read_is_closed_by_the_edge_and_the_others_miss_nothing() {
    for (bytes_per_second, reason) in [(0, "debt_bytes"), (500, "debt_bytes")] {
        // Who reads may be behind by some of these messages for a moment: the kernel takes what it takes by itself.
        let limits = "limits.unsent_bytes = 4194304\nlimits.debt_bytes = 65536\nlimits.debt_age_ms = 600000";
        let rig = Rig::start(limits, "");
        let report = conduct(heavy(&rig, 0.1, bytes_per_second));
        assert_nothing_lost(&report);
        let astray = &report.astray;
        let fate = if bytes_per_second == 0 { &astray.stopped } else { &astray.slow };
        assert_eq!((fate.clients, fate.stuck), (6, 0), "{astray:?}");
        assert_eq!(fate.closed_by_server.values().sum::<u64>(), 6, "{astray:?}");
        assert_eq!(rig.closed(reason), 6);
        assert_eq!(report.messages.due, 54 * 300, "only those who read are owed anything");
        assert_eq!(report.connections.closed.len(), 0);
    }
}

#[test]
fn who_does_not_read_but_owes_little_is_stuck_and_no_fault() {
    let rig = Rig::start("", "");
    let behaviour = Behaviour { slow: vec![SlowReaders { share: 0.1, bytes_per_second: 0 }], ..Behaviour::default() };
    let report = conduct(Scenario { behaviour, ..scenario(&rig, Transport::Websocket) });
    assert_nothing_lost(&report);
    let fate = &report.astray.stopped;
    assert_eq!((fate.clients, fate.stuck, fate.closed_by_server.len()), (30, 30, 0), "{fate:?}");
    assert_eq!(report.astray.received, 30 * 100, "what lay in the sockets was found in the end");
}

#[test]
fn liveness_finds_the_silent_ones_and_only_them() {
    let rig = Rig::start("limits.heartbeat_timeout_ms = 5000", "");
    let behaviour =
        Behaviour { silent_share: 0.1, closes_within_ms: PATIENCE.as_millis() as u32, ..Behaviour::default() };
    let heartbeat = Duration::from_millis(200);
    let report = conduct(Scenario { behaviour, heartbeat, ..scenario(&rig, Transport::Tcp) });
    assert_nothing_lost(&report);
    let fate = &report.astray.silent;
    assert_eq!((fate.clients, fate.stuck), (30, 0), "{fate:?}");
    let reasons: Vec<_> = fate.closed_by_server.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(reasons, [("disconnected: -408 no heartbeat in time", 30)]);
    assert_eq!(rig.closed("heartbeat_timeout"), 30);
    let beats = report.heartbeats;
    assert!(beats.answered > 0 && beats.unasked == 0, "{beats:?}");
}

#[test]
fn liveness_finds_those_that_vanished_without_a_word() {
    let rig = Rig::start("limits.heartbeat_timeout_ms = 5000", "");
    let (stop, mut watch) = (AtomicBool::new(false), Unwatched);
    let heartbeat = Duration::from_millis(200);
    let quiet = Scenario { heartbeat, ..scenario(&rig, Transport::Tcp) };
    let mut conductor = Conductor::start(quiet, engine, &stop, &mut watch).unwrap();
    conductor.build().unwrap();
    match conductor.order(Order::Vanish { share: 0.1 }) {
        Ok(count) => assert_eq!(count, 30),
        Err(RunError::Engine(EngineError::Forbidden { source, .. })) => {
            println!("skipped: clients that vanish need CAP_NET_ADMIN ({source})");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    assert_eq!(conductor.gauges().present, 270);
    rig.await_stat("/closed_total", |count| count == 30);
    // A reply that was under way to a client that had just vanished is answered by its kernel, with a reset.
    let (silent, reset) = (rig.closed("heartbeat_timeout"), rig.closed("peer_reset"));
    assert!(silent > reset && silent + reset == 30, "{silent} for silence, {reset} by reset: nobody said goodbye");
    // Gone, but not for ever.
    assert_eq!(conductor.order(Order::ComeBack).unwrap(), 30);
    assert_eq!(conductor.await_returns().unwrap(), 0);
    let report = conductor.finish().unwrap();
    assert_eq!(report.connections.joined, u64::from(CLIENTS));
}

#[test]
fn publishers_abreast_in_one_room_lose_nothing_and_owe_no_order() {
    let rig = Rig::start("", "");
    let mut scenario = scenario(&rig, Transport::Tcp);
    scenario.rooms = 1;
    let publish = scenario.publish.clone();
    scenario.publish =
        publish.map(|publish| Publish { messages: 2_000, per_second: 0.0, workers: 16, abreast: 16, ..publish });
    let report = conduct(scenario);
    assert_eq!(report.faults, Vec::<String>::new());
    assert_eq!(report.published.map(|published| published.accepted), Some(2_000));
    let messages = &report.messages;
    assert_eq!((messages.received, messages.missing), (2_000 * u64::from(CLIENTS), 0));
    assert!(messages.order_faults > 0, "sixteen at once keep no order, and the books see it");
}

#[test]
fn a_ramp_is_never_ahead_of_its_rate() {
    let rig = Rig::start("", "");
    let ramp = Ramp { to_per_second: 250.0, over_seconds: 1.0 };
    let plain = scenario(&rig, Transport::Tcp);
    let publish = plain.publish.clone().map(|publish| Publish { messages: 3, ..publish });
    let report = conduct(Scenario { connects_per_second: 50.0, ramp: Some(ramp), publish, ..plain });
    assert_nothing_lost(&report);
    let begun = &report.connections.begun_by_second;
    assert_eq!(begun.iter().sum::<u32>(), CLIENTS);
    let mut by_then = 0;
    for (second, count) in begun.iter().enumerate() {
        by_then += count;
        // Each thread begins with a client at once.
        let allowed = ramp.begun_by(50.0, second as f64 + 1.0) + THREADS as f64;
        assert!(f64::from(by_then) <= allowed, "{begun:?} in second {second}");
    }
    // 150 in the first second, then 250 each: it cannot have been faster than the second one.
    assert!(begun.len() >= 2, "{begun:?}");
}

#[test]
fn who_finds_the_edge_gone_tries_until_it_is_there_again() {
    let mut rig = Rig::start("", "");
    let (stop, mut watch) = (AtomicBool::new(false), Unwatched);
    // Longer than the pause between two attempts.
    let few = Scenario { settle: Duration::from_secs(3), ..scenario(&rig, Transport::Tcp) };
    let publish = few.publish.clone().map(|publish| Publish { messages: 30, per_second: 0.0, ..publish }).unwrap();
    let mut conductor = Conductor::start(few, engine, &stop, &mut watch).unwrap();
    conductor.build().unwrap();
    rig.stack.edge().kill9();
    eventually("everybody to notice", || (conductor.gauges().closed == u64::from(CLIENTS)).then_some(()));
    assert_eq!(conductor.order(Order::ComeBack).unwrap(), u64::from(CLIENTS));
    let down = conductor.listen("the edge is down", Duration::ZERO, &[], Duration::ZERO).unwrap();
    assert_eq!((down.members, down.returns.not_back), (0, u64::from(CLIENTS)));
    let failed = &down.returns.failed;
    assert!(failed.keys().all(|reason| reason.contains("refused")), "{failed:?}");
    assert!(failed.values().sum::<u64>() >= u64::from(CLIENTS), "{failed:?}");
    rig.stack.edge().start(PATIENCE).unwrap();
    assert_eq!(conductor.await_returns().unwrap(), 0);
    let phase = conductor.publish(&Phase::new("after", publish)).unwrap();
    assert_eq!((phase.messages.due, phase.messages.received), (3_000, 3_000));
    assert_eq!(phase.returns.back, u64::from(CLIENTS));
}

/// One set of clients through many phases, as a sign-off leads them.
#[test]
fn phase_follows_phase_on_the_same_clients() {
    let rig = Rig::start("limits.debt_bytes = 65536\nlimits.debt_age_ms = 600000", "");
    let (stop, mut watch) = (AtomicBool::new(false), Unwatched);
    let many = Scenario {
        clients: 100,
        own_keys: "client-".to_owned(),
        accepts: vec![PUSH],
        ..scenario(&rig, Transport::Tcp)
    };
    let publish = many.publish.clone().unwrap();
    let mut conductor = Conductor::start(many, engine, &stop, &mut watch).unwrap();
    assert_eq!(conductor.build().unwrap().joined, 100);
    let complete = |phase: &PhaseReport, due: u64| {
        assert_eq!((phase.messages.due, phase.messages.received), (due, due), "{phase:?}");
        assert_eq!((phase.messages.stragglers, phase.messages.misrouted), (0, 0), "{phase:?}");
    };
    let idle = conductor.listen("idle", Duration::from_millis(1), &[], Duration::ZERO).unwrap();
    assert_eq!((idle.members, idle.messages.due, idle.messages.received), (100, 0, 0));
    // 60 messages: 20 to each room of 33 or 34; all to everybody; each to one; each to the 7, or 2, of a request.
    for (name, target, due) in [
        ("rooms", Target::Rooms, 20 * 100),
        ("everybody", Target::Everybody { speed: 0 }, 60 * 100),
        ("mids", Target::Mids { each: 1 }, 60),
        ("keys", Target::Keys { each: 25 }, 60 * 25),
    ] {
        let publish = Publish { target, messages: 60, per_second: 0.0, ..publish.clone() };
        let phase = conductor.publish(&Phase::new(name, publish)).unwrap();
        complete(&phase, due);
        assert_eq!(phase.delay_us.map(|delay| delay.count), Some(due));
    }
    // Some stop reading and are closed for it; afterwards all come back and hear everything.
    assert_eq!(conductor.order(Order::StopReading { share: 0.1 }).unwrap(), 10);
    let heavy = Publish { messages: 400, per_second: 0.0, message_bytes: 60_000, workers: 1, ..publish.clone() };
    let slow = conductor.publish(&Phase::new("slow consumers", heavy)).unwrap();
    assert_eq!((slow.members, slow.messages.missing), (90, 0));
    assert_eq!((slow.astray.stopped.clients, slow.astray.stopped.stuck), (10, 0), "{slow:?}");
    assert_eq!(rig.closed("debt_bytes"), 10);
    assert_eq!(conductor.order(Order::Resume).unwrap(), 0);
    assert_eq!(conductor.order(Order::ComeBack).unwrap(), 10);
    assert_eq!(conductor.await_returns().unwrap(), 0);
    // Some leave for good, and are missed by nobody.
    assert_eq!(conductor.order(Order::Leave { share: 0.05, goodbye: Goodbye::Orderly }).unwrap(), 5);
    let soak = Publish { messages: 30, per_second: 0.0, target: Target::Everybody { speed: 0 }, ..publish };
    let last = conductor.publish(&Phase::new("soak", soak)).unwrap();
    assert_eq!(last.members, 95);
    complete(&last, 95 * 30);
    let report = conductor.finish().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert_eq!(report.phases.len(), 7);
    let sum: u64 = report.phases.iter().map(|phase| phase.messages.due).sum();
    assert_eq!((report.messages.due, report.messages.received), (sum, sum));
}
