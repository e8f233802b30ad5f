//! Clients made of XDP around a server that is not ours, in a network namespace that somebody else made, and goes on with.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;
mod namespaces;
mod tiny_goim;
mod xdp_verb;

use std::net::Ipv6Addr;

use namespaces::Namespace;
use perf_tests::load::stamp::{Stamp, monotonic_ns};
use perf_tests::probe::publisher::Publisher;
use rustix::process::{Pid, Signal, kill_process};
use tiny_goim::{Act, TinyGoim};
use xdp_verb::{command, eventually, is_there, report, start_listening};

/// Nobody in the namespace has it until the run brings it.
const BROUGHT: &str = "10.77.0.1";

fn faultless(_mid: i64, _count: u64) -> Act {
    Act::Send
}

/// A server in a namespace of its own, listening at every address.
fn serve() -> (Namespace, TinyGoim) {
    let namespace = Namespace::new("theirs");
    let server = namespace.run(|| {
        // Strict about return paths, as distributions are.
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        TinyGoim::start_at(Ipv6Addr::UNSPECIFIED.into(), faultless)
    });
    (namespace, server)
}

/// The arguments that lead to it.
fn way_to(namespace: &Namespace, address: &str, server: &TinyGoim) -> String {
    format!("--netns {} --connect {address}:{} --http {}", namespace.name(), server.tcp.port(), server.http)
}

/// What a run may have put into a namespace.
fn furniture(namespace: &Namespace) -> [String; 4] {
    [
        &["-o", "link", "show"][..],
        &["-o", "address", "show"],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ]
    .map(|what| namespace.ip_says(what))
}

#[test]
fn a_server_of_plain_sockets_is_measured_where_it_is() {
    if !is_there() {
        return;
    }
    let (namespace, server) = serve();
    namespace.ip(&["address", "add", "10.78.0.1/32", "dev", "lo"]);
    namespace.ip(&["address", "add", "fd78::1/128", "dev", "lo", "nodad"]);
    let before = furniture(&namespace);
    for address in [BROUGHT, "10.78.0.1", "[fd77::1]", "[fd78::1]"] {
        let way = way_to(&namespace, address, &server);
        let arguments = format!("{way} --connections 300 --rooms 3 --broadcasts 60 --publish-rate 100 --json");
        let output = command(&arguments).output().unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{:?} {:?}", report.faults, report.connections);
        assert_eq!((report.engine.as_str(), report.connections.joined), ("xdp", 300));
        assert_eq!((report.messages.due, report.messages.received, report.messages.missing), (6000, 6000, 0));
        assert_eq!(furniture(&namespace), before, "nothing is left of a run at {address}");
        eventually("the server knows that they are gone", || queues(&namespace, &server).is_empty());
    }
}

#[test]
fn a_server_of_plain_sockets_is_heard_over_websocket_whatever_it_does_to_the_frames() {
    if !is_there() {
        return;
    }
    let mixed = |mid, count| match (mid as u64 + count) % 4 {
        0 => Act::Batch,
        1 => Act::Torn,
        _ => Act::Send,
    };
    let namespace = Namespace::new("theirs");
    let server = namespace.run(|| TinyGoim::start_at(Ipv6Addr::UNSPECIFIED.into(), mixed));
    let port = server.websocket.port();
    let way = format!("--netns {} --connect {BROUGHT}:{port} --http {}", namespace.name(), server.http);
    for dialect in ["goim", "bilibili"] {
        let arguments = format!("{way} --transport websocket --dialect {dialect} --connections 100 --rooms 2");
        let output = command(&format!("{arguments} --broadcasts 40 --publish-rate 100 --json")).output().unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{dialect}: {:?} {:?}", report.faults, report.connections);
        assert_eq!((report.messages.due, report.messages.received), (2000, 2000), "{dialect}");
    }
}

