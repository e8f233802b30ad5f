//! Clients made of XDP when something is missing, breaks, or is ended: clear words, no hanging, and nothing left.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;
mod namespaces;
mod tiny_goim;
mod xdp_verb;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::thread;

use abi::clients::{CLIENTS_MAP, PASS, PROGRAM};
use namespaces::Namespace;
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tiny_goim::{Act, TinyGoim};
use xdp_verb::{
    are_held, children_of, command, command_with, eventually, is_there, own_namespaces, report, start_until,
};

/// Nobody in the namespace has it until the run brings it.
const BROUGHT: &str = "10.77.0.1";

/// A user who may do nothing, and need not exist.
const NOBODY: &str = "54321";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with these objects in it, each as given.
fn objects(named: &[(&str, &[u8])]) -> TempDir {
    let directory = TempDir::with_prefix("push-objects-").unwrap();
    for (name, bytes) in named {
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    directory
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    if !is_there() {
        return;
    }
    let clients = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/push-clients.bpf.o")).unwrap();
    let file = "push-clients.bpf.o";
    for (name, directory, words) in [
        ("nothing is built", objects(&[]), ["push-clients.bpf.o is not in", "cargo xtask build-ebpf"]),
        ("what is built is none", objects(&[(file, b"no ELF")]), ["cannot load", file]),
        ("the appliance is not built", objects(&[(file, &clients)]), ["push-appliance.bpf.o is not in", "build-ebpf"]),
    ] {
        let output = command("--connections 10").env("PUSH_BPF_DIR", directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {}", said(&output));
        assert!(words.iter().all(|words| said(&output).contains(words)), "{name}: {}", said(&output));
    }
}

#[test]
fn without_root_it_says_that_it_needs_it() {
    if !is_there() {
        return;
    }
    // Whoever owns the checkout may keep others out of it.
    let directory = TempDir::with_prefix("push-unprivileged-").unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("perf-tests");
    fs::copy(env!("CARGO_BIN_EXE_perf-tests"), &binary).unwrap();
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]).arg(&binary);
    let output = command.args("clients --engine xdp --connections 10".split(' ')).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("need root") && said(&output).contains("--engine socket"), "{}", said(&output));
}

#[test]
fn an_interface_without_driver_mode_is_refused_by_name_of_the_mode() {
    if !is_there() {
        return;
    }
    let namespace = Namespace::new("nodriver");
    for program in [PROGRAM, PASS] {
        // Loopback has no XDP of its own. It is the first interface of any namespace.
        let refused = namespace.run(|| Program::load(1, 1).unwrap().attach(program, 1)).unwrap_err();
        assert!(matches!(refused, XdpError::Attach { .. }), "{refused:?}");
        assert!(refused.to_string().contains("driver mode"), "{refused}");
    }
}

#[test]
fn more_clients_than_the_kernel_has_room_for_are_refused() {
    if !is_there() {
        return;
    }
    let Err(refused) = Program::load(u32::MAX, 1) else { panic!("a table of 128 GiB") };
    assert!(matches!(refused, XdpError::Load { .. }), "{refused:?}");
    assert!(refused.to_string().contains("room for 4294967295 clients"), "{refused}");
}

