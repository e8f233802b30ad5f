//! Clients that do not read: what they may owe is bounded, control is never behind data, the others miss nothing.

use perf_tests::probe::{Closed, Event};
use perf_tests::websocket::opcode;
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Over, PUSH, Rig, eventually};

/// Long bodies fill the kernel's buffers with few pushes.
const BODY_BYTES: usize = 60_000;

/// Far more than the kernel's buffers hold: 60 MB.
const ENOUGH: u32 = 1_000;

fn push_numbered(rig: &Rig, number: u32) {
    let mut body = vec![b'.'; BODY_BYTES];
    body[..4].copy_from_slice(&number.to_be_bytes());
    assert!(rig.publisher.push_room(PUSH, "live", "1", &body).unwrap().is_accepted());
}

fn number_of(body: &[u8]) -> u32 {
    u32::from_be_bytes(body[..4].try_into().unwrap())
}

/// Pushes, and reads with the witnesses, until `is_enough`; gives the number of pushes.
fn push_until(rig: &Rig, witnesses: &mut [Client], mut is_enough: impl FnMut() -> bool) -> u32 {
    for number in 0..ENOUGH {
        push_numbered(rig, number);
        for witness in &mut *witnesses {
            assert_eq!(number_of(&witness.push().body), number, "a witness missed something");
        }
        if is_enough() {
            return number + 1;
        }
    }
    panic!("{ENOUGH} pushes were not enough");
}

/// All that a closed client was due is either in its hands or counted as dropped.
fn settle_accounts(rig: &Rig, stalled: &mut Client, witnesses: u32, pushes: u32) {
    let (packets, end) = stalled.until_the_end();
    assert!(matches!(end, Closed::Fin | Closed::MidPacket(_)), "no goodbye in the middle of a packet: {end}");
    let received: Vec<u32> = packets.iter().map(|packet| number_of(&packet.body)).collect();
    assert_eq!(received, (0..received.len() as u32).collect::<Vec<_>>(), "a prefix, in order");
    let due = rig.stat("/messages_delivered_total") - u64::from(witnesses) * u64::from(pushes);
    let dropped = rig.stat("/dropped_total");
    assert!(dropped > 0);
    assert_eq!(received.len() as u64 + dropped, due, "received + dropped = handed over");
    assert_eq!(rig.stat("/owed_bytes"), 0);
}

#[test]
fn a_client_that_owes_too_many_bytes_is_closed_and_the_others_miss_nothing() {
    for path in EVERY_PATH {
        let rig = Rig::start("limits.debt_bytes = 262144\nlimits.debt_age_ms = 600000", "");
        let mut witnesses = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 1));
        let mut stalled = Client::slow_in_room(&rig.stack, path, 1);
        let pushes = push_until(&rig, &mut witnesses, || rig.closed("debt_bytes") > 0);
        settle_accounts(&rig, &mut stalled, 4, pushes);
        assert_eq!((rig.closed("debt_bytes"), rig.stat("/closed_total")), (1, 1), "{path}");
    }
}

#[test]
fn a_client_that_owes_for_too_long_is_closed_and_the_others_miss_nothing() {
    let rig = Rig::start("limits.debt_bytes = 1073741824\nlimits.debt_age_ms = 500", "");
    let mut witnesses = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 1));
    let mut stalled = Client::slow_in_room(&rig.stack, EVERY_PATH[1], 1);
    let pushes = push_until(&rig, &mut witnesses, || rig.stat("/owed_bytes") > 0);
    rig.await_stat("/closed_by_reason/debt_age", |count| count == 1);
    settle_accounts(&rig, &mut stalled, 4, pushes);
    rig.push("1", "life goes on");
    for witness in &mut witnesses {
        assert_eq!(witness.hears(), "life goes on");
    }
}

#[test]
fn a_client_that_is_reset_while_it_owes_is_counted_with_what_it_owed() {
    let rig = Rig::start("limits.debt_bytes = 1073741824\nlimits.debt_age_ms = 600000", "");
    let mut witness = [Client::in_room(&rig.stack, EVERY_PATH[0], 1)];
    let stalled = Client::slow_in_room(&rig.stack, EVERY_PATH[0], 1);
    push_until(&rig, &mut witness, || rig.stat("/owed_bytes") > 5 * BODY_BYTES as u64);
    stalled.abort();
    rig.await_stat("/closed_by_reason/peer_reset", |count| count == 1);
    assert!(rig.stat("/dropped_total") >= 5);
    assert_eq!(rig.stat("/owed_bytes"), 0);
    rig.push("1", "life goes on");
    assert_eq!(witness[0].hears(), "life goes on");
}

