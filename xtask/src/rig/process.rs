//! A daemon as a child process, with its log in a file.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take to end after SIGTERM; the edge's drain is 2 s.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How often a child or a port is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Lines of the log that are shown when a daemon fails.
const SHOWN_LINES: usize = 12;

/// A running daemon; dropping it ends it.
pub(crate) struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `binary`, in `namespace` if one is named; its output goes to a file in `directory`.
    pub(crate) fn start(
        name: &'static str,
        binary: &Path,
        config: &Path,
        namespace: Option<&str>,
        directory: &Path,
    ) -> Result<Self, String> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        // Both of these become what follows them (exec), so the child's id is the daemon's. The first sees to it that
        // the daemon does not outlive us, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]);
        if let Some(namespace) = namespace {
            command.arg("nsenter").arg(format!("--net={}", super::network::namespace_path(namespace).display()));
        }
        command.arg(binary);
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self { name, child, log })
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What to tell the user when it has ended by itself.
    pub(crate) fn obituary(&self, status: ExitStatus) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
        format!("{} ended: {status}; the end of {}:\n  {tail}", self.name, self.log.display())
    }

    /// Waits until `is_ready`, as long as the daemon lives.
    pub(crate) fn wait_until(&mut self, patience: Duration, is_ready: impl Fn() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        while !is_ready() {
            if let Some(status) = self.ended() {
                return Err(self.obituary(status));
            }
            if Instant::now() > deadline {
                return Err(format!("{} is not ready after {patience:?}; see {}", self.name, self.log.display()));
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // The child was not waited for, so its id is still its own.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && kill_process(pid, Signal::TERM).is_ok()
        {
            let deadline = Instant::now() + STOP_PATIENCE;
            while Instant::now() < deadline {
                if self.ended().is_some() {
                    return;
                }
                thread::sleep(LOOK_INTERVAL);
            }
        }
        eprintln!("xtask: {} does not end; kills it", self.name);
        // It may have ended in this very moment, which is what we want.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether `GET path` is answered by 200.
pub(crate) fn answers(address: SocketAddr, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
