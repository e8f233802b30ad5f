//! What the tests stand on: the real binary on free ports, a publisher, and an edge that speaks the trunk.

// Each test file is a crate of its own and uses its part of this.
#![allow(dead_code, unreachable_pub)]

pub mod edge;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What takes longer than this does not happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The real binary, killed when dropped.
pub struct Daemon {
    child: Child,
    pub http: SocketAddr,
    pub trunk: SocketAddr,
}

/// What a run of the binary that ends by itself says.
pub struct Said {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// A config in `directory` with the ports and the bus of a test, and `more` lines of TOML.
///
/// `more` may begin with keys of `[bus]` and then go on with other sections, `[http]` and `[trunk]` excepted: their
/// keys are given as `http` and `trunk`.
pub fn write_config(directory: &Path, http: &str, trunk: &str, more: &str) -> PathBuf {
    let path = directory.join("logic-tier.toml");
    let bus = directory.join("bus");
    let text = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n{http}\n[trunk]\nlisten = \"127.0.0.1:0\"\n{trunk}\n\
         [bus]\ndirectory = \"{}\"\n{more}\n",
        bus.display()
    );
    std::fs::write(&path, text).expect("the test's directory can be written");
    path
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_logic-tier"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary was built for this test");
    Said {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Daemon {
    /// Starts it and waits until it serves.
    pub fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(config: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logic-tier"));
        command.envs(variables.iter().copied());
        Self::spawn(command, config)
    }

    /// The same on a disk that is full as soon as a file has `kib` KiB.
    pub fn start_on_small_disk(config: &Path, kib: u32) -> Self {
        let mut command = Command::new("bash");
        let limit = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
        command.args(["-c", &limit, env!("CARGO_BIN_EXE_logic-tier")]);
        Self::spawn(command, config)
    }

    fn spawn(mut command: Command, config: &Path) -> Self {
        let mut child = command
            .arg("--config")
            .arg(config)
            .env("RUST_LOG", "off")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("stdout can be read");
        let address = |name: &str| -> SocketAddr {
            let after = line.split_once(name).unwrap_or_else(|| panic!("no `{name}` in `{line}`")).1;
            after.split(',').next().and_then(|text| text.trim().parse().ok()).expect("an address follows")
        };
        Self { http: address("HTTP on "), trunk: address("trunk on "), child }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }

    /// Whether it ended well by itself.
    pub fn wait(mut self) -> bool {
        self.child.wait().expect("the child is ours").success()
    }

    /// Whether it ended well after SIGTERM.
    pub fn terminate(mut self) -> bool {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the child was not waited for");
        self.child.wait().expect("the child is ours").success()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls `condition` until it gives something.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Why there is no answer.
pub type NoAnswer = ureq::Error;

/// One client of the API, with connections of its own.
pub struct Publisher {
    agent: ureq::Agent,
    base: String,
    key: Option<String>,
}

impl Publisher {
    pub fn new(http: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build();
        Self { agent: config.into(), base: format!("http://{http}"), key: None }
    }

    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub fn try_post(&self, path: &str, body: &[u8]) -> Result<Answer, NoAnswer> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("X-Api-Key", key);
        }
        let mut response = request.send(body)?;
        Ok(Answer { status: response.status().as_u16(), body: response.body_mut().read_to_string()? })
    }

    pub fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.try_post(path, body).expect("the tier answers")
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().expect("the tier answers");
        let body = response.body_mut().read_to_string().expect("the body is text");
        Answer { status: response.status().as_u16(), body }
    }

    pub fn get(&self, path: &str) -> Answer {
        match &self.key {
            Some(key) => self.get_with(path, &[("X-Api-Key", key)]),
            None => self.get_with(path, &[]),
        }
    }

    /// Pushes to room `live://{room}` and expects success.
    pub fn room(&self, room: &str, body: &str) {
        let answer = self.post(&format!("/goim/push/room?operation=1000&type=live&room={room}"), body.as_bytes());
        assert_eq!(answer, accepted(), "push to {room}");
    }

    /// The value of a metric; `line` is the start of its line up to the value.
    pub fn metric(&self, line: &str) -> u64 {
        let text = self.get("/metrics").body;
        let found = text.lines().find_map(|candidate| candidate.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or(0)
    }
}

/// What goim says to a push that it took.
pub fn accepted() -> Answer {
    Answer { status: 200, body: r#"{"code":0,"message":""}"#.to_owned() }
}
