//! The daemon's settings: TOML, every key with a default, and checks that a single value cannot make.
//!
//! Without a file the daemon meets a logic tier on loopback, without a kernel plane. Files are read by
//! `settings`, which names file, line and the nearest valid key when something is wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use settings::{Bounded, ListenAddress, Secret, SettingsError, Source};

use crate::kernel::KernelConfig;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this edge is.
    pub node: Node,
    /// Where clients come in.
    pub listen: Listen,
    /// Where operators look.
    pub admin: Admin,
    /// Where packets come from.
    pub trunk: Trunk,
    /// The event loops.
    pub shard: Shard,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// The Bilibili dialect.
    pub bilibili: Bilibili,
    /// The XDP filter; without this table there is no kernel plane.
    pub kernel: Option<KernelConfig>,
}

/// Who this edge is, as the logic tier and the nodes service know it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Unique among edges, stable over restarts.
    pub name: String,
    /// Unique among edges; stands in every key.
    pub number: u16,
    /// Name by which clients reach it; empty for none.
    pub hostname: String,
    /// Addresses by which clients reach it; empty means those it listens on.
    pub addresses: Vec<String>,
    /// Where it stands, for the nodes service.
    pub region: String,
    /// Where in the region.
    pub zone: String,
    /// Its share of new clients relative to other edges.
    pub weight: u32,
}

/// Where clients come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// goim packets on TCP.
    pub tcp: Vec<ListenAddress>,
    /// WebSocket, path `/sub`.
    pub websocket: Vec<ListenAddress>,
    /// Connections that the kernel holds until they are accepted; net.core.somaxconn is its bound.
    pub backlog: Bounded<1, { i32::MAX as u64 }>,
}

/// Where operators look.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The live page, `/metrics`, `/stats`, `/healthz`. It has no access control of its own.
    pub listen: ListenAddress,
}

/// The upstream link.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trunk {
    /// Lines that carry the same stream; one is enough.
    pub lines: Vec<Line>,
    /// What the tier asks every edge for, empty for none.
    pub secret: Secret,
    /// A file that holds the secret; a line end behind it does not count.
    pub secret_file: Option<PathBuf>,
    /// Longest pause between two attempts to open a line.
    pub reconnect_max_ms: Bounded<100, 600_000>,
    /// After frames were read from a line, how long the next ones gather before they are read, in milliseconds, times the
    /// shards that share a CPU. The first frame after a quiet time goes at once.
    pub gather_ms: Bounded<0, 1_000>,
    /// News from shards that may wait for the trunk.
    pub news_queue: Bounded<1_024, { 1 << 24 }>,
    /// Auth requests and messages that may be upstream without an answer.
    pub pending: Bounded<1, { 1 << 24 }>,
}

/// One line of the trunk.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// For logs and metrics.
    pub name: String,
    /// `host:port` of a logic tier.
    pub address: String,
}

/// The event loops.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shard {
    /// How many; 0 is one per CPU, and more when `max_connections` needs more descriptor tables.
    pub count: u16,
    /// Keep each shard on one CPU.
    pub pin: bool,
    /// How sends reach the kernel.
    pub send: SendPath,
    /// How long a message waits for others of its room, in milliseconds: fewer writes for later arrival. 0 sends at
    /// once, and merges only what comes while a round is under way.
    pub merge_ms: MergeWindow,
    /// The same for rooms of one type: what stands before `://`.
    pub merge_ms_by_type: BTreeMap<String, MergeWindow>,
    /// How long a shard that has just heard clients lets others speak up before it looks again, in milliseconds: fewer
    /// wakings for later answers. Orders and new connections never wait for it. 0 looks at once. Where several shards
    /// share a CPU each rests as many times longer, up to a quarter of a second.
    pub rest_ms: Bounded<0, 1_000>,
    /// Connections that the whole edge holds. The kernel spreads clients unevenly, so a shard takes a few more than its
    /// share.
    pub max_connections: Bounded<1, 100_000_000>,
    /// Orders that may wait for a shard.
    pub order_queue: Bounded<1, { 1 << 20 }>,
    /// Connections taken in between two polls.
    pub accepts_per_turn: Bounded<1, { 1 << 16 }>,
    /// Sends of one round before the next has its turn.
    pub slice_sends: Bounded<1, { 1 << 20 }>,
    /// Sends between two polls.
    pub turn_sends: Bounded<1, { 1 << 20 }>,
    /// Bytes of packets that may wait in one shard for rounds under way.
    pub backlog_bytes: Bounded<0, { 1 << 36 }>,
    /// The longest block: how much merges when a room is behind.
    pub block_bytes: Bounded<1_024, { 4 << 20 }>,
}

