//! Clients made of XDP against a server of plain kernel sockets: what they heard is what it said.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod clients_rig;
mod missing_part;
mod socket_server;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use clients_rig::*;
use perf_tests::load::engine::xdp::XdpEngine;
use perf_tests::load::engine::xdp::rig::ServerEnd;
use perf_tests::load::engine::{Due, Engine};
use perf_tests::load::scenario::Scenario;
use socket_server::{SocketServer, connections, eventually, message, packet};
use wire::goim::op;

#[test]
fn every_message_is_accounted_for_however_the_stream_is_cut() {
    const CLIENTS: u32 = 300;
    const MESSAGES: u32 = 40;
    let Some(rig) = bring_up(CLIENTS, &ServerEnd::Filter(vec![PORT])) else { return };
    let scenario = scenario(CLIENTS);
    let mut server = SocketServer::listen(&rig, scenario.connect[0], CLIENTS, FIRST_MID);
    let mut engine = XdpEngine::start(&scenario, &rig).unwrap();
    server.welcome(granted);
    assert_eq!(open(&mut engine, u64::from(CLIENTS)), [100, 100, 100]);
    for client in 0..CLIENTS {
        let stream: Vec<u8> =
            (0..MESSAGES).flat_map(|number| message(RUN, client % ROOMS, u64::from(number))).collect();
        // From three bytes at a time to all at once.
        server.say(client, &stream, 3 + client as usize * 12);
    }
    let all = u64::from(CLIENTS * MESSAGES);
    eventually("all messages are heard", || engine.gauges().received == all);
    let ends = vec![MESSAGES; ROOMS as usize];
    assert_eq!(engine.outstanding(&ends).unwrap(), 0);
    let tally = engine.settle(Due::Published(ends)).unwrap();
    assert_eq!((tally.joined, tally.failed.total(), tally.closed.total()), (0, 0, 0));
    assert_eq!((tally.counts.received, tally.balance.due, tally.balance.missing), (all, all, 0));
    assert_eq!((tally.counts.gaps, tally.counts.duplicates, tally.counts.order_faults), (0, 0, 0));
    assert_eq!((tally.foreign, tally.misrouted, tally.balance.silent_clients), (0, 0, 0));
    assert_eq!((tally.delay_us.len(), tally.bytes_received), (all, all * 76));
    assert_eq!(tally.last_receiver_us.len(), u64::from(MESSAGES * ROOMS), "each message has a last receiver");
    Box::new(engine).finish().unwrap();
}

#[test]
fn whatever_the_server_does_wrong_is_counted_as_what_it_is() {
    const CLIENTS: u32 = 10;
    const MESSAGES: u32 = 6;
    let Some(rig) = bring_up(CLIENTS, &ServerEnd::Pass) else { return };
    let scenario = scenario(CLIENTS);
    let mut server = SocketServer::listen(&rig, scenario.connect[0], CLIENTS, FIRST_MID);
    let mut engine = XdpEngine::start(&scenario, &rig).unwrap();
    server.welcome(granted);
    open(&mut engine, u64::from(CLIENTS));
    let said = |client: u32, numbers: &[u64]| -> Vec<u8> {
        numbers.iter().flat_map(|number| message(RUN, client % ROOMS, *number)).collect()
    };
    let all: Vec<u64> = (0..u64::from(MESSAGES)).collect();
    let garbage = [&said(8, &[0])[..], &[0xff; 100], &said(8, &[1, 2])[..]].concat();
    let foreign = [message(RUN + 1, 4 % ROOMS, 0), message(RUN, 5 % ROOMS, 0), said(4, &all)].concat();
    for (client, bytes) in [
        (0, said(0, &all)),
        (1, said(1, &[0, 1, 2, 4, 5])),
        (2, said(2, &[0, 1, 2, 3, 3, 4, 5])),
        (3, said(3, &[0, 1, 2, 4, 3, 5])),
        (4, foreign),
        (5, said(5, &[0, 1, 2, 3])),
        (6, said(6, &[0, 1])),
        (7, said(7, &[0, 1])),
        (8, garbage),
        // The tenth is told nothing.
    ] {
        server.say(client, &bytes, 1000);
    }
    let heard = 6 + 5 + 6 + 6 + 6 + 4 + 2 + 2 + 1;
    eventually("all messages are heard", || engine.gauges().received == heard);
    server.close(6);
    server.reset(7);
    eventually("two are closed", || engine.gauges().closed == 2);
    let tally = engine.settle(Due::Published(vec![MESSAGES; ROOMS as usize])).unwrap();
    assert_eq!((tally.counts.received, tally.balance.due), (heard, u64::from(CLIENTS * MESSAGES)));
    assert_eq!(tally.balance.missing, u64::from(CLIENTS * MESSAGES) - heard);
    assert_eq!((tally.balance.incomplete_clients, tally.balance.silent_clients), (6, 1));
    // The swapped one is a gap first.
    assert_eq!((tally.counts.gaps, tally.counts.duplicates, tally.counts.order_faults), (2, 1, 1));
    assert_eq!((tally.foreign, tally.misrouted), (1, 1));
    let closed = [("closed", 1), ("garbled streams", 1), ("reset", 1)].map(|(why, times)| (why.to_owned(), times));
    assert_eq!(tally.closed.into_map(), BTreeMap::from(closed));
}

