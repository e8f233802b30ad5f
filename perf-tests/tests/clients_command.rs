//! `perf-tests clients` as it is called: exit codes, JSON, and more clients than one descriptor table holds.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod tiny_goim;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use perf_tests::load::report::{Report, SCHEMA};
use rustix::process::{Pid, Signal, kill_process};
use tiny_goim::{Act, Mischief, TinyGoim};

/// Runs the command against a server of its own, with a descriptor limit as a shell sets it.
fn run(mischief: Mischief, descriptors: u32, arguments: &str) -> Output {
    let TinyGoim { tcp, http, .. } = TinyGoim::start(mischief);
    let binary = env!("CARGO_BIN_EXE_perf-tests");
    let plain = "--messages 20 --publish-rate 0 --settle-seconds 0.5 --linger-ms 100 --json";
    let line =
        format!("ulimit -n {descriptors} && exec {binary} clients --connect {tcp} --http {http} {plain} {arguments}");
    Command::new("sh").args(["-c", &line]).output().unwrap()
}

fn report(output: &Output) -> Report {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn clients_may_be_more_than_one_table_holds() {
    // No more handshakes at once than the test's server lets wait (std: 128), or the kernel drops some for a second or for good.
    let output = run(|_, _| Act::Send, 500, "--clients 700 --rooms 7 --rate 0 --open-handshakes 32");
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{:?} {:?}", report.faults, report.connections);
    assert_eq!((report.schema, report.scenario.threads), (SCHEMA, 3));
    assert_eq!((report.connections.joined, report.messages.received), (700, 2_000));
}

#[test]
fn loss_fails_unless_tolerated_and_disorder_always() {
    let lose: Mischief = |mid, count| if mid == 3 && count == 1 { Act::Lose } else { Act::Send };
    let double: Mischief = |mid, count| if mid == 3 && count == 1 { Act::Twice } else { Act::Send };
    for (mischief, tolerance, code) in
        [(lose, "", 1), (lose, "--tolerate-loss", 0), (double, "", 1), (double, "--tolerate-loss", 1)]
    {
        let output = run(mischief, 1000, &format!("--clients 5 {tolerance}"));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[test]
fn what_cannot_be_run_is_said_before_anything_is_opened() {
    for (arguments, words) in [
        ("--clients 600 --threads 1", "use --threads 3"),
        ("--message-bytes 8", "no room for its stamp"),
        ("--rooms 0", "--rooms must be at least 1"),
        ("--rate=-1", "--rate is no rate"),
        ("--heartbeat-seconds=-1", "--heartbeat-seconds -1"),
        ("--client 5", "--clients"),
        ("--silent 2", "--silent is no share"),
        ("--storm=-0.5", "--storm is no share"),
        ("--stop-reading NaN", "the share of slow readers is no share"),
        ("--churn=-1", "--churn is no rate"),
        ("--ramp-to 100", "--ramp-seconds"),
        ("--rate 0 --ramp-to 100 --ramp-seconds 1", "the ramp"),
        ("--open-handshakes 0", "--open-handshakes must be at least 1"),
        ("--push-to keys", "use --own-keys"),
        ("--push-to mids --accept 7", "use --accept 1000"),
        ("--push-to mids --each 0", "--each must be at least 1"),
    ] {
        let output = run(|_, _| Act::Send, 500, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(words), "{arguments}: {said}");
    }
}

#[test]
fn what_clients_do_besides_listening_is_asked_for_and_reported() {
    let arguments = "--clients 40 --storm 0.5 --storm-after 0 --goodbye mixed --silent 0.1 --stop-reading 0.2";
    let output = run(|_, _| Act::Send, 500, arguments);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{:?}", report.faults);
    let (returns, astray) = (&report.returns, &report.astray);
    assert_eq!((returns.left_orderly, returns.left_reset, returns.back), (10, 10, 20));
    assert_eq!((astray.silent.clients, astray.silent.stuck), (4, 4));
    assert_eq!((astray.stopped.clients, astray.stopped.stuck), (8, 8));
    assert_eq!(report.scenario.behaviour.orders().len(), 3);
}

#[test]
fn an_interrupt_gives_what_was_found_until_then() {
    let TinyGoim { tcp, .. } = TinyGoim::start(|_, _| Act::Send);
    let mut child = Command::new(env!("CARGO_BIN_EXE_perf-tests"))
        .args(["clients", "--clients", "5", "--listen-only", "--listen-seconds", "600", "--json", "--connect"])
        .arg(tcp.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("listening")), "it never got that far");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let report = report(&output);
    assert!(report.interrupted);
    assert_eq!((report.connections.joined, output.status.code()), (5, Some(1)));
}

#[test]
fn help_has_an_example() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_perf-tests")).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(help(&["--help"]).contains("perf-tests clients --clients"));
    let (_, examples) =
        help(&["clients", "--help"]).split_once("Examples:").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    for option in ["--clients", "--ramp-to", "--churn", "--stop-reading", "--silent", "--storm", "--push-to"] {
        assert!(examples.contains(option), "no example of {option}");
    }
}