#[test]
fn sockets_stand_in_only_when_asked_and_loudly() {
    if !is_there() {
        return;
    }
    let nothing = objects(&[]);
    let namespace = Namespace::new("theirs");
    let server = namespace.run(|| TinyGoim::start_at(Ipv6Addr::UNSPECIFIED.into(), |_, _| Act::Send));
    namespace.ip(&["address", "add", "10.78.0.1/32", "dev", "lo"]);
    let theirs =
        format!("--netns {} --connect 10.78.0.1:{} --http {}", namespace.name(), server.tcp.port(), server.http);
    for server in ["", &theirs] {
        let run = format!("{server} --connections 20 --broadcasts 10 --json");
        let output = command(&run).env("PUSH_BPF_DIR", nothing.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{run}: {}", said(&output));
        let output = command_with("xdp-or-socket", &run).env("PUSH_BPF_DIR", nothing.path()).output().unwrap();
        let report = report(&output);
        assert_eq!((report.engine.as_str(), output.status.code()), ("socket", Some(0)), "{run}: {:?}", report.faults);
        assert_eq!((report.connections.joined, report.messages.received), (20, 200), "{run}");
        for words in ["NO CLIENTS MADE OF XDP", "cargo xtask build-ebpf", "FALLING BACK"] {
            assert!(said(&output).contains(words), "{run}: {}", said(&output));
        }
    }
}

#[test]
fn a_server_that_dies_in_the_middle_is_told_by_who_lost_what() {
    if !is_there() {
        return;
    }
    let run = "--connections 40 --rooms 4 --broadcasts 100 --publish-rate 50 --settle-seconds 1 --json";
    for transport in ["tcp", "websocket"] {
        let child = start_until(command(&format!("--transport {transport} {run}")), "listening");
        let [edge] = children_of(child.id(), "push-daemon")[..] else { panic!("not one edge") };
        kill_process(edge, Signal::KILL).unwrap();
        let output = child.wait_with_output().unwrap();
        let report = report(&output);
        assert_eq!((output.status.code(), report.connections.joined), (Some(1), 40), "{:?}", report.faults);
        let closed: u64 = report.connections.closed.values().sum();
        assert_eq!(closed, 40, "{:?}", report.connections.closed);
        let messages = &report.messages;
        // Those that were heard before, and those that nobody will hear.
        assert_eq!((messages.due, messages.received + messages.missing), (1000, 1000), "{messages:?}");
        assert_eq!((messages.incomplete_clients, messages.duplicates, messages.order_faults), (40, 0, 0));
        assert!(report.faults.iter().any(|fault| fault == "40 clients closed before the end"), "{:?}", report.faults);
    }
}

#[test]
fn a_server_that_dies_while_they_come_leaves_nobody_waiting() {
    if !is_there() {
        return;
    }
    let child = start_until(command("--connections 4000 --rate 500 --broadcasts 10 --json"), "joining");
    let [edge] = children_of(child.id(), "push-daemon")[..] else { panic!("not one edge") };
    kill_process(edge, Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{:?}", report.faults);
    let refused: u64 = report.connections.refused.values().sum();
    assert_eq!(report.connections.joined + refused, 4000, "{:?}", report.connections);
    assert!(report.connections.refused["connection refused"] > 0, "{:?}", report.connections.refused);
}

#[test]
fn a_server_that_only_stops_is_given_up() {
    if !is_there() {
        return;
    }
    let run = "--connections 40 --broadcasts 50 --publish-rate 50 --settle-seconds 1 --heartbeat-seconds 0.5 --json";
    let child = start_until(command(run), "listening");
    let [edge] = children_of(child.id(), "push-daemon")[..] else { panic!("not one edge") };
    kill_process(edge, Signal::STOP).unwrap();
    let output = child.wait_with_output().unwrap();
    let report = report(&output);
    assert_eq!((output.status.code(), report.connections.joined), (Some(1), 40), "{:?}", report.faults);
    assert_eq!((report.messages.due, report.messages.received + report.messages.missing), (2000, 2000));
    assert!(report.messages.missing > 0 && report.heartbeats.answered < report.heartbeats.sent);
}

#[test]
fn a_server_that_speaks_something_else_is_told_from_one_that_is_silent() {
    if !is_there() {
        return;
    }
    for (greeting, answered) in [(&b"SSH-2.0-OpenSSH_9.6\r\n"[..], true), (&[0xff; 3000], true), (b"", false)] {
        let namespace = Namespace::new("theirs");
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let greet = |stream: &mut std::net::TcpStream| stream.write_all(greeting);
            // Each is kept until the test's process ends.
            let mut kept = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                greet(&mut stream).unwrap();
                kept.push(stream);
            }
        });
        let way = format!("--netns {} --connect {BROUGHT}:{port}", namespace.name());
        let run = "--connections 5 --rate 0 --listen-only --listen-seconds 0.1 --build-seconds 1 --json";
        let output = command(&format!("{way} {run}")).output().unwrap();
        let report = report(&output);
        assert_eq!((output.status.code(), report.connections.joined), (Some(1), 0), "{:?}", report.faults);
        let expected = BTreeMap::from([("no answer to the auth".to_owned(), 5)]);
        assert_eq!(report.connections.refused, expected);
        let garbled = report.connections.closed.get("garbled streams").copied();
        assert_eq!(garbled, answered.then_some(5), "{:?}", report.connections.closed);
    }
}

