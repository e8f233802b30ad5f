//! Pins of the layout before ours: their rules are taken over while packets flow, and no packet goes by unjudged.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod netns;

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use ipnet::IpNet;
use netns::{Bpffs, Pair, SERVER_INTERFACE, SERVER_V4, await_connected, config, eventually, object, start_connect};
use push_daemon::kernel::{Action, Arrival, KernelPlane, Mode, NewRule, Tables, take_down};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn bpftool(line: &str) {
    let output = Command::new("bpftool").args(line.split_whitespace()).output().expect("bpftool (cargo xtask setup)");
    assert!(output.status.success(), "bpftool {line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

/// A map of layout 1 with what it holds.
fn old_map(dir: &Path, name: &str, kind: &str, sizes: (usize, usize), entries: u32, pairs: &[(Vec<u8>, Vec<u8>)]) {
    let path = dir.join(name).display().to_string();
    let flags = if kind == "array" { 0 } else { 1 };
    let (key, value) = sizes;
    bpftool(&format!(
        "map create {path} type {kind} key {key} value {value} entries {entries} name {name} flags {flags}"
    ));
    for (key, value) in pairs {
        bpftool(&format!("map update pinned {path} key hex {} value hex {}", hex(key), hex(value)));
    }
}

/// A rule of layout 1.
fn old_rule(action: u32, length: u32, hits: u64) -> Vec<u8> {
    let mut value = Vec::new();
    value.extend_from_slice(&action.to_ne_bytes());
    value.extend_from_slice(&length.to_ne_bytes());
    for word in [0, hits, hits * 60] {
        value.extend_from_slice(&word.to_ne_bytes());
    }
    value
}

/// The pins as version 1 would have left them, with rules that deny 10.77.0.2 and allow 10.77.0.3 in a denied /24.
fn old_pins(dir: &Path) {
    let host = |last: u8| vec![10, 77, 0, last];
    let prefix = |length: u32, address: [u8; 4]| {
        let mut key = length.to_ne_bytes().to_vec();
        key.extend_from_slice(&address);
        key.extend_from_slice(&[0; 4]);
        key
    };
    let hosts = [(host(2), old_rule(1, 32, 7)), (host(3), old_rule(0, 32, 0))];
    old_map(dir, "HOSTS_V4", "hash", (4, 32), 100, &hosts);
    old_map(dir, "HOSTS_V6", "hash", (16, 32), 100, &[]);
    old_map(dir, "PREFIXES_V4", "lpm_trie", (12, 32), 100, &[(prefix(24, [10, 77, 0, 0]), old_rule(1, 24, 0))]);
    old_map(dir, "PREFIXES_V6", "lpm_trie", (20, 32), 100, &[]);
    let management = (prefix(32, [10, 77, 0, 5]), 32u32.to_ne_bytes().to_vec());
    old_map(dir, "MANAGEMENT_V4", "lpm_trie", (12, 4), 256, &[management]);
    old_map(dir, "MANAGEMENT_V6", "lpm_trie", (20, 4), 256, &[]);
    old_map(dir, "SETTINGS", "array", (4, 40), 1, &[]);
    let (word, bit) = abi::maps::port_bit(3101);
    let ports = (word.to_ne_bytes().to_vec(), bit.to_ne_bytes().to_vec());
    old_map(dir, "PROTECTED", "array", (4, 8), abi::maps::PORT_WORDS, &[ports]);
}

/// Does `work` while a client at 10.77.0.2 tries to connect all the time, and sees that he never came in.
fn while_a_denied_client_knocks<T>(pair: &Pair, work: impl FnOnce() -> T) -> (TcpListener, T) {
    let server: SocketAddr = format!("{SERVER_V4}:3101").parse().unwrap();
    let listener = pair.server.run(|| TcpListener::bind(server)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let denied: IpAddr = "10.77.0.2".parse().unwrap();
    let (done, attempts) = (AtomicBool::new(false), AtomicU32::new(0));
    let done_with = thread::scope(|scope| {
        scope.spawn(|| {
            pair.client.run(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(start_connect(denied, server));
                    attempts.fetch_add(1, Ordering::Relaxed);
                    // A pace, so that the attempts do not take the machine from what is tested.
                    thread::sleep(Duration::from_micros(200));
                }
            });
        });
        eventually("packets flow", || attempts.load(Ordering::Relaxed) > 100);
        let done_with = work();
        let at = attempts.load(Ordering::Relaxed);
        eventually("packets still flow", || attempts.load(Ordering::Relaxed) > at + 100);
        done.store(true, Ordering::Relaxed);
        done_with
    });
    assert!(listener.accept().is_err(), "a denied client came in");
    (listener, done_with)
}

#[test]
fn programs_are_swapped_while_packets_flow() {
    let Some(object) = object() else { return };
    for mode in [Mode::Driver, Mode::Generic] {
        let (bpffs, pair) = (Bpffs::mount(), Pair::new());
        let mut config = config(&object, &bpffs, SERVER_INTERFACE, mode);
        let mut plane = pair.server.run(|| KernelPlane::bring_up(&config)).unwrap();
        plane.tables_mut().add(&NewRule::new(net("10.77.0.2/32"), Action::Deny)).unwrap();
        drop(plane);
        while_a_denied_client_knocks(&pair, || {
            for round in 0..10 {
                // A program that logs is another program.
                config.trace = round % 2 == 0;
                let plane = pair.server.run(|| KernelPlane::bring_up(&config)).unwrap();
                assert_eq!(plane.arrival(), Arrival::ProgramSwapped);
            }
        });
        let hits = Tables::open(&bpffs.pin_root()).unwrap().find(net("10.77.0.2/32")).unwrap().hits;
        assert!(hits >= 200, "{hits} packets were judged");
    }
}

/// Whether `bpftool` is here, which makes maps as another program would.
fn has_bpftool() -> bool {
    if Command::new("bpftool").arg("version").output().is_ok() {
        return true;
    }
    let required = std::env::var_os("PUSH_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "required, and bpftool is not installed (cargo xtask setup)");
    eprintln!("skipped: {}: bpftool is not installed", thread::current().name().unwrap_or("a test"));
    false
}

#[test]
fn rules_of_the_layout_before_are_taken_over_while_packets_flow() {
    let Some(object) = object().filter(|_| has_bpftool()) else { return };
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    let mut config = config(&object, &bpffs, SERVER_INTERFACE, Mode::Driver);
    config.management = vec![net("10.77.0.5/32")];

    // A filter at work under the old name: ours stands in for it, its own pins gone.
    let mut plane = pair.server.run(|| KernelPlane::bring_up(&config)).unwrap();
    plane.tables_mut().add(&NewRule::new(net("10.77.0.2/32"), Action::Deny)).unwrap();
    let ours = plane.pin_dir().to_path_buf();
    let old = bpffs.pin_root().join("v1");
    fs::create_dir(&old).unwrap();
    fs::rename(ours.join("filter_link"), old.join("filter_link")).unwrap();
    drop(plane);
    fs::remove_dir_all(&ours).unwrap();
    old_pins(&old);

    let Err(error) = Tables::open(&bpffs.pin_root()) else { panic!("they were adopted") };
    assert!(error.to_string().contains("holds pins of layout 1, and this program speaks layout 2"), "{error}");

    let allowed: IpAddr = "10.77.0.3".parse().unwrap();
    let (listener, plane) =
        while_a_denied_client_knocks(&pair, || pair.server.run(|| KernelPlane::bring_up(&config)).unwrap());
    assert_eq!(plane.arrival(), Arrival::ProgramSwapped);
    assert!(plane.notes().iter().any(|note| note.contains("were taken over")), "{:?}", plane.notes());
    assert!(!old.exists());

    let rules = plane.tables().list().unwrap();
    let told: Vec<_> = rules.iter().map(|rule| (rule.prefix.to_string(), rule.action)).collect();
    let expected = [("10.77.0.0/24", Action::Deny), ("10.77.0.2/32", Action::Deny), ("10.77.0.3/32", Action::Allow)];
    assert_eq!(told, expected.map(|(prefix, action)| (prefix.to_owned(), action)));
    assert!(rules[1].hits > 7, "its counts go on: {}", rules[1].hits);

    let socket = pair.client.run(|| start_connect(allowed, listener.local_addr().unwrap()));
    pair.client.run(|| await_connected(&socket));
    assert!(take_down(&bpffs.pin_root()).unwrap() > 0);
}
