//! `perf-tests clients --engine xdp` as it is called: with the daemons, in namespaces of its own, which go with it.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;
mod xdp_verb;

use rustix::process::{Pid, Signal, kill_process};
use xdp_verb::{are_held, command, eventually, is_there, own_namespaces, report, start_listening};

/// A run that does not end by itself.
const ENDLESS: &str = "--connections 40 --broadcasts 1000000 --publish-rate 20 --json";

#[test]
fn twenty_thousand_clients_hear_every_message_once_and_in_order() {
    if !is_there() {
        return;
    }
    let output = command("--connections 20000 --rooms 20 --broadcasts 100 --publish-rate 20 --json").output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{:?} {:?}", report.faults, report.connections);
    assert_eq!((report.engine.as_str(), report.connections.joined), ("xdp", 20_000));
    assert_eq!(report.connections.join_us.unwrap().count, 20_000);
    let messages = &report.messages;
    // A hundred messages to twenty rooms of a thousand.
    assert_eq!((messages.due, messages.received, messages.missing), (100_000, 100_000, 0));
    assert_eq!((messages.duplicates, messages.order_faults, messages.misrouted), (0, 0, 0));
    assert_eq!((messages.incomplete_clients, messages.silent_clients, messages.foreign), (0, 0, 0));
    assert_eq!((report.delay_us.unwrap().count, report.last_receiver_us.unwrap().count), (100_000, 100));
}

#[test]
fn every_dialect_is_spoken_over_every_transport() {
    if !is_there() {
        return;
    }
    for transport in ["tcp", "websocket"] {
        for dialect in ["goim", "bilibili"] {
            let spoken = format!("--transport {transport} --dialect {dialect}");
            // As fast as it goes, so that blocks hold several packets.
            let flood = "--connections 500 --rooms 5 --broadcasts 1000 --publish-rate 0";
            let output = command(&format!("{spoken} {flood} --heartbeat-seconds 1 --json")).output().unwrap();
            let report = report(&output);
            assert_eq!(output.status.code(), Some(0), "{spoken}: {:?} {:?}", report.faults, report.connections);
            assert_eq!(report.connections.join_us.unwrap().count, 500, "{spoken}");
            let messages = &report.messages;
            assert_eq!((messages.due, messages.received, messages.missing), (100_000, 100_000, 0), "{spoken}");
            assert_eq!((messages.duplicates, messages.misrouted, messages.foreign), (0, 0, 0), "{spoken}");
            assert!(report.heartbeats.answered > 0, "{spoken}: {:?}", report.heartbeats);
        }
    }
}

#[test]
fn clients_of_ipv6_hear_what_those_of_ipv4_hear() {
    if !is_there() {
        return;
    }
    for transport in ["tcp", "websocket"] {
        let arguments = format!("--ipv6 --transport {transport} --connections 2000 --rooms 20 --broadcasts 200");
        let output = command(&format!("{arguments} --publish-rate 100 --heartbeat-seconds 1 --json")).output().unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{transport}: {:?} {:?}", report.faults, report.connections);
        assert!(report.scenario.connect[0].is_ipv6());
        assert_eq!((report.connections.joined, report.messages.received, report.messages.missing), (2000, 20_000, 0));
        assert!(report.heartbeats.answered > 0, "{transport}: {:?}", report.heartbeats);
    }
}

#[test]
fn whoever_does_not_read_or_goes_costs_the_others_nothing_over_either_transport() {
    if !is_there() {
        return;
    }
    for transport in ["tcp", "websocket"] {
        let clients = "--connections 400 --rooms 4 --slow 0.2 --slow-bytes 4000 --slow-buffer 4096 --stop-reading 0.1";
        let others = "--churn 50 --goodbye mixed --away-ms 100";
        let said = "--broadcasts 200 --publish-rate 100 --message-bytes 1000 --json";
        let output = command(&format!("--transport {transport} {clients} {others} {said}")).output().unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{transport}: {:?} {:?}", report.faults, report.connections);
        assert_eq!((report.astray.slow.clients, report.astray.stopped.clients), (80, 40), "{transport}");
        assert!(report.returns.back > 0 && report.returns.not_back == 0, "{transport}: {:?}", report.returns);
        assert!(report.astray.received > 0, "{transport}: {:?}", report.astray);
        assert_eq!(report.connections.closed.get("garbled streams"), None, "{transport}");
    }
}

#[test]
fn an_interrupt_gives_what_was_found_until_then() {
    if !is_there() {
        return;
    }
    let child = start_listening(ENDLESS);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let report = report(&output);
    assert!(report.interrupted);
    assert_eq!((report.connections.joined, output.status.code()), (40, Some(1)));
    assert_eq!((report.messages.duplicates, report.messages.order_faults), (0, 0));
}

#[test]
fn nothing_is_left_of_a_run_that_is_killed() {
    if !is_there() {
        return;
    }
    let mut child = start_listening(ENDLESS);
    let own = own_namespaces(child.id());
    assert_eq!(own.len(), 2, "the server's and the clients': {own:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually(&format!("nobody holds {own:?}"), || !are_held(&own));
}

#[test]
fn what_they_cannot_do_is_said_before_anything_is_made() {
    for (arguments, words) in [
        ("--connect 127.0.0.1:3101", "say with --netns"),
        ("--listen-only", "leave out --listen-only"),
        ("--connections 200000000 --threads 100000", "the rig has addresses for"),
    ] {
        let output = command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(words), "{arguments}: {said}");
    }
}