/// A merge window in milliseconds; goim's is a second.
pub type MergeWindow = Bounded<0, 10_000>;

/// How a slice of sends reaches the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SendPath {
    /// io_uring where the kernel has it and nothing forbids it, else `plain`.
    #[default]
    Auto,
    /// io_uring, or no start.
    Ring,
    /// A system call for each send.
    Plain,
}

/// A time-out of the data plane. The shard's clock tells differences below 24 days.
pub type Timeout = Bounded<100, { 7 * 24 * 3_600 * 1_000 }>;

/// Bounds on what clients may do.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From accept to being in (goim: 8 s).
    pub handshake_timeout_ms: Timeout,
    /// Silence after which a client is gone (goim: two heartbeats of 4 minutes).
    pub heartbeat_timeout_ms: Timeout,
    /// From the first byte of a packet to its last.
    pub packet_timeout_ms: Timeout,
    /// What the kernel takes for one client and has not sent yet, because the client does not read or the network is slow
    /// (tcp(7), TCP_NOTSENT_LOWAT).
    pub unsent_bytes: Bounded<4_096, { 1 << 30 }>,
    /// What one client may leave unread beyond that.
    pub debt_bytes: Bounded<4_096, { 1 << 30 }>,
    /// How long the oldest of it may wait.
    pub debt_age_ms: Timeout,
    /// Time over which a stop spreads its goodbyes.
    pub drain_ms: Bounded<0, 3_600_000>,
}

/// The Bilibili dialect.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bilibili {
    /// Its rooms are numbers; room 1000 is `{room_type}://1000`.
    pub room_type: String,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "edge-1".to_owned(),
            number: 1,
            hostname: String::new(),
            addresses: Vec::new(),
            region: String::new(),
            zone: String::new(),
            weight: 10,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            tcp: vec![ListenAddress::loopback(3101)],
            websocket: vec![ListenAddress::loopback(3102)],
            backlog: Bounded::new(4_096),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: ListenAddress::loopback(3190) }
    }
}

impl Default for Trunk {
    fn default() -> Self {
        Self {
            lines: vec![Line { name: "A".to_owned(), address: "127.0.0.1:3119".to_owned() }],
            secret: Secret::default(),
            secret_file: None,
            reconnect_max_ms: Bounded::new(1_000),
            gather_ms: Bounded::new(10),
            news_queue: Bounded::new(65_536),
            pending: Bounded::new(65_536),
        }
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            count: 0,
            pin: true,
            send: SendPath::Auto,
            merge_ms: Bounded::new(0),
            merge_ms_by_type: BTreeMap::new(),
            rest_ms: Bounded::new(10),
            max_connections: Bounded::new(100_000),
            order_queue: Bounded::new(4_096),
            accepts_per_turn: Bounded::new(64),
            slice_sends: Bounded::new(256),
            turn_sends: Bounded::new(1_024),
            backlog_bytes: Bounded::new(16 << 20),
            block_bytes: Bounded::new(64 << 10),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: Bounded::new(8_000),
            heartbeat_timeout_ms: Bounded::new(480_000),
            packet_timeout_ms: Bounded::new(8_000),
            unsent_bytes: Bounded::new(128 << 10),
            debt_bytes: Bounded::new(256 << 10),
            debt_age_ms: Bounded::new(10_000),
            drain_ms: Bounded::new(2_000),
        }
    }
}

impl Default for Bilibili {
    fn default() -> Self {
        Self { room_type: "live".to_owned() }
    }
}

impl Config {
    /// The settings in `path`, or the defaults when there is none.
    ///
    /// # Errors
    /// [`SettingsError`] says where the mistake is and what would be right.
    pub fn load(path: Option<&Path>) -> Result<Self, SettingsError> {
        path.map_or_else(|| Ok(Self::default()), |path| Self::parse(&Source::read(path)?))
    }

    /// The same for a text that was already read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(source: &Source) -> Result<Self, SettingsError> {
        let mut config: Self = source.parse()?;
        let trunk = &mut config.trunk;
        trunk.secret = source.secret("trunk", &trunk.secret, trunk.secret_file.as_deref())?;
        config.check(source)?;
        Ok(config)
    }

    fn check(&self, source: &Source) -> Result<(), SettingsError> {
        let rows = [
            ("node.name", !self.node.name.is_empty(), "an edge needs a name"),
            (
                "listen",
                !(self.listen.tcp.is_empty() && self.listen.websocket.is_empty()),
                "name at least one address in listen.tcp or listen.websocket",
            ),
            ("trunk.lines", !self.trunk.lines.is_empty(), "an edge without a line hears nothing: name at least one"),
            ("bilibili.room_type", is_room_type(&self.bilibili.room_type), "must be the type of a room, such as live"),
        ];
        if let Some((key, _, what)) = rows.into_iter().find(|(_, holds, _)| !holds) {
            return Err(source.wrong(key, what));
        }
        match self.kernel.as_ref().and_then(KernelConfig::fault) {
            Some((key, what)) => Err(source.wrong(&format!("kernel.{key}"), what)),
            None => Ok(()),
        }
    }
}

