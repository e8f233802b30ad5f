//! A shard that panics takes the edge down: its clients are told, and the process ends with a code that says so.
//!
//! The edge runs in a process of its own (`edge_process`), which also makes the shard panic.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod edge_in_process;
mod edge_process;

use edge_in_process::{Client, Tier, settings};
use edge_process::EdgeProcess;
use wire::goim::op;

#[test]
#[ignore = "not a test: the process that the test below starts"]
fn the_edge_itself() {
    edge_process::run();
}

#[test]
fn an_edge_with_a_shard_that_panicked_says_so_and_stops() {
    let tier = Tier::start();
    let more = "shard.count = 2\nshard.max_connections = 20\nlimits.drain_ms = 100\n";
    let edge = EdgeProcess::start(&settings([0, 0], &tier, more));

    // A shard takes more than its share, and is full with 25 clients: with the 49th at the latest, one is.
    let port = tier.ports().0;
    let mut clients: Vec<Client> = Vec::new();
    while clients.len() < 49 {
        let mut client = Client::connect(port, false);
        // Its shard may be gone by now.
        let _gone = client.try_send(op::AUTH, br#"{"mid":1,"room_id":"live://1","accepts":[1000]}"#);
        clients.push(client);
    }
    let ends: Vec<Vec<i32>> = clients.iter_mut().map(Client::until_the_end).collect();
    let log = edge.ended();
    // The other shard's clients were told goodbye; those of the one that panicked had nobody to tell them.
    let told = ends.iter().filter(|operations| operations.last() == Some(&op::DISCONNECT_REPLY)).count();
    assert!((1..=24).contains(&told), "{told} of 49 were told:\n{log}");
}
