//! The generator against a server whose every fault is known: right counts, and no fault unseen.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod tiny_goim;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use perf_tests::load::behaviour::{Goodbye, Order};
use perf_tests::load::conduct::{Conductor, Phase};
use perf_tests::load::engine::socket::SocketEngine;
use perf_tests::load::engine::{Engine, Gauges};
use perf_tests::load::report::Report;
use perf_tests::load::run::run as conduct_until;
use perf_tests::load::scenario::{Dialect, Publish, Scenario, Transport};
use perf_tests::load::stamp::{STAMP_BYTES, Stamp, monotonic_ns};
use perf_tests::load::target::Target;
use perf_tests::load::watch::{Step, Unwatched, View, Watch};
use perf_tests::probe::publisher::Publisher;
use tiny_goim::{Act, ECHOED_MID, Mischief, TinyGoim, UNWELCOME_MID};

const CLIENTS: u32 = 9;
const ROOMS: u32 = 3;
const MESSAGES: u64 = 30;
/// Each room has a third of the messages and of the clients.
const DUE: u64 = 90;

fn scenario(server: &TinyGoim, transport: Transport) -> Scenario {
    Scenario {
        connect: vec![if transport == Transport::Tcp { server.tcp } else { server.websocket }],
        transport,
        dialect: Dialect::Goim,
        clients: CLIENTS,
        threads: 2,
        sources: 3,
        first_source: Ipv4Addr::new(127, 0, 0, 2),
        connects_per_second: 0.0,
        rooms: ROOMS,
        room_type: "live".to_owned(),
        first_room: 1000,
        first_mid: 1,
        token: String::new(),
        api_key: String::new(),
        heartbeat: Duration::from_millis(20),
        publish: Some(Publish {
            http: server.http,
            messages: MESSAGES,
            per_second: 0.0,
            message_bytes: 200,
            workers: 2,
            abreast: 1,
            operation: 1000,
            target: Target::Rooms,
        }),
        run: 0,
        build_within: Duration::from_secs(10),
        listen_for: Duration::from_secs(20),
        settle: Duration::from_millis(500),
        linger: Duration::from_millis(100),
        ..Scenario::default()
    }
}

fn conduct(scenario: Scenario) -> Report {
    let engine = |scenario: &Scenario| Ok(Box::new(SocketEngine::start(scenario)?) as Box<dyn Engine>);
    conduct_until(scenario, engine, &AtomicBool::new(false), &mut Unwatched).unwrap()
}

fn with(mischief: Mischief) -> Report {
    conduct(scenario(&TinyGoim::start(mischief), Transport::Tcp))
}

#[test]
fn all_that_is_published_is_heard_once_and_in_order() {
    for (transport, dialect) in [
        (Transport::Tcp, Dialect::Goim),
        (Transport::Websocket, Dialect::Goim),
        (Transport::Tcp, Dialect::Bilibili),
        (Transport::Websocket, Dialect::Bilibili),
    ] {
        let server = TinyGoim::start(|_, count| match count % 3 {
            0 => Act::Send,
            1 => Act::Batch,
            _ => Act::Torn,
        });
        let report = conduct(Scenario { dialect, ..scenario(&server, transport) });
        assert_eq!(report.faults, Vec::<String>::new(), "{transport:?} {dialect:?}");
        let messages = &report.messages;
        assert_eq!((report.connections.joined, messages.due, messages.received), (u64::from(CLIENTS), DUE, DUE));
        assert_eq!((messages.missing, messages.gaps, messages.foreign), (0, 0, 0));
        assert_eq!(messages.completeness, Some(1.0));
        assert_eq!(report.published.as_ref().map(|published| published.accepted), Some(MESSAGES));
        assert_eq!(report.delay_us.map(|delay| delay.count), Some(DUE));
        let (delay, last) = (report.delay_us.unwrap(), report.last_receiver_us.unwrap());
        assert_eq!((last.count, last.max), (MESSAGES, delay.max), "one time a message, and the last is the latest");
        assert!(report.heartbeats.answered > 0 && report.heartbeats.answered <= report.heartbeats.sent);
    }
}

#[test]
fn a_lost_message_is_a_gap() {
    let report = with(|mid, count| if mid == 4 && count == 2 { Act::Lose } else { Act::Send });
    let messages = &report.messages;
    assert_eq!((messages.received, messages.missing, messages.gaps, messages.incomplete_clients), (DUE - 1, 1, 1, 1));
    assert!(messages.completeness < Some(1.0));
    assert_eq!(report.faults, ["1 messages missing"]);
    assert_eq!(report.judge(true), Vec::<String>::new());
}

