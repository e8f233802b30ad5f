//! Third-party clients as child processes: npm packages, pinned by the lock file beside this one, with a small script
//! that prints what they report.
//!
//! They are installed once into `target/peers` and again when the lock file or a script changes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What is installed: by name, and as the checkout has it.
const FILES: [(&str, &str); 3] = [
    ("package.json", include_str!("package.json")),
    ("package-lock.json", include_str!("package-lock.json")),
    ("bilibili.mjs", include_str!("bilibili.mjs")),
];

/// Lines that a peer may print before the test takes them; it prints a few dozen.
const MAX_KEPT_LINES: usize = 10_000;

/// The folder with the peers in it, installed; or why there is none.
///
/// # Errors
/// What is missing, in the words of who has to bring it.
pub(crate) fn install() -> Result<PathBuf, String> {
    // Cargo gives tests `target/tmp`; what outlives a test run stands beside it.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("cargo named no target directory")?;
    let folder = target.join("peers");
    version_of("node")?;
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let lock = File::create(folder.join("installing")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.map_err(|error| format!("cannot lock {}: {error}", folder.display()))?;

    let stamp = folder.join("installed");
    let wanted = FILES.map(|(_, text)| text).concat();
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    version_of("npm")?;
    for (name, text) in FILES {
        write(&folder.join(name), text)?;
    }
    eprintln!("installing the third-party clients into {} (npm ci)", folder.display());
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .output()
        .map_err(|error| format!("cannot run npm: {error}"))?;
    if !output.status.success() {
        return Err(format!("npm ci failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    write(&stamp, &wanted)?;
    Ok(folder)
}

fn version_of(program: &str) -> Result<(), String> {
    match Command::new(program).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program} --version says {}", output.status)),
        Err(error) => Err(format!("{program} does not run: {error} (cargo xtask setup)")),
    }
}

/// How tiny-bilibili-ws connects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bilibili {
    /// `ws` or `tcp`.
    pub(crate) transport: &'static str,
    pub(crate) edge: SocketAddr,
    pub(crate) room: u64,
    /// The highest body format that it takes, 0 to 3.
    pub(crate) protover: u8,
}

/// A running peer. Dropping it ends it.
pub(crate) struct Peer {
    pub(crate) name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// What was reported and not taken, in order.
    kept: Vec<Value>,
}

impl Peer {
    /// Starts tiny-bilibili-ws from `folder`, where [`install`] put it.
    pub(crate) fn bilibili(folder: &Path, settings: Bilibili) -> Self {
        let Bilibili { transport, edge, room, protover } = settings;
        let (host, port) = (edge.ip(), edge.port());
        let argument = json!({ "transport": transport, "host": host, "port": port, "path": "sub", "room": room, "protover": protover });
        let mut child = Command::new("node")
            .args(["bilibili.mjs", &argument.to_string()])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node ran before");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("it is a pipe"));
        let (reported, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok).take(MAX_KEPT_LINES) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "event": "noise", "data": line }));
                if reported.send(line).is_err() {
                    return;
                }
            }
        });
        let name = format!("tiny-bilibili-ws on {transport}, protover {protover}");
        Self { name, child, input, lines, kept: Vec::new() }
    }

    /// Waits for a report of `event` that `is_it`, and gives its data. Reports before it are passed over.
    ///
    /// # Panics
    /// When it does not come in time, or the library reports that something broke.
    pub(crate) fn wait_for(&mut self, event: &str, within: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            let report = match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(report) => report,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: no {event} in {within:?}, only {:?}", self.name, self.kept)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("{}: it ended; it said {:?}", self.name, self.kept),
            };
            let what = report["event"].as_str().unwrap_or_default();
            assert!(!["broken", "error", "noise"].contains(&what), "{}: {report}", self.name);
            let data = report["data"].clone();
            let found = what == event && is_it(&data);
            self.kept.push(report);
            if found {
                return data;
            }
        }
    }

    /// How many reports of `event` were seen so far that `is_it`.
    pub(crate) fn seen(&self, event: &str, is_it: impl Fn(&Value) -> bool) -> usize {
        self.kept.iter().filter(|report| report["event"] == event && is_it(&report["data"])).count()
    }

    /// Sends a message to the room, as the library's user would.
    pub(crate) fn send(&mut self, body: &Value) {
        let input = self.input.as_mut().expect("it is open until the peer ends");
        writeln!(input, "{body}").expect("the peer reads");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
