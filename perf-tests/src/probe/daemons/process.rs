//! One daemon as a child process.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::DaemonError;
use super::namespace::in_namespace;
use crate::sys;

/// How often a condition is looked at while it is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How much of a log is shown when something fails.
const TAIL_BYTES: u64 = 6 << 10;

/// By what a daemon shows that it is up.
#[derive(Debug, Clone)]
pub enum Ready {
    /// The port takes connections.
    Port(SocketAddr),
    /// The path answers 200.
    Http(SocketAddr, String),
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(address) => write!(f, "{address}"),
            Self::Http(address, path) => write!(f, "http://{address}{path}"),
        }
    }
}

impl Ready {
    fn holds_in(&self, namespace: Option<&Path>) -> bool {
        match namespace {
            None => self.holds(),
            Some(namespace) => in_namespace(namespace, || self.holds()).unwrap_or(false),
        }
    }

    fn holds(&self) -> bool {
        let within = Duration::from_secs(1);
        match self {
            Self::Port(address) => TcpStream::connect_timeout(address, within).is_ok(),
            Self::Http(address, path) => (|| {
                let mut socket = TcpStream::connect_timeout(address, within)?;
                socket.set_read_timeout(Some(within))?;
                write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
                let mut status = [0; 12];
                socket.read_exact(&mut status)?;
                std::io::Result::Ok(&status[9..] == b"200")
            })()
            .unwrap_or(false),
        }
    }
}

/// One daemon: its binary, its configuration, its log, and at times a process.
///
/// Dropping it kills the process and, when the test is failing, prints the tail of the log.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    ready: Ready,
    /// The network namespace that it runs in, as a path; ours when none.
    namespace: Option<PathBuf>,
    /// Where it logs to instead of its file.
    log_elsewhere: Option<OwnedFd>,
    child: Option<Child>,
}

impl Daemon {
    /// A daemon that is not started yet. Its configuration and its log are `NAME.toml` and `NAME.log` in `directory`.
    ///
    /// # Errors
    /// [`DaemonError::NoBinary`], or [`DaemonError::Io`] when the configuration cannot be written.
    pub fn new(name: &str, directory: &Path, toml: &str, ready: Ready) -> Result<Self, DaemonError> {
        let binary = binary(name)?;
        let config = directory.join(format!("{name}.toml"));
        fs::write(&config, toml).map_err(DaemonError::io(format!("write {}", config.display())))?;
        let log = directory.join(format!("{name}.log"));
        Ok(Self {
            name: name.to_owned(),
            binary,
            config,
            log,
            ready,
            namespace: None,
            log_elsewhere: None,
            child: None,
        })
    }

    /// Runs it in another network namespace (`/run/netns/NAME`), where it is then looked for as well. Takes root.
    #[must_use]
    pub fn inside(mut self, namespace: Option<&Path>) -> Self {
        self.namespace = namespace.map(Path::to_path_buf);
        self
    }

    /// From its next start on it writes its log into `log`, a pipe of the test's, and no longer into its file.
    pub fn log_into(&mut self, log: OwnedFd) {
        self.log_elsewhere = Some(log);
    }

