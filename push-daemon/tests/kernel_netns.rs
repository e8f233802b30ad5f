//! The filter between two namespaces, with real TCP over a veth pair: who gets in, who does not, and what outlives whom.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod netns;

use std::net::{IpAddr, SocketAddr, TcpListener};

use abi::verdict::Reason;
use netns::{
    Bpffs, Pair, SERVER_INTERFACE, SERVER_V4, SERVER_V6, await_connected, config, eventually, object, start_connect,
};
use push_daemon::kernel::{Action, KernelPlane, Mode, NewRule, Tables};

const PROTECTED: u16 = 3101;
const UNPROTECTED: u16 = 2222;

fn packets(tables: &Tables, reason: Reason) -> u64 {
    tables.counters().unwrap().iter().find(|count| count.reason == reason).unwrap().packets
}

fn listen(on: &str, port: u16) -> TcpListener {
    TcpListener::bind(SocketAddr::new(on.parse().unwrap(), port)).unwrap()
}

fn a_denied_address_stays_out(mode: Mode, server: &str, denied: &str, other: &str) {
    let Some(object) = object() else { return };
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    let (denied, other): (IpAddr, IpAddr) = (denied.parse().unwrap(), other.parse().unwrap());
    let _listeners = pair.server.run(|| [listen(server, PROTECTED), listen(server, UNPROTECTED)]);
    let mut plane =
        pair.server.run(|| KernelPlane::bring_up(&config(&object, &bpffs, SERVER_INTERFACE, mode)).unwrap());
    let attached = pair.server.run(|| plane.status().unwrap().attached.unwrap());
    assert_eq!((attached.mode, attached.interface.as_str()), (Some(mode), SERVER_INTERFACE));

    plane.tables_mut().add(&NewRule::new(denied.into(), Action::Deny)).unwrap();
    let to = |port| SocketAddr::new(server.parse().unwrap(), port);
    pair.client.run(|| {
        let refused = start_connect(denied, to(PROTECTED));
        let passed = [start_connect(other, to(PROTECTED)), start_connect(denied, to(UNPROTECTED))];
        passed.iter().for_each(await_connected);
        // Two drops: the first attempt and a repeat, by which time an answer would be long there.
        eventually("the denied packets are counted", || packets(plane.tables(), Reason::Denied) >= 2);
        assert!(refused.peer_addr().is_err(), "the denied address got in");
    });

    let rule = plane.tables().find(denied.into()).unwrap();
    assert_eq!(rule.hits, packets(plane.tables(), Reason::Denied));
    assert!(rule.bytes >= rule.hits * 54, "{rule:?}");
    assert!(packets(plane.tables(), Reason::NoRule) >= 2, "the other address's packets are counted as passed");
    assert!(packets(plane.tables(), Reason::NotProtected) >= 2, "and those to the unprotected port");

    plane.tables_mut().remove(denied.into()).unwrap();
    pair.client.run(|| await_connected(&start_connect(denied, to(PROTECTED))));
}

#[test]
fn a_denied_v4_address_stays_out_in_driver_mode() {
    a_denied_address_stays_out(Mode::Driver, SERVER_V4, "10.77.0.2", "10.77.0.3");
}

#[test]
fn a_denied_v4_address_stays_out_in_generic_mode() {
    a_denied_address_stays_out(Mode::Generic, SERVER_V4, "10.77.0.2", "10.77.0.3");
}

#[test]
fn a_denied_v6_address_stays_out_in_driver_mode() {
    a_denied_address_stays_out(Mode::Driver, SERVER_V6, "fd77::2", "fd77::3");
}

#[test]
fn a_denied_v6_address_stays_out_in_generic_mode() {
    a_denied_address_stays_out(Mode::Generic, SERVER_V6, "fd77::2", "fd77::3");
}