fn is_room_type(text: &str) -> bool {
    wire::room::RoomId::new(text, "1").is_ok()
}

#[cfg(test)]
mod tests {
    use settings::example;

    use super::*;

    fn mistake(text: &str) -> String {
        Config::parse(&Source::new("edge.toml", text)).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_loopback() {
        let config = Config::parse(&Source::new("edge.toml", "")).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::load(None).unwrap()));
        assert!(config.listen.tcp.iter().chain(&config.listen.websocket).all(|address| address.0.ip().is_loopback()));
        assert!(config.admin.listen.0.ip().is_loopback());
        assert!(config.kernel.is_none());
        assert_eq!(config.limits.handshake_timeout_ms.get(), 8_000, "as in goim");
    }

    #[test]
    fn mistakes_are_located_and_explained() {
        let rows = [
            ("[listen]\ntpc = []\n", "2:1: unknown key `tpc`: did you mean `tcp`?"),
            (
                "[listen]\ntcp = [\"localhost:1\"]\n",
                "2:7: `localhost:1` is no address with a port, such as \"127.0.0.1:3111\" or \"[::1]:3111\"",
            ),
            (
                "[listen]\nbacklog = 0\n",
                "2:11: invalid value: integer `0`, expected a whole number from 1 to 2147483647",
            ),
            (
                "[limits]\n\ndebt_bytes = 1\n",
                "3:14: invalid value: integer `1`, expected a whole number from 4096 to 1073741824",
            ),
            (
                "[limits]\nhandshake_timeout_ms = 99\n",
                "2:24: invalid value: integer `99`, expected a whole number from 100 to 604800000",
            ),
            (
                "[shard]\nblock_bytes = \"many\"\n",
                "2:15: invalid type: string \"many\", expected a whole number from 1024 to 4194304",
            ),
            // What a single value cannot tell.
            ("[node]\nname = \"\"\n", "2:8: an edge needs a name"),
            (
                "[listen]\ntcp = []\nwebsocket = []\n",
                "1:1: name at least one address in listen.tcp or listen.websocket",
            ),
            ("[trunk]\nlines = []\n", "2:9: an edge without a line hears nothing: name at least one"),
            ("[bilibili]\nroom_type = \"\"\n", "2:13: must be the type of a room, such as live"),
            (
                "[kernel]\ninterface = \"eth0\"\nmode = \"driver\"\nmax_hosts = 0\n",
                "4:13: max_hosts = 0: must be 1 to 16777216",
            ),
            (
                "[kernel]\ninterface = \"eth0\"\nmode = \"native\"\n",
                "3:8: unknown value `native`: valid here: driver, generic",
            ),
            (
                "[trunk]\nsecret = \"a\"\nsecret_file = \"b\"\n",
                "3:15: [trunk] sets both secret and secret_file; keep one of them",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(mistake(text), format!("edge.toml:{expected}"));
        }
    }

    #[test]
    fn the_shipped_file_explains_every_key_and_its_default() {
        const SHIPPED: &str = include_str!("../../systemd/etc/push-daemon.toml");
        let read = |text: &str| Source::new("push-daemon.toml", text).parse::<Config>().unwrap();
        Config::parse(&Source::new("push-daemon.toml", SHIPPED)).unwrap();
        assert_eq!(example::missing_keys::<Config>(SHIPPED).unwrap(), Vec::<String>::new());
        assert_eq!(format!("{:?}", read(&example::defaults(SHIPPED))), format!("{:?}", Config::default()));
        // The filter is off unless the table is there; then these are its defaults.
        let kernel = read(&example::everything(SHIPPED)).kernel.unwrap();
        let defaults = KernelConfig::new(kernel.interface.clone(), kernel.mode);
        // These have examples: not said, they are found out.
        assert_eq!(KernelConfig { management: Vec::new(), shape_by: None, cgroup: None, ..kernel }, defaults);
    }

    #[test]
    fn the_trunk_secret_may_stand_in_a_file_and_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("trunk.secret"), "hunter2\n").unwrap();
        let text = "[trunk]\nsecret_file = \"trunk.secret\"\n";
        let config = Config::parse(&Source::new(directory.path().join("edge.toml"), text)).unwrap();
        assert!(config.trunk.secret.matches(b"hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
