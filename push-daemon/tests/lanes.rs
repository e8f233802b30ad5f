//! Lanes of a whole edge: its shards share one rate, and operators see who waits.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod edge_in_process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use edge_in_process::{Client, Edge, eventually};
use push_daemon::lanes::{Lane, LanePlan};
use wire::trunk::batch::Target;

const CLIENTS: usize = 40;

const MESSAGES: usize = 20;

const MESSAGE_BYTES: usize = 1_000;

/// Everybody here is a client of `telecom`, which may have so many bytes a second.
fn plan(rate: u64) -> LanePlan {
    let lane = |id, name: &str, rate| Lane { id, name: name.to_owned(), rate, burst: 0 };
    let prefixes = [("127.0.0.0/8".parse().unwrap(), 7)];
    LanePlan::new(vec![lane(7, "telecom", rate), lane(9, "unicom", 5)], &prefixes).unwrap()
}

fn edge_with_clients() -> (Edge, Vec<Client>) {
    let edge = Edge::start("shard.count = 2\nlimits.debt_age_ms = 600000\n");
    let clients = (1..=CLIENTS as i64).map(|mid| edge.join(mid % 2 == 0, mid, 1)).collect();
    (edge, clients)
}

fn push_all(edge: &Edge) -> Vec<Vec<u8>> {
    let bodies = (0..MESSAGES).map(|number| format!("{number:0MESSAGE_BYTES$}").into_bytes());
    let bodies: Vec<_> = bodies.collect();
    for body in &bodies {
        edge.tier.push(&[Target::Room("live://1".to_owned())], &[body]);
    }
    bodies
}

fn hear_all(clients: &mut [Client], bodies: &[Vec<u8>]) {
    for client in clients {
        let heard: Vec<_> = client.next(bodies.len()).into_iter().map(|(_, body)| body).collect();
        assert!(heard == bodies, "each once and in order");
    }
}

fn get(edge: &Edge, path: &str) -> String {
    let mut stream = TcpStream::connect(edge.appliance.admin_address()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn shards_together_keep_to_the_rate_of_a_lane() {
    const RATE: u64 = 500_000;
    let (edge, mut clients) = edge_with_clients();
    let began = Instant::now();
    edge.set_lanes(plan(RATE));
    eventually("every client is in its lane", || {
        (edge.appliance.lanes()[0].connections == CLIENTS as u64).then_some(())
    });
    let bodies = push_all(&edge);
    hear_all(&mut clients, &bodies);
    let telecom = edge.appliance.lanes().swap_remove(0);
    let elapsed = began.elapsed();
    let payload = (CLIENTS * MESSAGES * (MESSAGE_BYTES + 16)) as u64;
    assert!(telecom.bytes_total > payload, "{telecom:?}");
    // A burst, and one send beyond it from each shard.
    let most = (RATE as f64 * elapsed.as_secs_f64()) as u64 + 4 * RATE / 50;
    assert!(telecom.bytes_total <= most, "{telecom:?} in {elapsed:?}");
    assert!(telecom.delayed_total > 0);
    eventually("nobody waits", || (edge.appliance.lanes()[0].waiting == 0).then_some(()));
    edge.stop();
}

#[test]
fn operators_see_who_waits_for_which_lane_and_can_let_them_go() {
    let (edge, mut clients) = edge_with_clients();
    assert!(!get(&edge, "/metrics").contains("push_lane"), "without lanes there is nothing to see");
    edge.set_lanes(plan(1_000));
    let bodies = push_all(&edge);
    // One send of each shard goes beyond what there is.
    let waiting = eventually("clients wait", || {
        edge.appliance.lanes().into_iter().find(|lane| lane.waiting >= CLIENTS as u64 / 2)
    });
    assert_eq!((waiting.id, &*waiting.isp, waiting.rate, waiting.connections), (7, "telecom", 1_000, CLIENTS as u64));
    let metrics = get(&edge, "/metrics");
    for line in [
        "push_lane_rate_bytes{isp=\"telecom\"} 1000\n",
        "push_lane_rate_bytes{isp=\"unicom\"} 5\n",
        "push_lane_connections{isp=\"telecom\"} 40\n",
        "push_lane_connections{isp=\"unicom\"} 0\n",
        "push_lane_closed_total{isp=\"telecom\"} 0\n",
        "push_lane_bytes_total{isp=\"unicom\"} 0\n",
        "push_lane_delayed_total{isp=\"unicom\"} 0\n",
        "push_closed_total{reason=\"lane_age\"} 0\n",
        "push_closed_total{reason=\"lane_bytes\"} 0\n",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    assert!(!metrics.contains("push_lane_waiting{isp=\"telecom\"} 0\n"), "{metrics}");
    let stats = get(&edge, "/stats");
    assert!(stats.contains(r#""isp":"telecom","rate":1000,"connections":40"#), "{stats}");
    edge.set_lanes(plan(0));
    hear_all(&mut clients, &bodies);
    eventually("nobody waits", || (edge.appliance.lanes()[0].waiting == 0).then_some(()));
    edge.stop();
}