#[test]
fn who_does_not_get_in_has_a_reason() {
    const CLIENTS: u32 = 9;
    let Some(rig) = bring_up(CLIENTS, &ServerEnd::Pass) else { return };
    let scenario = scenario(CLIENTS);
    let mut server = SocketServer::listen(&rig, scenario.connect[0], CLIENTS, FIRST_MID);
    let mut engine = XdpEngine::start(&scenario, &rig).unwrap();
    server.welcome(|client| match client % 3 {
        0 => granted(client),
        1 => Some(packet(op::AUTH_REPLY, br#"{"code":-101,"message":"no"}"#)),
        _ => None,
    });
    eventually("all have their answer", || {
        let gauges = engine.gauges();
        gauges.joined + gauges.failed == u64::from(CLIENTS)
    });
    assert_eq!(engine.seal().unwrap(), 3);
    let tally = engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
    let failed = [("auth refused", 3), ("closed before the auth was answered", 3)];
    assert_eq!(tally.failed.into_map(), BTreeMap::from(failed.map(|(why, times)| (why.to_owned(), times))));
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    const CLIENTS: u32 = 5;
    let Some(rig) = bring_up(CLIENTS, &ServerEnd::Pass) else { return };
    let mut engine = XdpEngine::start(&scenario(CLIENTS), &rig).unwrap();
    eventually("all are refused", || engine.gauges().failed == u64::from(CLIENTS));
    engine.seal().unwrap();
    let tally = engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
    assert_eq!(tally.failed.into_map(), BTreeMap::from([("connection refused".to_owned(), u64::from(CLIENTS))]));
}

#[test]
fn heartbeats_are_sent_until_they_are_heard() {
    const CLIENTS: u32 = 4;
    let Some(rig) = bring_up(CLIENTS, &ServerEnd::Pass) else { return };
    let scenario = Scenario { heartbeat: Duration::from_millis(200), ..scenario(CLIENTS) };
    let mut server = SocketServer::listen(&rig, scenario.connect[0], CLIENTS, FIRST_MID);
    let mut engine = XdpEngine::start(&scenario, &rig).unwrap();
    server.welcome(granted);
    open(&mut engine, u64::from(CLIENTS));
    for client in 0..CLIENTS {
        for _ in 0..3 {
            server.answer_heartbeat(client);
        }
    }
    let mut answered = 0;
    eventually("twelve answers are heard", || {
        answered += engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap().heartbeats_answered;
        answered == 12
    });
}

#[test]
fn in_the_end_all_say_goodbye_and_whom_the_server_keeps_resets() {
    const CLIENTS: u32 = 400;
    const KEPT: u32 = 10;
    let Some(rig) = bring_up(CLIENTS, &ServerEnd::Pass) else { return };
    let scenario = scenario(CLIENTS);
    let mut server = SocketServer::listen(&rig, scenario.connect[0], CLIENTS, FIRST_MID);
    let mut engine = XdpEngine::start(&scenario, &rig).unwrap();
    server.welcome(granted);
    open(&mut engine, u64::from(CLIENTS));
    assert_eq!(connections(&rig), CLIENTS as usize);
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            (KEPT..CLIENTS).for_each(|client| server.see_off(client));
            (0..KEPT).for_each(|client| server.await_reset(client));
        });
        Box::new(engine).finish().unwrap();
        server.join().unwrap();
    });
    eventually("no connection is left", || connections(&rig) == 0);
}

#[test]
fn a_scenario_that_is_beyond_them_is_refused_in_words() {
    use perf_tests::load::engine::xdp::rig::FIRST_CLIENT;
    use perf_tests::load::engine::xdp::script::script;
    let plain = scenario(10);
    for (name, scenario, words) in [
        ("own keys", Scenario { own_keys: "k".to_owned(), ..plain.clone() }, "keys"),
        ("a negative user id", Scenario { first_mid: -1, ..plain.clone() }, "user ids"),
        ("user ids past the end", Scenario { first_mid: i64::from(u32::MAX) - 5, ..plain.clone() }, "pass 4294967295"),
        ("rooms of three and four digits", Scenario { first_room: 998, ..plain.clone() }, "--first-room"),
        ("a long token", Scenario { token: "t".repeat(200), ..plain.clone() }, "auth packet of"),
    ] {
        let said = script(&scenario, FIRST_CLIENT, 1).unwrap_err().to_string();
        assert!(said.contains(words), "{name}: {said}");
    }
    assert!(script(&plain, FIRST_CLIENT, 1).is_ok());
}
