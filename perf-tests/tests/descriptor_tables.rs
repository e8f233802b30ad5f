//! An edge holds more connections than one descriptor table does: each shard has a table of its own.
//!
//! One test and no more: it lowers this process's limit, which those that it starts inherit.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::process::Command;

use perf_tests::load::report::Report;
use perf_tests::probe::daemons::{Stack, StackOptions};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

/// Descriptors of one table.
const LIMIT: u64 = 300;

const CLIENTS: u64 = 700;

#[test]
fn an_edge_holds_more_connections_than_one_table_has_descriptors() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
    // The number of shards is left to the edge.
    let push_daemon_toml = "shard.count = 0\nshard.max_connections = 1000".to_owned();
    let stack = Stack::start_with(&StackOptions { push_daemon_toml, ..StackOptions::default() }).unwrap();
    let addresses = stack.addresses();
    // They leave only when all of them have heard everything, so all are there at one time.
    let output = Command::new(env!("CARGO_BIN_EXE_perf-tests"))
        .args(["clients", "--json", "--clients", &CLIENTS.to_string(), "--messages", "20", "--publish-rate", "0"])
        .args(["--connect", &addresses.tcp.to_string(), "--http", &addresses.http.to_string()])
        .output()
        .unwrap();
    let report: Report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(output.status.success(), "{:?}", report.faults);
    assert_eq!((report.connections.joined, report.messages.received), (CLIENTS, 20 * CLIENTS));

    let stats: Value =
        ureq::get(format!("http://{}/stats", addresses.admin)).call().unwrap().body_mut().read_json().unwrap();
    let shards = stats["shards"].as_array().unwrap().len() as u64;
    assert!(CLIENTS > LIMIT && shards * LIMIT > CLIENTS, "{shards} tables of {LIMIT} descriptors");
}