#[test]
fn a_client_that_asks_and_never_reads_is_closed_for_what_it_owes() {
    let rig = Rig::start("", "");
    let mut witnesses = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 1));
    // Mostly for the bytes. For their age when its own kernel, out of receive buffer, drops our acknowledgements as
    // well, so that no more of it arrives.
    let closed = || rig.closed("debt_bytes") + rig.closed("debt_age");
    for (number, path) in EVERY_PATH.into_iter().enumerate() {
        let mut flooder = Client::slow_in_room(&rig.stack, path, 1);
        let heartbeats = crate::edge_rig::packet(1, op::HEARTBEAT, 1, b"").repeat(100);
        let mut rounds = 0;
        while closed() == number as u64 {
            rounds += 1;
            assert!(rounds < 100_000, "{path}: {rounds} thousand heartbeats unread");
            // What cannot be sent shows in the count.
            (0..10).for_each(|_| drop(flooder.try_send_in_message(&heartbeats)));
            for witness in &mut witnesses {
                witness.heartbeat();
            }
        }
    }
    assert_eq!(rig.stat("/closed_total"), 4);
    assert_eq!(rig.stat("/dropped_total"), 0, "answers are no messages");
    rig.await_stat("/owed_bytes", |owed| owed == 0);
}

#[test]
fn control_is_never_behind_data() {
    const HEARTBEATS: i32 = 20;
    // The kernel may still take some of what is owed while the heartbeats are on their way: half is left for it.
    const OWED_PUSHES: u64 = 40;
    const LEAST_BEHIND: u64 = OWED_PUSHES / 2;
    let rig = Rig::start("limits.debt_bytes = 1073741824\nlimits.debt_age_ms = 600000", "");
    for path in EVERY_PATH {
        let mut stalled = Client::slow_in_room(&rig.stack, path, 1);
        let heard_before = rig.edge_metric("push_client_packets_total");
        let pushes = push_until(&rig, &mut [], || rig.stat("/owed_bytes") > OWED_PUSHES * BODY_BYTES as u64);
        for _ in 0..HEARTBEATS {
            stalled.send_packet(op::HEARTBEAT, b"").unwrap();
        }
        eventually("the heartbeats to be heard", || {
            (rig.edge_metric("push_client_packets_total") == heard_before + HEARTBEATS as u64).then_some(())
        });
        if path.over == Over::WebSocket {
            // The server takes frames in order: once this one is answered, so was the ping.
            stalled.websocket().send_frame(true, opcode::PING, b"ping").unwrap();
            stalled.send_packet(op::HEARTBEAT, b"").unwrap();
            eventually("one more heartbeat to be heard", || {
                (rig.edge_metric("push_client_packets_total") > heard_before + HEARTBEATS as u64).then_some(())
            });
        }
        // The order in which it reads all of it.
        let (mut numbers, mut answers, mut behind_answers) = (Vec::new(), 0, 0);
        while numbers.len() < pushes as usize {
            let is_answer = match stalled.recv() {
                Event::Packet(packet) if packet.operation == op::HEARTBEAT_REPLY => true,
                Event::Packet(packet) => {
                    let inner = wire::goim::Packets::new(&packet.body, usize::MAX);
                    let batch =
                        (packet.operation == op::RAW).then(|| inner.map(|inner| number_of(inner.unwrap().body)));
                    match batch {
                        Some(batch) => numbers.extend(batch),
                        None => numbers.push(number_of(&packet.body)),
                    }
                    false
                }
                Event::Pong(payload) => payload == b"ping",
                Event::Closed(how) => panic!("{path}: {how}"),
            };
            answers += i32::from(is_answer);
            behind_answers = if is_answer { 0 } else { behind_answers + 1 };
        }
        assert_eq!(numbers, (0..pushes).collect::<Vec<_>>(), "{path}: the data keeps its order");
        let expected = if path.over == Over::WebSocket { HEARTBEATS + 2 } else { HEARTBEATS };
        assert_eq!(answers, expected, "{path}");
        assert!(behind_answers >= LEAST_BEHIND, "{path}: {behind_answers} pushes came behind the last answer");
        drop(stalled);
        rig.await_stat("/connections", |connections| connections == 0);
    }
    assert_eq!(rig.stat("/dropped_total"), 0);
}