/// A number of clients that hardly any other run on this machine has.
fn own(stage: u32) -> u32 {
    301 + stage + 8 * (std::process::id() % 40)
}

/// Tables of the kernel's for so many clients.
fn tables(clients: u32) -> usize {
    let maps = aya::maps::loaded_maps().filter_map(Result::ok);
    maps.filter(|map| map.max_entries() == clients && map.name_as_str() == Some(CLIENTS_MAP)).count()
}

/// What may be pinned somewhere.
fn pins() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Interrupts a run of `clients` clients, and sees that it ends with a report and leaves nothing.
fn interrupt(child: Child, clients: u32, when: &str) {
    let own = own_namespaces(child.id());
    let daemons = ["push-daemon", "logic-tier"].map(|name| children_of(child.id(), name)).concat();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{when}: {}", said(&output));
    assert!(report(&output).interrupted, "{when}");
    for daemon in daemons {
        assert!(rustix::process::test_kill_process(daemon).is_err(), "{when}: {daemon:?} still runs");
    }
    eventually(&format!("{when}: nobody holds {own:?}"), || !are_held(&own));
    eventually(&format!("{when}: the tables are gone"), || tables(clients) == 0);
}

#[test]
fn an_interrupt_leaves_nothing_whenever_it_comes() {
    if !is_there() {
        return;
    }
    let pinned = pins();
    for (stage, step, rest) in [
        (0, "joining", "--rate 20 --broadcasts 10"),
        (1, "listening", "--broadcasts 1000000 --publish-rate 20"),
        (2, "listening", "--transport websocket --ipv6 --broadcasts 1000000 --publish-rate 20"),
    ] {
        let clients = own(stage);
        let child = start_until(command(&format!("--connections {clients} {rest} --json")), step);
        assert!(tables(clients) == 1 && own_namespaces(child.id()).len() == 2, "{step}");
        interrupt(child, clients, step);
    }
    // Around a server that loses messages, so that their last one is waited for.
    let namespace = Namespace::new("theirs");
    let lossy = |_, count| if count == 3 { Act::Lose } else { Act::Send };
    let server = namespace.run(|| TinyGoim::start_at(Ipv6Addr::UNSPECIFIED.into(), lossy));
    let before = namespace.ip_says(&["-o", "link", "show"]);
    let clients = own(3);
    let way = format!("--netns {} --connect {BROUGHT}:{} --http {}", namespace.name(), server.tcp.port(), server.http);
    let run = format!("{way} --connections {clients} --broadcasts 4 --settle-seconds 600 --json");
    let child = start_until(command(&run), "settling");
    assert_ne!(namespace.ip_says(&["-o", "link", "show"]), before);
    interrupt(child, clients, "settling");
    assert_eq!(namespace.ip_says(&["-o", "link", "show"]), before);
    assert_eq!(pins(), pinned);
}

#[test]
fn an_interrupt_before_there_is_anything_to_tell_leaves_nothing_either() {
    if !is_there() {
        return;
    }
    let clients = own(4);
    let mut child = command(&format!("--connections {clients} --broadcasts 10")).spawn().unwrap();
    // The table is loaded first; namespaces, link and daemons come behind it.
    eventually("it has begun", || tables(clients) == 1 || child.try_wait().unwrap().is_some());
    let own = own_namespaces(child.id());
    for _ in 0..2 {
        // The second one may come too late.
        let _ = kill_process(Pid::from_child(&child), Signal::INT);
    }
    assert_ne!(child.wait().unwrap().code(), Some(0));
    eventually("the namespaces are gone", || !are_held(&own));
    eventually("the table is gone", || tables(clients) == 0);
}