    /// Starts it on its configuration and waits until it is ready. Its log goes on where it was.
    ///
    /// # Errors
    /// [`DaemonError`] when it ends or stays silent instead; it does not run then.
    pub fn start(&mut self, within: Duration) -> Result<(), DaemonError> {
        self.kill9();
        let open_log = || OpenOptions::new().create(true).append(true).open(&self.log);
        let out = open_log().map_err(DaemonError::io(format!("open {}", self.log.display())))?;
        let err = match &self.log_elsewhere {
            Some(log) => log.try_clone(),
            None => out.try_clone().map(OwnedFd::from),
        };
        let err = err.map_err(DaemonError::io("share a log between two streams"))?;
        let mut command = match &self.namespace {
            None => Command::new(&self.binary),
            // It becomes the daemon: the same process, and no mount namespace of its own, which `ip netns exec` makes.
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg("--").arg(&self.binary);
                command
            }
        };
        command.arg("--config").arg(&self.config).stdin(Stdio::null()).stdout(out).stderr(err);
        // A unit's environment must not make the child talk to somebody else's manager.
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env("NO_COLOR", "1");
        // A Ctrl-C on the terminal is for us: we end the child when we have said what we know of it.
        command.process_group(0);
        sys::die_with_spawner(&mut command);
        let doing = format!("start {}", self.binary.display());
        self.child = Some(spawn(command).map_err(DaemonError::io(doing))?);
        self.wait_ready(within)
    }

    fn wait_ready(&mut self, within: Duration) -> Result<(), DaemonError> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                self.child = None;
                let (name, log) = (self.name.clone(), self.log_tail());
                return Err(DaemonError::Ended { name, status: status.to_string(), log });
            }
            if self.ready.holds_in(self.namespace.as_deref()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.kill9();
                let (name, log) = (self.name.clone(), self.log_tail());
                return Err(DaemonError::NotReady { name, ready: self.ready.to_string(), within, log });
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when the child has already been waited for, which `take` rules out.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it if it runs, and starts it again on the same directories.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn restart(&mut self, within: Duration) -> Result<(), DaemonError> {
        self.start(within)
    }

    /// Asks it to end, as a service manager does, and waits for its exit status.
    ///
    /// # Errors
    /// [`DaemonError::NotStopped`] when it does not; it is killed then.
    pub fn stop(&mut self, within: Duration) -> Result<Option<ExitStatus>, DaemonError> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + within;
        while self.child.is_some() {
            if let Some(status) = self.ended()? {
                self.child = None;
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                self.kill9();
                return Err(DaemonError::NotStopped { name: self.name.clone(), within });
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(None)
    }

    /// Sends it a signal; nothing happens when it does not run.
    ///
    /// # Errors
    /// [`DaemonError::Io`] when the system does not let us.
    pub fn signal(&self, signal: Signal) -> Result<(), DaemonError> {
        let Some(pid) = self.pid() else { return Ok(()) };
        kill_process(pid, signal).map_err(|error| DaemonError::io(format!("signal {}", self.name))(error.into()))
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.as_ref()?.id()).ok()?)
    }

    /// Its exit status, once it has ended by itself.
    ///
    /// # Errors
    /// [`DaemonError::Io`] when the system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, DaemonError> {
        let Some(child) = &mut self.child else { return Ok(None) };
        child.try_wait().map_err(DaemonError::io(format!("ask after {}", self.name)))
    }

    /// Where its configuration is, for a test that edits it before a restart.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// All that it has logged.
    ///
    /// # Errors
    /// [`DaemonError::Io`] when the log cannot be read.
    pub fn log(&self) -> Result<String, DaemonError> {
        let bytes = fs::read(&self.log).map_err(DaemonError::io(format!("read {}", self.log.display())))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_tail(&self) -> String {
        (|| {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut tail)?;
            std::io::Result::Ok(String::from_utf8_lossy(&tail).into_owned())
        })()
        .unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            eprintln!("---- {} logged, at the end:\n{}---- end of the log", self.name, self.log_tail());
        }
    }
}

/// Where the binary `name` is: beside our own executable. `PUSH_BIN_DIR` decides alone when it is set: a stale binary found
/// elsewhere would be worse than none.
///
/// # Errors
/// [`DaemonError::NoBinary`].
pub fn binary(name: &str) -> Result<PathBuf, DaemonError> {
    let looked_in = match std::env::var_os("PUSH_BIN_DIR") {
        Some(directory) => vec![PathBuf::from(directory)],
        None => {
            let own = std::env::current_exe().map_err(DaemonError::io("find our own executable"))?;
            // target/PROFILE/deps/TEST: the binaries are one floor up. target/PROFILE/perf-tests: beside it.
            own.ancestors().skip(1).take(2).map(Path::to_path_buf).collect()
        }
    };
    match looked_in.iter().map(|directory| directory.join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => Err(DaemonError::NoBinary { name: name.to_owned(), looked_in }),
    }
}

