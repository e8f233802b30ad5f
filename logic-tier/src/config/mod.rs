//! The config: one TOML file, every key optional, every mistake named by file, line, column and the nearest valid key.
//!
//! It opens nothing but the file and the secret files that it names, and binds nothing.
//!
//! Layout: this file has the sections and their defaults · `exposure` what may not be opened to the world by accident.
//! What a single value may be, and what is said of a mistake, is the crate `settings`.

mod exposure;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use settings::{Bounded, ListenAddress, Secret, SettingsError, Source};

/// HS256 wants a key at least as long as its hash (RFC 7518 section 3.2).
const MIN_TOKEN_SECRET_BYTES: usize = 32;

/// The longest message that any setting may allow: with its targets it must fit one trunk frame.
pub const MAX_MESSAGE_BYTES: u64 = 1 << 20;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The publisher API.
    pub http: Http,
    /// Where edges come in.
    pub trunk: Trunk,
    /// The log between the API and the edges.
    pub bus: Bus,
    /// How messages are merged on their way to the edges.
    pub job: Job,
    /// Who may enter.
    pub admission: Admission,
    /// What clients send.
    pub chat: Chat,
    /// Who is online.
    pub sessions: Sessions,
    /// What clients are told about edges.
    pub nodes: Nodes,
}

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    pub listen: ListenAddress,
    /// Any of these lets a publisher in. None: no key is asked for.
    pub api_keys: Vec<Secret>,
    /// The longest message; a longer one is answered with 413.
    pub max_body_bytes: Bounded<1, MAX_MESSAGE_BYTES>,
    /// Keys or mids that one push may name. They stand in the URL, which HTTP libraries end at 64 KiB.
    pub max_targets: Bounded<1, 4_000>,
    /// Connections at one time; more wait in the listener's backlog.
    pub max_connections: Bounded<1, 1_000_000>,
    /// A request that takes longer to arrive is cut off.
    pub request_timeout_ms: Bounded<100, 600_000>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: ListenAddress::loopback(3111),
            api_keys: Vec::new(),
            max_body_bytes: Bounded::new(64 << 10),
            max_targets: Bounded::new(1_000),
            max_connections: Bounded::new(4_096),
            request_timeout_ms: Bounded::new(10_000),
        }
    }
}

/// `[trunk]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trunk {
    /// Address and port.
    pub listen: ListenAddress,
    /// What edges have to know. Empty: nothing.
    pub secret: Secret,
    /// A file that holds the secret; a line end behind it does not count.
    pub secret_file: Option<PathBuf>,
    /// Both ends speak at least this often; twice as long in silence is death.
    pub ping_interval_ms: Bounded<50, 600_000>,
    /// A line that has not said `Hello` by then is closed.
    pub hello_timeout_ms: Bounded<50, 600_000>,
    /// Lines at one time, over all edges.
    pub max_lines: Bounded<1, 100_000>,
    /// Lines of one edge at one time.
    pub max_lines_per_edge: Bounded<1, 64>,
    /// Answers that wait for one line to take them; behind that the line's requests wait.
    pub answer_queue: Bounded<16, 1_000_000>,
}

impl Default for Trunk {
    fn default() -> Self {
        Self {
            listen: ListenAddress::loopback(3119),
            secret: Secret::default(),
            secret_file: None,
            ping_interval_ms: Bounded::new(5_000),
            hello_timeout_ms: Bounded::new(5_000),
            max_lines: Bounded::new(1_024),
            max_lines_per_edge: Bounded::new(8),
            answer_queue: Bounded::new(4_096),
        }
    }
}

/// `[bus]`
///
/// There is no mode that answers before the disk has it: an offset that was sent to an edge and then forgotten in a
/// crash would be given out again, and the edge would drop the second message as a copy of the first.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bus {
    /// Where it lives. Unset: see [`default_bus_directory`].
    pub directory: Option<PathBuf>,
    /// Ordered strands of the log; fixed when the bus is created.
    pub partitions: Bounded<1, 1_024>,
    /// Records above this are trimmed, oldest first. The file is larger: a store of pages has room between records.
    pub retention_bytes: Bounded<{ 1 << 16 }, { 1 << 40 }>,
    /// Records older than this are trimmed.
    pub retention_age_s: Bounded<1, 31_536_000>,
    /// How long a commit waits for company. 0: it takes what came while the last one was written.
    pub commit_window_ms: Bounded<0, 1_000>,
    /// Records of one commit at most.
    pub commit_records: Bounded<1, 65_536>,
    /// Bytes of messages that wait for a commit; behind that a push is answered "busy" and a chat waits.
    pub append_bytes: Bounded<{ 4 << 20 }, { 1 << 31 }>,
    /// Memory for pages of the store.
    pub cache_bytes: Bounded<{ 1 << 20 }, { 1 << 36 }>,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            directory: None,
            partitions: Bounded::new(4),
            retention_bytes: Bounded::new(1 << 30),
            retention_age_s: Bounded::new(24 * 3_600),
            commit_window_ms: Bounded::new(0),
            commit_records: Bounded::new(4_096),
            append_bytes: Bounded::new(64 << 20),
            cache_bytes: Bounded::new(64 << 20),
        }
    }
}

