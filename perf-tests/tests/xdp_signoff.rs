//! `perf-tests signoff` and `perf-tests floor` with clients made of XDP, on rigs of their own, against the real daemons.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;
mod xdp_verb;

use std::fs;
use std::process::Command;

use perf_tests::signoff::report::Report;

const PROFILE: &str = r#"
name = "no sockets"
repeats = 2
clients = { count = 300, engine = "xdp", heartbeat_seconds = 1.0 }
floor.paths = ["send"]
daemons.push_daemon.shard.send = "plain"

[[phase]]
name = "connect"
kind = "connect"
floor = true
[[phase]]
name = "idle"
kind = "idle"
seconds = 1.5
[[phase]]
name = "one_by_one"
kind = "broadcast"
per_second = 20.0
messages = 10
floor = true
[[phase]]
name = "mids"
kind = "push"
by = "mid"
per_second = 300.0
messages = 300
repeats = 1
[[phase]]
name = "rooms"
kind = "broadcast"
rooms = 1_000
clients = 2_000
per_second = 1_000.0
messages = 1_000
transport = "websocket"
repeats = 1
[[phase]]
name = "storm"
kind = "storm"
share = 0.5
per_second = 10.0
messages = 15
repeats = 1

[budget]
connect.not_joined = { max = 0 }
connect.closed = { max = 0 }
connect.cpu_us = { min = 0.0, of = "floor.connect.cpu_us" }
idle.closed = { max = 0 }
idle.heartbeats_missing = { max = 0 }
one_by_one.missing = { max = 0 }
one_by_one.faults = { max = 0 }
one_by_one.cpu_us_per_message = { min = 0.0, of = "floor.one_by_one.cpu_us_per_message" }
mids.missing = { max = 0 }
mids.faults = { max = 0 }
rooms.missing = { max = 0 }
rooms.faults = { max = 0 }
storm.not_joined = { max = 0 }
storm.returns = { min = 150 }
storm.missing = { max = 0 }
storm.faults = { max = 0 }
"#;

fn perf_tests(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf-tests"));
    command.args(arguments);
    command
}

#[test]
fn a_profile_is_signed_off_with_clients_that_are_no_sockets() {
    if !xdp_verb::is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let profile = directory.path().join("profile.toml");
    fs::write(&profile, PROFILE).unwrap();
    let json = directory.path().join("report.json");
    let (profile, json) = (profile.to_str().unwrap(), json.to_str().unwrap());
    let page = directory.path().join("page.html");
    let output =
        perf_tests(&["signoff", "--profile", profile, "--json", json, "--html", page.to_str().unwrap()]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report = Report::load(json.as_ref()).unwrap();
    assert_eq!(report.troubles, Vec::<String>::new());
    assert_eq!(
        report.figures.get("floor.one_by_one.cpu_us_per_message").unwrap().values.len(),
        2,
        "a floor for each repeat"
    );
}

#[test]
fn the_floor_is_heard_by_everybody_without_a_socket() {
    if !xdp_verb::is_there() {
        return;
    }
    let arguments = "floor --engine xdp --clients 300 --seconds 0.5 --repeats 1 --path send --json";
    let output = perf_tests(&arguments.split_whitespace().collect::<Vec<_>>()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let measured = said["measurements"].as_array().unwrap();
    assert_eq!(measured.len(), 5, "each pattern once");
    for figures in measured {
        assert_eq!(figures["received"], figures["due"], "{figures}");
    }
}
