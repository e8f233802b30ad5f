//! Bad clients by the hundred: those who are in go on, and the daemon's memory has a bound.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;

use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Rig, SOON, eventually};
use crate::rows::{Witnesses, frame, request};

const STORM: usize = 500;

/// What may stay of two thousand bad connections: pools that grew, no more.
const GROWTH_BYTES: u64 = 6 << 20;

/// Something wrong for the plain port, different for each number.
fn garbage(number: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..2_000 + number).map(|at| (at * 31 + number * 17) as u8).collect();
    match number % 4 {
        // Random lengths; none at all; one that announces much; the start of a packet that could be one.
        0 => {}
        1 => bytes[..4].copy_from_slice(&[0; 4]),
        2 => bytes[..4].copy_from_slice(&i32::MAX.to_be_bytes()),
        _ => bytes[..16].copy_from_slice(&request(op::SEND_MESSAGE, &[0; 4_000])[..16]),
    }
    bytes
}

/// Connects, waits for the others, sends, and reads to the end.
fn misbehave(to: SocketAddr, bytes: &[u8], together: Option<&Barrier>) {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    if let Some(barrier) = together {
        barrier.wait();
    }
    // The server may close in the middle of either.
    let _closed = socket.write_all(bytes).and_then(|()| socket.shutdown(Shutdown::Write));
    let _closed = socket.read_to_end(&mut Vec::new());
}

#[test]
fn five_hundred_who_send_garbage_at_once_do_not_stop_those_who_are_in() {
    let rig = Rig::start("", "");
    let mut witnesses = Witnesses::join(&rig);
    let [tcp, websocket] = [rig.stack.addresses().tcp, rig.stack.addresses().websocket];
    let barrier = Barrier::new(STORM + 1);
    thread::scope(|scope| {
        let mut storm = Vec::new();
        for number in 0..STORM {
            let (to, barrier) = (if number % 2 == 0 { tcp } else { websocket }, &barrier);
            let stack = thread::Builder::new().stack_size(128 << 10);
            storm.push(stack.spawn_scoped(scope, move || misbehave(to, &garbage(number), Some(barrier))).unwrap());
        }
        barrier.wait();
        let mut rounds = 0;
        while rounds < 50 || storm.iter().any(|client| !client.is_finished()) {
            witnesses.beat();
            witnesses.testify(&rig, "a round of the storm");
            rounds += 1;
        }
    });
    assert_eq!(rig.await_stat("/closed_total", |closed| closed >= STORM as u64), STORM as u64);
    let stats = rig.stats();
    let reasons = stats["closed_by_reason"].as_object().unwrap();
    for reason in ["bad_length", "body_too_large", "bad_handshake"] {
        assert!(reasons.contains_key(reason), "{reason} in {reasons:?}");
    }
    rig.await_stat("/connections", |connections| connections == witnesses.count());
    Client::in_room(&rig.stack, EVERY_PATH[0], 1).heartbeat();
}

#[test]
fn a_full_edge_takes_nobody_in_until_somebody_leaves() {
    let rig = Rig::start("shard.count = 1\nshard.max_connections = 10", "");
    let [tcp, websocket] = [rig.stack.addresses().tcp, rig.stack.addresses().websocket];
    let mut members: Vec<Client> =
        (0..10).map(|number| Client::in_room(&rig.stack, EVERY_PATH[number % 4], 1)).collect();
    eventually("the port to close", || TcpStream::connect(tcp).is_err().then_some(()));
    for round in 1..=3 {
        assert!(TcpStream::connect(tcp).is_err() && TcpStream::connect(websocket).is_err());
        rig.push("1", "full");
        for member in &mut members {
            assert_eq!(member.hears(), "full");
            member.heartbeat();
        }
        drop(members.remove(0));
        eventually("the port to open", || TcpStream::connect(tcp).is_ok().then_some(()));
        members.push(eventually("a place", || {
            let mut client = perf_tests::probe::TcpProbe::connect(tcp).ok()?;
            let request = perf_tests::probe::AuthRequest::goim(0, "live://1");
            client.auth(&request).is_ok().then_some(Client::Tcp(client))
        }));
        eventually("the port to close", || TcpStream::connect(tcp).is_err().then_some(()));
        assert_eq!(rig.await_stat("/joined", |joined| joined == 10), 10, "round {round}");
    }
    assert!(rig.edge_metric("push_full_total") >= 4);
}

/// Resident memory of the edge.
fn resident_bytes(rig: &mut Rig) -> u64 {
    let pid = rig.stack.edge().pid().unwrap().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

#[test]
fn two_thousand_bad_connections_leave_no_memory_behind() {
    let mut rig = Rig::start("", "");
    let mut witnesses = Witnesses::join(&rig);
    let [tcp, websocket] = [rig.stack.addresses().tcp, rig.stack.addresses().websocket];
    let request_head = perf_tests::websocket::request("edge", "/sub", &perf_tests::websocket::key([7; 16]), "");
    let mut run = |rig: &Rig, count: usize| {
        thread::scope(|scope| {
            for worker in 0..20 {
                let request_head = &request_head;
                scope.spawn(move || {
                    for number in (worker..count).step_by(20) {
                        let unfinished = [request_head.as_bytes(), &frame(2, &[0; 16_000])].concat();
                        match number % 3 {
                            0 => misbehave(tcp, &garbage(number), None),
                            1 => misbehave(websocket, &garbage(number), None),
                            // The most that is kept of one client: a message of which the end never comes.
                            _ => misbehave(websocket, &unfinished, None),
                        }
                    }
                });
            }
        });
        rig.await_stat("/connections", |connections| connections == witnesses.count());
        witnesses.testify(rig, "bad connections");
    };
    // Pools and the allocator grow to their working size.
    run(&rig, 200);
    let before = resident_bytes(&mut rig);
    run(&rig, 2_000);
    let after = resident_bytes(&mut rig);
    assert!(after <= before + GROWTH_BYTES, "{before} bytes before, {after} after");
    assert_eq!(rig.stat("/closed_total"), 2_200);
}