/// The kernel kills a child with the thread that spawned it. A test's thread may end before a stack that several tests
/// share, so all children are spawned by one thread that lives as long as the process.
fn spawn(command: Command) -> std::io::Result<Child> {
    type Job = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // A caller that is gone drops the child's handle, not the child; it then dies with this process.
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let gone = || std::io::Error::other("the spawning thread is gone");
    let (reply, child) = channel();
    spawner.send((command, reply)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::test_kill_process;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::sync::{Mutex, PoisonError};
    use tempfile::TempDir;

    const SOON: Duration = Duration::from_secs(10);

    /// One test at a time: a fork of another one while a script is being written would keep it open for writing, and then
    /// it cannot be run ("text file busy").
    static ALONE: Mutex<()> = Mutex::new(());

    /// A daemon that is a shell script, and is ready when `ready` takes connections.
    fn scripted(directory: &TempDir, script: &str, ready: SocketAddr) -> Daemon {
        let binary = directory.path().join("scripted");
        fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let [config, log] = ["scripted.toml", "scripted.log"].map(|name| directory.path().join(name));
        Daemon {
            name: "scripted".to_owned(),
            binary,
            config,
            log,
            ready: Ready::Port(ready),
            namespace: None,
            log_elsewhere: None,
            child: None,
        }
    }

    fn a_port() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn wait_for_log(daemon: &Daemon, words: &str) {
        let deadline = Instant::now() + SOON;
        while !daemon.log().unwrap().contains(words) {
            assert!(Instant::now() < deadline, "{words:?} was never logged");
            thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn it_is_killed_restarted_stopped_and_never_left_behind() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, (_listener, address)) = (TempDir::new().unwrap(), a_port());
        let mut daemon = scripted(&directory, "echo started with $1 $2; exec sleep 600", address);
        daemon.start(SOON).unwrap();
        wait_for_log(&daemon, "started with --config");
        let first = daemon.pid().unwrap();
        daemon.kill9();
        assert!(test_kill_process(first).is_err(), "killed and waited for");
        daemon.restart(SOON).unwrap();
        let second = daemon.pid().unwrap();
        assert_ne!(first, second);
        assert_eq!(daemon.stop(SOON).unwrap().unwrap().signal(), Some(15));
        assert_eq!(daemon.stop(SOON).unwrap(), None, "it no longer runs");
        daemon.restart(SOON).unwrap();
        let third = daemon.pid().unwrap();
        drop(daemon);
        assert!(test_kill_process(third).is_err(), "dropping it ends it");
    }

    #[test]
    fn one_that_ends_or_stays_silent_shows_its_log() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, (listener, address)) = (TempDir::new().unwrap(), a_port());
        drop(listener);
        let mut daemon = scripted(&directory, "echo no such key >&2; exit 3", address);
        let said = daemon.start(SOON).unwrap_err().to_string();
        assert!(said.contains("exit status: 3") && said.contains("no such key"), "{said}");

        let mut daemon = scripted(&directory, "exec sleep 600", address);
        let error = daemon.start(Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, DaemonError::NotReady { .. }), "{error}");
        assert!(daemon.pid().is_none(), "it does not run on");
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, (_listener, address)) = (TempDir::new().unwrap(), a_port());
        let mut daemon = scripted(&directory, "trap '' TERM; echo deaf; while :; do sleep 1; done", address);
        daemon.start(SOON).unwrap();
        wait_for_log(&daemon, "deaf");
        assert!(matches!(daemon.stop(Duration::from_millis(200)), Err(DaemonError::NotStopped { .. })));
        assert!(daemon.pid().is_none());
    }
}