#[test]
fn a_lost_last_message_is_missing_though_no_client_saw_a_gap() {
    let report = with(|mid, count| if mid == 4 && count == 9 { Act::Lose } else { Act::Send });
    assert_eq!((report.messages.missing, report.messages.gaps), (1, 0));
    assert_eq!(report.faults, ["1 messages missing"]);
}

#[test]
fn a_client_that_hears_nothing_is_silent() {
    let report = with(|mid, _| if mid == 4 { Act::Lose } else { Act::Send });
    let messages = &report.messages;
    assert_eq!((messages.missing, messages.incomplete_clients, messages.silent_clients), (10, 1, 1));
}

#[test]
fn a_doubled_message_is_a_duplicate() {
    let report = with(|mid, count| if mid == 5 && count == 3 { Act::Twice } else { Act::Send });
    let messages = &report.messages;
    assert_eq!((messages.received, messages.duplicates, messages.order_faults, messages.missing), (DUE, 1, 0, 0));
    assert_eq!(report.judge(true), ["1 duplicates"], "no tolerance for duplicates");
}

#[test]
fn a_doubled_last_message_is_a_duplicate_too() {
    let report = with(|mid, count| if mid == 5 && count == 9 { Act::Twice } else { Act::Send });
    assert_eq!((report.messages.received, report.messages.duplicates), (DUE, 1));
}

#[test]
fn two_swapped_messages_are_an_order_fault() {
    let report = with(|mid, count| if mid == 6 && count == 4 { Act::Late } else { Act::Send });
    let messages = &report.messages;
    assert_eq!((messages.received, messages.order_faults, messages.duplicates, messages.missing), (DUE, 1, 0, 0));
    assert_eq!(messages.gaps, 1, "the later message came first");
    assert_eq!(report.judge(true), ["1 messages out of order"]);
}

#[test]
fn a_closed_connection_is_counted_and_what_it_missed_is_due() {
    let report = with(|mid, count| if mid == 7 && count >= 6 { Act::Close } else { Act::Send });
    assert_eq!(report.messages.missing, 4);
    assert_eq!(report.connections.closed.values().sum::<u64>(), 1, "{:?}", report.connections.closed);
    assert_eq!(report.faults, ["4 messages missing", "1 clients closed before the end"]);
}

#[test]
fn a_heartbeat_reply_that_nobody_asked_for_is_a_fault() {
    let server = TinyGoim::start(|_, _| Act::Send);
    let report = conduct(Scenario { first_mid: ECHOED_MID, ..scenario(&server, Transport::Tcp) });
    let beats = report.heartbeats;
    assert!(beats.answered > 0 && beats.unasked > 0, "{beats:?}");
    assert_eq!(report.judge(true), [format!("{} heartbeat replies that nobody asked for", beats.unasked)]);
}

/// A phase after everybody has been away once.
fn after_a_reconnect(mischief: Mischief) -> Report {
    let server = TinyGoim::start(mischief);
    let (stop, mut watch) = (AtomicBool::new(false), Unwatched);
    let engine = |scenario: &Scenario| Ok(Box::new(SocketEngine::start(scenario)?) as Box<dyn Engine>);
    let scenario = scenario(&server, Transport::Tcp);
    let publish = scenario.publish.clone().unwrap();
    let mut conductor = Conductor::start(scenario, engine, &stop, &mut watch).unwrap();
    conductor.build().unwrap();
    let storm = Order::Reconnect { share: 1.0, goodbye: Goodbye::Mixed, away_ms: 0 };
    assert_eq!(conductor.order(storm).unwrap(), u64::from(CLIENTS));
    assert_eq!(conductor.await_returns().unwrap(), 0);
    let phase = conductor.publish(&Phase::new("after", publish)).unwrap();
    assert_eq!(phase.members, u64::from(CLIENTS));
    conductor.finish().unwrap()
}

#[test]
fn a_client_that_came_back_is_owed_everything_again() {
    let report = after_a_reconnect(|_, _| Act::Send);
    assert_eq!((report.messages.due, report.messages.received, report.messages.in_doubt), (DUE, DUE, 0));
    assert_eq!((report.returns.back, report.faults), (u64::from(CLIENTS), vec![]));
    assert_eq!(report.connections.joined, u64::from(CLIENTS), "each once");
}

#[test]
fn what_a_client_that_came_back_does_not_get_is_missing() {
    let report = after_a_reconnect(|mid, count| if mid == 4 && count == 9 { Act::Lose } else { Act::Send });
    assert_eq!((report.messages.missing, report.messages.incomplete_clients), (1, 1));
    assert_eq!(report.faults, ["1 messages missing"]);
}

