//! An edge in a process of its own, which is the test binary again, that panics in the shard that is first to be full: the one
//! writer of its log does so at the line that this shard writes. The edge's code is the same as ever.
//!
//! A test file that uses it has an ignored test `the_edge_itself` that calls [`run`].
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use push_daemon::config::Config;
use rustix::process::{Signal, set_parent_process_death_signal};
use settings::Source;

/// Names the settings of the process that is the edge.
const SETTINGS: &str = "PUSH_TEST_EDGE_SETTINGS";

/// What a shard that is full logs, which it then does not survive.
const FATAL_LINE: &str = "full: takes no more connections";

/// What the log says of that.
pub(crate) const MADE_TO_PANIC: &str = "this shard was made to panic";

/// A log that lets one line blow up whoever writes it.
struct Fuse;

impl Write for Fuse {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        assert!(!String::from_utf8_lossy(line).contains(FATAL_LINE), "{MADE_TO_PANIC}");
        io::stderr().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Is the edge until it ends.
pub(crate) fn run() {
    let settings = std::env::var(SETTINGS).expect("the test of the panicking shard sets it");
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Fuse).init();
    let config = Config::parse(&Source::new("test.toml", &settings)).unwrap();
    std::process::exit(i32::from(push_daemon::process::serve(&config).is_err()));
}

/// The process is killed when the test is done with it, however that ends.
pub(crate) struct EdgeProcess {
    child: Child,
    log: Option<JoinHandle<io::Result<String>>>,
}

impl EdgeProcess {
    pub(crate) fn start(settings: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "the_edge_itself", "--nocapture"])
            .env(SETTINGS, settings)
            .env_remove("NOTIFY_SOCKET")
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).map(|_| text)
        });
        Self { child, log: Some(log) }
    }

    /// Waits until it has ended as one does of which a shard panicked, and gives its log.
    pub(crate) fn ended(mut self) -> String {
        let status = self.child.wait().unwrap();
        let log = self.log.take().unwrap().join().unwrap().unwrap();
        assert_eq!(status.code(), Some(1), "{log}");
        for words in [MADE_TO_PANIC, "ended by itself; the edge stops", "shard panicked", "stopped"] {
            assert!(log.contains(words), "{words:?} is not in the log:\n{log}");
        }
        log
    }
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ended = (self.child.kill(), self.child.wait());
    }
}
