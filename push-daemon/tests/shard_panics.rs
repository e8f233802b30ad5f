//! A shard that panics takes the edge down: its clients are told, and the process ends with a code that says so.
//!
//! The edge runs in a process of its own, which is this test binary again. What makes the shard panic is its log: the
//! edge's code is the same as ever, and the one writer of lines panics at the line that a shard writes when it is full.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod edge_in_process;

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;

use edge_in_process::{Client, Tier};
use push_daemon::config::Config;
use rustix::process::{Signal, set_parent_process_death_signal};
use settings::Source;
use wire::goim::op;

/// Names the settings of the process that is the edge.
const SETTINGS: &str = "PUSH_TEST_EDGE_SETTINGS";

/// What a shard that is full logs, which it then does not survive.
const FATAL_LINE: &str = "full: takes no more connections";

/// A log that lets one line blow up whoever writes it.
struct Fuse;

impl Write for Fuse {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        assert!(!String::from_utf8_lossy(line).contains(FATAL_LINE), "this shard was made to panic");
        io::stderr().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The process is killed when the test is done with it, however that ends.
struct EdgeProcess(Child);

impl EdgeProcess {
    fn start(settings: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "the_edge_itself", "--nocapture"])
            .env(SETTINGS, settings)
            .env_remove("NOTIFY_SOCKET")
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ended = (self.0.kill(), self.0.wait());
    }
}

#[test]
#[ignore = "not a test: the process that the test below starts"]
fn the_edge_itself() {
    let settings = std::env::var(SETTINGS).expect("the test of the panicking shard sets it");
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Fuse).init();
    let config = Config::parse(&Source::new("test.toml", &settings)).unwrap();
    std::process::exit(i32::from(push_daemon::process::serve(&config).is_err()));
}

#[test]
fn an_edge_with_a_shard_that_panicked_says_so_and_stops() {
    let tier = Tier::start();
    let settings = format!(
        "listen.tcp = [\"127.0.0.1:0\"]\nlisten.websocket = [\"127.0.0.1:0\"]\nadmin.listen = \"127.0.0.1:0\"\n\
         trunk.lines = [{{ name = \"A\", address = \"{}\" }}]\nshard.count = 2\nshard.max_connections = 20\n\
         limits.drain_ms = 100\n",
        tier.address()
    );
    let mut edge = EdgeProcess::start(&settings);
    let mut log = edge.0.stderr.take().unwrap();
    let log = thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text)
    });

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
    let status = edge.0.wait().unwrap();
    let log = log.join().unwrap().unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    for words in ["this shard was made to panic", "ended by itself; the edge stops", "shard panicked", "stopped"] {
        assert!(log.contains(words), "{words:?} is not in the log:\n{log}");
    }
    // The other shard's clients were told goodbye; those of the one that panicked had nobody to tell them.
    let told = ends.iter().filter(|operations| operations.last() == Some(&op::DISCONNECT_REPLY)).count();
    assert!((1..=24).contains(&told), "{told} of 49 were told:\n{log}");
}
