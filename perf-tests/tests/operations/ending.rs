//! Ends that the server brings about: silence, and a drain.

use std::net::TcpStream;

use perf_tests::probe::Closed;
use rustix::process::Signal;

use crate::edge_rig::{Client, EVERY_PATH, Over, Path, Rig, eventually};

fn is_orderly(path: Path, end: &Closed, websocket_code: u16) -> bool {
    match path.over {
        Over::Tcp => *end == Closed::Fin,
        Over::WebSocket => matches!(end, Closed::WebSocket { code, .. } if *code == websocket_code),
    }
}

#[test]
fn who_falls_silent_is_told_and_closed_and_who_sends_heartbeats_stays() {
    let rig = Rig::start("limits.heartbeat_timeout_ms = 1500", "");
    let mut silent: Vec<(Path, Client)> =
        EVERY_PATH.into_iter().map(|path| (path, Client::in_room(&rig.stack, path, 1))).collect();
    let mut lively = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 1));
    eventually("the silent ones to be closed", || {
        for client in &mut lively {
            client.heartbeat();
        }
        (rig.closed("heartbeat_timeout") == 4).then_some(())
    });
    for (path, client) in &mut silent {
        let (code, words, end) = client.goodbye();
        assert_eq!((code, &*words), (-408, "no heartbeat in time"), "{path}");
        assert!(is_orderly(*path, &end, 1001), "{path}: {end}");
    }
    rig.push("1", "still here");
    for client in &mut lively {
        assert_eq!(client.hears(), "still here");
    }
    assert_eq!(rig.stat("/closed_total"), 4);
}

#[test]
fn a_drain_says_goodbye_to_everybody_and_ends_the_daemon() {
    let mut rig = Rig::start("limits.drain_ms = 300", "");
    let mut clients: Vec<(Path, Client)> = Vec::new();
    for _ in 0..5 {
        clients.extend(EVERY_PATH.into_iter().map(|path| (path, Client::in_room(&rig.stack, path, 1))));
    }
    // One that has not said who it is, and one that has not even asked for the upgrade.
    let mut unknown = Client::connect(&rig.stack, Over::WebSocket);
    let _mute = TcpStream::connect(rig.stack.addresses().websocket).unwrap();
    rig.await_stat("/connections", |connections| connections == 22);
    rig.stack.edge().signal(Signal::TERM).unwrap();
    for (path, client) in &mut clients {
        let (code, words, end) = client.goodbye();
        assert_eq!(code, -503, "{path}");
        assert!(words.contains("connect elsewhere"), "{path}: {words}");
        assert!(is_orderly(*path, &end, 1001), "{path}: {end}");
    }
    assert_eq!(unknown.goodbye().0, -503);
    assert!(TcpStream::connect(rig.stack.addresses().tcp).is_err(), "a draining edge takes nobody in");
    drop(clients);
    let status = eventually("the daemon's end", || rig.stack.edge().ended().unwrap());
    assert!(status.success(), "{status}");
}
