//! `perf-tests floor` as it is called: exit codes, JSON, and more clients than one descriptor table holds.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::process::{Command, Output};

use serde_json::Value;

/// Runs the command with a descriptor limit as a shell sets it.
fn run(descriptors: u32, arguments: &str) -> Output {
    let binary = env!("CARGO_BIN_EXE_perf-tests");
    let line = format!("ulimit -n {descriptors} && exec {binary} floor {arguments}");
    Command::new("sh").args(["-c", &line]).output().unwrap()
}

#[test]
fn clients_may_be_more_than_one_table_holds() {
    let output = run(500, "-n 700 --seconds 0.5 --repeats 1 --path send --pattern accept,as-they-come --json");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let measured = result["measurements"].as_array().unwrap();
    assert_eq!(measured.len(), 2);
    for figures in measured {
        assert_eq!((&figures["clients"], &figures["server_threads"]), (&700.into(), &4.into()), "{figures}");
    }
    assert_eq!(measured[1]["received"], 14_000, "{measured:?}");
    assert_eq!(result["machine"]["descriptors_per_table"], 500);
}

#[test]
fn medians_are_printed_for_people() {
    let output =
        run(1000, "-n 50 --seconds 0.3 --repeats 3 --path send --pattern merged,flat-out --packets-per-send 4");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for row in ["40/s, 40 in one", "flat out, 4 in one"] {
        let line = shown.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("no {row}: {shown}"));
        assert!(line.contains("100.0000 %") && line.contains(" send "), "{shown}");
    }
    assert!(shown.contains("3 repeats"), "{shown}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (arguments, words) in [
        ("-n 700 --server-threads 1", "use 4 threads"),
        ("-n 700 --client-threads 1", "use 3 threads"),
        ("-n 0", "clients must be at least 1"),
        ("--seconds=-1", "--seconds -1"),
        ("--repeats 0", "--repeats must be at least 1"),
        ("--pattern flat-out --packets-per-send 0", "0 packets in one send"),
        ("--pattern never", "one-a-second"),
    ] {
        let output = run(500, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(words), "{arguments}: {said}");
    }
}

#[test]
fn help_has_an_example_and_hides_the_server() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_perf-tests")).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(help(&["floor", "--help"]).contains("perf-tests floor --clients"));
    let verbs = help(&["--help"]);
    assert!(verbs.contains("floor") && !verbs.contains("floor-server"), "{verbs}");
}
