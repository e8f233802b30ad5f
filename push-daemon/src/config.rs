//! The daemon's settings: TOML, every key with a default, and checks that a single value cannot make.
//!
//! Without a file the daemon meets a logic tier on loopback, without a kernel plane. Files are read by
//! `settings`, which names file, line and the nearest valid key when something is wrong.

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;
use settings::SettingsError;

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
    pub tcp: Vec<SocketAddr>,
    /// WebSocket, path `/sub`.
    pub websocket: Vec<SocketAddr>,
    /// Connections that the kernel holds until they are accepted; net.core.somaxconn is its bound.
    pub backlog: i32,
}

/// Where operators look.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The live page, `/metrics`, `/stats`, `/healthz`. It has no access control of its own.
    pub listen: SocketAddr,
}

/// The upstream link.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trunk {
    /// Lines that carry the same stream; one is enough.
    pub lines: Vec<Line>,
    /// Shared secret, empty for none.
    pub secret: String,
    /// Longest pause between two attempts to open a line.
    pub reconnect_max_ms: u64,
    /// News from shards that may wait for the trunk.
    pub news_queue: usize,
    /// Auth requests and messages that may be upstream without an answer.
    pub pending: usize,
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
    /// Connections that the whole edge may hold.
    pub max_connections: u32,
    /// Orders that may wait for a shard.
    pub order_queue: usize,
    /// Connections taken in between two polls.
    pub accepts_per_turn: usize,
    /// Sends of one round before the next has its turn.
    pub slice_sends: usize,
    /// Sends between two polls.
    pub turn_sends: usize,
    /// Bytes of packets that may wait in one shard for rounds under way.
    pub backlog_bytes: usize,
    /// The longest block: how much merges when a room is behind.
    pub block_bytes: usize,
}

/// Bounds on what clients may do.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From accept to being in (goim: 8 s).
    pub handshake_timeout_ms: u32,
    /// Silence after which a client is gone (goim: two heartbeats of 4 minutes).
    pub heartbeat_timeout_ms: u32,
    /// From the first byte of a packet to its last.
    pub packet_timeout_ms: u32,
    /// What one client may leave unread, beyond the kernel's socket buffer.
    pub debt_bytes: usize,
    /// How long the oldest of it may wait.
    pub debt_age_ms: u32,
    /// Time over which a stop spreads its goodbyes.
    pub drain_ms: u32,
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
            tcp: vec![SocketAddr::from(([127, 0, 0, 1], 3101))],
            websocket: vec![SocketAddr::from(([127, 0, 0, 1], 3102))],
            backlog: 4096,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 3190)) }
    }
}

impl Default for Trunk {
    fn default() -> Self {
        Self {
            lines: vec![Line { name: "A".to_owned(), address: "127.0.0.1:3119".to_owned() }],
            secret: String::new(),
            reconnect_max_ms: 1_000,
            news_queue: 65_536,
            pending: 65_536,
        }
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            count: 0,
            pin: true,
            max_connections: 100_000,
            order_queue: 4_096,
            accepts_per_turn: 64,
            slice_sends: 256,
            turn_sends: 1_024,
            backlog_bytes: 16 << 20,
            block_bytes: 64 << 10,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout_ms: 8_000,
            heartbeat_timeout_ms: 480_000,
            packet_timeout_ms: 8_000,
            debt_bytes: 256 << 10,
            debt_age_ms: 10_000,
            drain_ms: 2_000,
        }
    }
}

impl Default for Bilibili {
    fn default() -> Self {
        Self { room_type: "live".to_owned() }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or understood.
    #[error(transparent)]
    File(#[from] SettingsError),
    /// A value, or two together, make no sense.
    #[error("{key}: {what}")]
    Value {
        /// Table and key.
        key: &'static str,
        /// What is wrong and what to do.
        what: String,
    },
}

impl Config {
    /// The settings in `path`, or the defaults when there is none.
    ///
    /// # Errors
    /// [`ConfigError`], ready to be shown.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let config: Self = path.map(settings::load).transpose()?.unwrap_or_default();
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let rows: [(&'static str, bool, &str); 13] = [
            ("node.name", !self.node.name.is_empty(), "an edge needs a name"),
            (
                "listen",
                !(self.listen.tcp.is_empty() && self.listen.websocket.is_empty()),
                "name at least one address in listen.tcp or listen.websocket",
            ),
            ("listen.backlog", self.listen.backlog > 0, "must be above 0"),
            ("trunk.lines", !self.trunk.lines.is_empty(), "an edge without a line hears nothing: name at least one"),
            ("trunk.reconnect_max_ms", self.trunk.reconnect_max_ms >= 100, "must be at least 100"),
            ("trunk.news_queue", self.trunk.news_queue >= 1024, "must be at least 1024"),
            ("trunk.pending", self.trunk.pending > 0, "must be above 0"),
            ("shard.max_connections", self.shard.max_connections > 0, "must be above 0"),
            (
                "shard",
                [self.shard.order_queue, self.shard.accepts_per_turn, self.shard.slice_sends, self.shard.turn_sends]
                    .iter()
                    .all(|value| *value > 0),
                "order_queue, accepts_per_turn, slice_sends and turn_sends must be above 0",
            ),
            ("shard.block_bytes", (1024..=4 << 20).contains(&self.shard.block_bytes), "must be 1024 to 4194304"),
            (
                "limits",
                [
                    limits.handshake_timeout_ms,
                    limits.heartbeat_timeout_ms,
                    limits.packet_timeout_ms,
                    limits.debt_age_ms,
                ]
                .iter()
                .all(|ms| (100..=MAX_TIMEOUT_MS).contains(ms)),
                "each time-out must be 100 ms to 7 days",
            ),
            ("limits.debt_bytes", limits.debt_bytes >= 4096, "must be at least 4096"),
            ("bilibili.room_type", is_room_type(&self.bilibili.room_type), "must be the type of a room, such as live"),
        ];
        for (key, holds, what) in rows {
            if !holds {
                return Err(ConfigError::Value { key, what: what.to_owned() });
            }
        }
        Ok(())
    }
}

/// The shard's clock tells differences below 24 days.
const MAX_TIMEOUT_MS: u32 = 7 * 24 * 3_600 * 1_000;

fn is_room_type(text: &str) -> bool {
    wire::room::RoomId::new(text, "1").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config: Config = settings::parse(text, Path::new("edge.toml")).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_valid_and_loopback() {
        let config = Config::load(None).unwrap();
        assert!(config.listen.tcp.iter().chain(&config.listen.websocket).all(|address| address.ip().is_loopback()));
        assert!(config.admin.listen.ip().is_loopback());
        assert!(config.kernel.is_none());
        assert_eq!(config.limits.handshake_timeout_ms, 8_000, "as in goim");
    }

    #[test]
    fn wrong_settings_are_named() {
        let rows = [
            ("[listen]\ntpc = []\n", "edge.toml:2:1: unknown key `tpc`: did you mean `tcp`?"),
            ("[trunk]\nlines = []\n", "trunk.lines: an edge without a line hears nothing: name at least one"),
            ("[limits]\ndebt_bytes = 1\n", "limits.debt_bytes: must be at least 4096"),
            ("[bilibili]\nroom_type = \"\"\n", "bilibili.room_type: must be the type of a room, such as live"),
        ];
        for (text, expected) in rows {
            assert_eq!(check(text), Err(expected.to_owned()));
        }
        assert_eq!(check("[node]\nname = \"edge-2\"\n[limits]\nhandshake_timeout_ms = 500\n"), Ok(()));
    }
}