#[test]
fn a_refused_client_is_counted_by_reason_and_owed_nothing() {
    let server = TinyGoim::start(|_, _| Act::Send);
    for transport in [Transport::Tcp, Transport::Websocket] {
        let report = conduct(Scenario { first_mid: UNWELCOME_MID - 2, ..scenario(&server, transport) });
        let refused: Vec<_> = report.connections.refused.iter().map(|(why, count)| (why.as_str(), *count)).collect();
        assert_eq!(refused, [("refused: -101 bad token", 1)]);
        assert_eq!((report.messages.due, report.messages.received), (DUE - 10, DUE - 10));
        assert_eq!(report.faults, ["1 clients not joined"]);
    }
}

/// Who publishes when it is not the generator: stamped messages by hand, once everybody listens.
struct ByHand<'a> {
    server: &'a TinyGoim,
    /// Run, index of the room as stamped, number of the room as pushed to, number.
    messages: Vec<(u32, u32, u32, u64)>,
    /// Ends the run when this much was heard.
    enough: fn(&Gauges) -> bool,
    stop: &'a AtomicBool,
}

impl Watch for ByHand<'_> {
    fn look(&mut self, view: &View) {
        if view.step != Step::Listen {
            return;
        }
        let publisher = Publisher::new(self.server.http);
        for (run, room, pushed_to, number) in self.messages.drain(..) {
            let mut body = [0; STAMP_BYTES];
            Stamp { run, room, phase: 0, number, sent_ns: monotonic_ns() }.write(&mut body);
            assert!(publisher.push_room(1000, "live", &pushed_to.to_string(), &body).unwrap().is_accepted());
        }
        if (self.enough)(&view.gauges) {
            self.stop.store(true, Ordering::Release);
        }
    }
}

/// Three clients in one room that only listen.
fn listen(mischief: Mischief, run: u32, messages: Vec<(u32, u32, u32, u64)>, enough: fn(&Gauges) -> bool) -> Report {
    let server = TinyGoim::start(mischief);
    let scenario = Scenario { rooms: 1, clients: 3, publish: None, run, ..scenario(&server, Transport::Tcp) };
    let stop = AtomicBool::new(false);
    let mut by_hand = ByHand { server: &server, messages, enough, stop: &stop };
    let engine = |scenario: &Scenario| Ok(Box::new(SocketEngine::start(scenario)?) as Box<dyn Engine>);
    let report = conduct_until(scenario, engine, &stop, &mut by_hand).unwrap();
    assert!(report.interrupted, "it ran to its deadline: {report:?}");
    report
}

#[test]
fn a_listener_settles_by_what_its_room_heard() {
    // Client 2 never hears number 103. The numbers begin where the other publisher was when we came.
    let lose: Mischief = |mid, count| if mid == 2 && count == 3 { Act::Lose } else { Act::Send };
    let numbers = (100..110).map(|number| (5, 0, 1000, number)).collect();
    let report = listen(lose, 0, numbers, |gauges| gauges.received == 29);
    let messages = &report.messages;
    assert_eq!((messages.due, messages.received, messages.missing, messages.gaps), (30, 29, 1, 1));
    assert_eq!(report.run, 5, "the first run heard is the one that counts");
}

#[test]
fn messages_of_another_run_are_foreign() {
    let numbers = vec![(6, 0, 1000, 0), (77, 0, 1000, 0), (77, 0, 1000, 1)];
    let report = listen(|_, _| Act::Send, 77, numbers, |gauges| gauges.received == 6);
    assert_eq!((report.messages.received, report.messages.foreign, report.run), (6, 3, 77));
}

#[test]
fn a_message_in_the_wrong_room_is_a_fault_of_its_own() {
    let numbers = vec![(5, 1, 1000, 0)];
    let report = listen(|_, _| Act::Send, 5, numbers, |gauges| gauges.faults == 3);
    assert_eq!((report.messages.misrouted, report.messages.received), (3, 0));
    assert_eq!(report.judge(true), ["3 messages in the wrong room"]);
}

#[test]
fn a_server_that_is_not_there_refuses_everybody() {
    let server = TinyGoim::start(|_, _| Act::Send);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = conduct(Scenario { connect: vec![nobody], ..scenario(&server, Transport::Tcp) });
    assert_eq!(report.connections.joined, 0);
    assert_eq!(report.connections.refused.values().sum::<u64>(), u64::from(CLIENTS));
    assert!(report.connections.refused.keys().all(|reason| reason.contains("refused")), "{report:?}");
    assert_eq!(report.messages.completeness, None, "nothing was due, which is no success");
    assert_eq!(report.published.as_ref().map(|published| published.unsent), Some(MESSAGES));
    assert_eq!(report.faults.len(), 3, "{:?}", report.faults);
}
