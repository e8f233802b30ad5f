//! A shard's queue of orders is full: the hub waits, nothing is lost, and it is counted.

use rustix::process::Signal;

use crate::edge_rig::{Client, EVERY_PATH, Rig};

/// One order each, in one frame.
const ROOMS: u64 = 16;

const MESSAGES: u32 = 25;

#[test]
fn orders_wait_for_a_full_queue_and_none_is_lost() {
    let mut rig =
        Rig::start("shard.order_queue = 1\nshard.turn_sends = 1\nshard.slice_sends = 1\nshard.backlog_bytes = 0", "");
    let places = (1..=ROOMS).flat_map(|room| EVERY_PATH.map(|path| (room, path)));
    let mut clients: Vec<(u64, Client)> =
        places.map(|(room, path)| (room, Client::in_room(&rig.stack, path, room))).collect();
    let before = rig.edge_metric("push_order_queue_full_total");

    // Everything is there when the edge goes on: frames for more rooms than the queue has places.
    rig.stop_edge();
    for number in 0..MESSAGES {
        (1..=ROOMS).for_each(|room| rig.push(&room.to_string(), &format!("{room}: {number}")));
    }
    rig.stack.edge().signal(Signal::CONT).unwrap();

    for (room, client) in &mut clients {
        for number in 0..MESSAGES {
            assert_eq!(client.hears(), format!("{room}: {number}"));
        }
    }
    assert!(rig.edge_metric("push_order_queue_full_total") > before, "no order had to wait");
    assert_eq!((rig.stat("/closed_total"), rig.stat("/dropped_total")), (0, 0));
}