#[test]
fn what_somebody_else_publishes_is_heard_from_the_first_message_on() {
    const RUN: u32 = 4711;
    const CLIENTS: u64 = 40;
    if !is_there() {
        return;
    }
    let lossy = |mid, count| if mid == 7 && count == 2 { Act::Lose } else { Act::Send };
    let namespace = Namespace::new("theirs");
    let server = namespace.run(|| TinyGoim::start_at(Ipv6Addr::UNSPECIFIED.into(), lossy));
    let way = way_to(&namespace, BROUGHT, &server);
    for (asked_for, is_ours) in [("", true), ("--run 4711", true), ("--run 4712", false)] {
        let arguments = format!("{way} --connections {CLIENTS} --listen-only --listen-seconds 600 --json {asked_for}");
        let child = start_listening(&arguments);
        namespace.run(|| {
            let publisher = Publisher::new(server.http);
            for number in 1000..1010 {
                let mut body = [b'.'; 64];
                Stamp { run: RUN, room: 0, phase: 0, number, sent_ns: monotonic_ns() }.write(&mut body);
                assert!(publisher.push_room(1000, "live", "1000", &body).unwrap().is_accepted());
            }
        });
        eventually("all is acknowledged", || queues(&namespace, &server).iter().all(|unsent| unsent == "00000000"));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let report = report(&output);
        let messages = &report.messages;
        assert_eq!((report.connections.joined, output.status.code()), (CLIENTS, Some(1)), "{:?}", report.faults);
        if !is_ours {
            assert_eq!((messages.due, messages.received, messages.foreign), (0, 0, CLIENTS * 10 - 1));
            continue;
        }
        // Numbers below the first are nobody's loss.
        assert_eq!((messages.due, messages.received, messages.missing), (CLIENTS * 10, CLIENTS * 10 - 1, 1));
        assert_eq!((messages.gaps, messages.incomplete_clients, messages.duplicates), (1, 1, 0));
        assert_eq!((report.run, report.delay_us.unwrap().count), (RUN, CLIENTS * 10 - 1));
    }
}

/// Of each connection of the server: what it has written and nobody acknowledged, in hexadecimal.
fn queues(namespace: &Namespace, server: &TinyGoim) -> Vec<String> {
    // It listens on both families, by a socket of IPv6.
    let sockets = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp6").unwrap());
    let port = format!(":{:04X}", server.tcp.port());
    let open = sockets.lines().skip(1).filter_map(|line| {
        let [_, local, _, state, queues, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        (local.ends_with(&port) && state == "01").then(|| queues.split(':').next().unwrap().to_owned())
    });
    open.collect()
}

#[test]
fn nothing_is_left_in_their_namespace_of_a_run_that_is_killed() {
    if !is_there() {
        return;
    }
    let (namespace, server) = serve();
    let before = furniture(&namespace);
    let way = way_to(&namespace, BROUGHT, &server);
    let mut child = start_listening(&format!("{way} --connections 40 --broadcasts 1000000 --publish-rate 20"));
    assert_ne!(furniture(&namespace), before, "it is in there");
    let second = command(&format!("{way} --connections 1")).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(2) && said.contains("another run?"), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the namespace is as it was", || furniture(&namespace) == before);
}

#[test]
fn what_is_in_the_way_is_said_and_nothing_is_left() {
    if !is_there() {
        return;
    }
    let there = "--connect 10.77.0.1:3101";
    for (arguments, words, before_it) in [
        ("--netns no-such-namespace --connect 10.77.0.1:3101", "no-such-namespace", ""),
        ("--netns /dev/null --connect 10.77.0.1:3101", "enter the server's namespace", ""),
        ("--connect 127.0.0.1:3101", "listen on every address", ""),
        ("--connect 10.77.0.1:3101,10.77.0.2:3101", "--connect once", ""),
        ("", "--connect", ""),
        (there, "10.200.0.0/16", "route add 10.200.0.0/16 dev lo"),
        (there, "10.0.0.0/8", "route add 10.0.0.0/8 dev lo"),
        ("--connect [fd77::1]:3101", "fd80::/16", "-6 route add fd80::/16 dev lo"),
        (there, "push0", "link add push0 type veth peer name other"),
    ] {
        let namespace = Namespace::new("theirs");
        if !before_it.is_empty() {
            namespace.ip(&before_it.split(' ').collect::<Vec<_>>());
        }
        let way = if arguments.contains("--netns") { String::new() } else { format!("--netns {}", namespace.name()) };
        let before = furniture(&namespace);
        let output = command(&format!("{way} {arguments} --connections 1")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(words), "{arguments}: {said}");
        assert_eq!(furniture(&namespace), before, "{arguments}");
    }
}

#[test]
fn a_server_that_is_not_there_refuses() {
    if !is_there() {
        return;
    }
    let namespace = Namespace::new("theirs");
    let way = format!("--netns {} --connect {BROUGHT}:3101", namespace.name());
    let arguments = format!("{way} --connections 5 --listen-only --listen-seconds 0.1 --json");
    let output = command(&arguments).output().unwrap();
    let report = report(&output);
    assert_eq!(report.connections.refused, [("connection refused".to_owned(), 5)].into());
    assert_eq!(output.status.code(), Some(1));
}