/// `[job]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Job {
    /// Packets of one frame at most.
    pub merge_packets: Bounded<1, 65_536>,
    /// Bytes of one frame, roughly, at most. A single larger message still goes, alone.
    pub merge_bytes: Bounded<1_024, { 2 << 20 }>,
    /// How long a message waits for others. 0: it leaves at once, with what is there.
    pub merge_ms: Bounded<0, 10_000>,
    /// Frames kept ready for lines at the tail, per partition; a line further behind reads the bus.
    pub ready_bytes: Bounded<{ 4 << 20 }, { 1 << 32 }>,
    /// Lines that read the bus at the same moment; the others wait their turn.
    pub replays: Bounded<1, 256>,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            merge_packets: Bounded::new(1_024),
            merge_bytes: Bounded::new(256 << 10),
            merge_ms: Bounded::new(0),
            ready_bytes: Bounded::new(16 << 20),
            replays: Bounded::new(4),
        }
    }
}

/// How a client proves that it may enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdmissionMode {
    /// It need not.
    Open,
    /// With a JWT, HS256.
    Token,
}

/// `[admission]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admission {
    /// See [`AdmissionMode`].
    pub mode: AdmissionMode,
    /// The HS256 key, as text.
    pub secret: Secret,
    /// A file that holds the key; a line end behind it does not count.
    pub secret_file: Option<PathBuf>,
    /// Clocks may differ by this much when an expiry is judged.
    pub leeway_s: Bounded<0, 3_600>,
    /// Whether a client may bring its own key. Who does takes it from the session that had it.
    pub client_keys: bool,
    /// "I know that anybody can get in": without it nothing but loopback is served without admission and keys.
    pub allow_open: bool,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            mode: AdmissionMode::Open,
            secret: Secret::default(),
            secret_file: None,
            leeway_s: Bounded::new(5),
            client_keys: true,
            allow_open: false,
        }
    }
}

/// `[chat]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chat {
    /// The operation under which clients' messages come back to the room.
    pub operation: Bounded<1_000, { i32::MAX as u64 }>,
    /// The longest message of a client.
    pub max_body_bytes: Bounded<1, 4_096>,
}

impl Default for Chat {
    fn default() -> Self {
        Self { operation: Bounded::new(1_000), max_body_bytes: Bounded::new(4_096) }
    }
}

/// `[sessions]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Sessions known at one time; more are counted as overflow and not online.
    pub max: Bounded<1, 100_000_000>,
    /// How long an edge without a line keeps its sessions.
    pub grace_ms: Bounded<0, 3_600_000>,
    /// How often edges hear of changed room counts.
    pub counts_interval_ms: Bounded<50, 600_000>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { max: Bounded::new(4_000_000), grace_ms: Bounded::new(30_000), counts_interval_ms: Bounded::new(1_000) }
    }
}

/// `[nodes]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nodes {
    /// The name to fall back on, and the only one when no edge is up.
    pub default_domain: String,
    /// Written behind the host name of each edge, such as ".example.org".
    pub host_domain: String,
    /// The port to tell. Unset: what the first edge of the answer says.
    pub tcp_port: Option<u16>,
    /// The same for WebSocket.
    pub ws_port: Option<u16>,
    /// The same for WebSocket over TLS.
    pub wss_port: Option<u16>,
    /// Seconds between heartbeats.
    pub heartbeat_s: Bounded<1, 86_400>,
    /// Heartbeats that may fail before a client reconnects.
    pub heartbeat_max: Bounded<1, 1_000>,
    /// How clients shall space their attempts to reconnect.
    pub backoff: Backoff,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            default_domain: "localhost".to_owned(),
            host_domain: String::new(),
            tcp_port: None,
            ws_port: None,
            wss_port: None,
            heartbeat_s: Bounded::new(240),
            heartbeat_max: Bounded::new(2),
            backoff: Backoff::default(),
        }
    }
}

/// `[nodes.backoff]`: told to clients, not used here.
#[derive(Debug, Clone, Copy, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// Seconds at most.
    pub max_delay: i32,
    /// Seconds at first.
    pub base_delay: i32,
    /// Growth from one attempt to the next.
    pub factor: f32,
    /// Share of a delay that is left to chance.
    pub jitter: f32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { max_delay: 300, base_delay: 3, factor: 1.8, jitter: 0.3 }
    }
}

impl Config {
    /// Reads, checks and completes the config in `path`.
    ///
    /// # Errors
    /// [`SettingsError`] says where the mistake is and what would be right.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        Self::parse(&Source::read(path)?)
    }

    /// The same for a text that was already read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(source: &Source) -> Result<Self, SettingsError> {
        let mut config: Self = source.parse()?;
        let (trunk, admission) = (&mut config.trunk, &mut config.admission);
        trunk.secret = source.secret("trunk", &trunk.secret, trunk.secret_file.as_deref())?;
        admission.secret = source.secret("admission", &admission.secret, admission.secret_file.as_deref())?;
        config.check_token(source)?;
        exposure::check(&config, source)?;
        Ok(config)
    }

    fn check_token(&self, source: &Source) -> Result<(), SettingsError> {
        let length = self.admission.secret.as_bytes().len();
        if self.admission.mode != AdmissionMode::Token || length >= MIN_TOKEN_SECRET_BYTES {
            return Ok(());
        }
        let what = if length == 0 {
            "mode = \"token\" needs the HS256 key: set secret or secret_file in [admission]".to_owned()
        } else {
            format!("the HS256 key has {length} bytes; it needs at least {MIN_TOKEN_SECRET_BYTES}")
        };
        Err(source.wrong("admission.mode", what))
    }
}

/// Where the bus lives when the config does not say: under systemd's state directory, else under the user's.
///
/// `variable` looks up an environment variable. `None`: none of them is set, and the config has to say.
#[must_use]
pub fn default_bus_directory(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(directories) = set("STATE_DIRECTORY") {
        // systemd separates several by a colon; the first one is ours.
        return directories.split(':').next().map(|first| Path::new(first).join("bus"));
    }
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/state")));
    state.map(|state| state.join("push-appliance/bus"))
}
