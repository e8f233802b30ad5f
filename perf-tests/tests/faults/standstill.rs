//! The daemon is stopped for longer than clients may be silent, and goes on: nobody is closed for it, and who falls
//! silent afterwards is.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Rig, eventually};

/// Silence after which a client is gone.
const TIMEOUT: Duration = Duration::from_secs(4);

/// How long the daemon stands still: silence enough for everybody to be gone.
const STANDSTILL: Duration = Duration::from_secs(6);

#[test]
fn a_standstill_closes_nobody_and_silence_afterwards_does() {
    let mut rig = Rig::start(&format!("limits.heartbeat_timeout_ms = {}", TIMEOUT.as_millis()), "");
    let paths = EVERY_PATH.into_iter().cycle().take(40);
    let mut clients: Vec<Client> = paths.map(|path| Client::in_room(&rig.stack, path, 1)).collect();

    rig.stop_edge();
    let since = Instant::now();
    let mut asked = 0;
    while since.elapsed() < STANDSTILL {
        for client in &mut clients {
            client.send_packet(op::HEARTBEAT, b"").unwrap();
        }
        asked += 1;
        std::thread::sleep(TIMEOUT / 8);
    }
    rig.stack.edge().signal(Signal::CONT).unwrap();

    for client in &mut clients {
        for _ in 0..asked {
            assert_eq!(client.next_packet().operation, op::HEARTBEAT_REPLY);
        }
    }
    rig.push("1", "good morning");
    clients.iter_mut().for_each(|client| assert_eq!(client.hears(), "good morning"));
    assert_eq!(rig.stat("/closed_total"), 0);
    // Each shard says that it stood still.
    assert!(rig.edge_metric("push_loop_standstills_total") >= 2);

    let mut silent = clients.pop().unwrap();
    eventually("the silent one to be closed", || {
        for client in &mut clients {
            client.heartbeat();
        }
        (rig.closed("heartbeat_timeout") == 1).then_some(())
    });
    assert!(silent.until_the_end().0.iter().any(|packet| packet.operation == op::DISCONNECT_REPLY));
    assert_eq!(rig.stat("/closed_total"), 1);
}
