//! What a sign-off does, and what it must come to: a TOML file.
//!
//! Every mistake is found before anything is started, and named with its line: an unknown key by `settings`, a key that
//! a phase has no use for, a budget for a figure that no phase measures.
//!
//! Layout: the types here · `check` what they cannot tell by themselves

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Serialize};
use settings::{Bounded, SettingsError, Source};

use crate::floor::SendPath;
use crate::load::scenario::{Dialect, Transport};
use crate::load::stamp::STAMP_BYTES;

/// A sign-off's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in reports.
    pub name: String,
    /// What it is for, in a sentence; stands at the head of the report.
    #[serde(default)]
    pub about: String,
    /// How often every phase is run, each time all of them in order on fresh daemons; figures are medians.
    #[serde(default = "once")]
    pub repeats: Repeats,
    /// The simulated clients.
    pub clients: Clients,
    /// Settings of the daemons that the sign-off starts.
    #[serde(default)]
    pub daemons: Daemons,
    /// Running daemons to sign off instead.
    pub target: Option<Target>,
    /// The raw loop of sends to compare with.
    #[serde(default)]
    pub floor: FloorPlan,
    /// What is done, in order.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    /// By phase and figure, what the figure must be.
    #[serde(default)]
    pub budget: BTreeMap<String, BTreeMap<String, Limit>>,
}

/// How often something is repeated.
pub type Repeats = Bounded<1, 100>;

fn once() -> Repeats {
    Bounded::new(1)
}

/// The simulated clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// How many.
    pub count: Bounded<1, 100_000_000>,
    /// What holds them.
    #[serde(default)]
    pub engine: EngineKind,
    /// What carries the packets.
    #[serde(default = "tcp")]
    pub transport: Transport,
    /// What they speak.
    #[serde(default = "goim")]
    pub dialect: Dialect,
    /// Threads that hold them; 0 is one per CPU, or as many as their descriptors need.
    #[serde(default)]
    pub threads: usize,
    /// Connects begun per second; 0 is as fast as they are answered.
    #[serde(default)]
    pub connects_per_second: f64,
    /// Seconds between two heartbeats of a client; 0 is none.
    #[serde(default)]
    pub heartbeat_seconds: f64,
    /// Milliseconds that a client thread sleeps between two looks at its sockets, so that the edge does not pay for waking it;
    /// delays are longer by as much at most. 0 has it woken by every message.
    #[serde(default = "no_rest")]
    pub rest_ms: Bounded<0, 1_000>,
    /// Share of the edge's segments that is lost on the way to a client, so that they are repeated. Only with clients made of
    /// XDP.
    #[serde(default)]
    pub ack_loss: f64,
    /// Milliseconds later than it comes that a client acknowledges what comes. Only with clients made of XDP.
    #[serde(default = "no_delay")]
    pub ack_delay_ms: Bounded<0, 10_000>,
    /// Length of a published message.
    #[serde(default = "message_bytes")]
    pub message_bytes: Bounded<{ STAMP_BYTES as u64 }, { 1 << 20 }>,
    /// The first of the source addresses.
    #[serde(default = "first_source")]
    pub first_source: Ipv4Addr,
}

fn tcp() -> Transport {
    Transport::Tcp
}

fn goim() -> Dialect {
    Dialect::Goim
}

fn no_rest() -> Bounded<0, 1_000> {
    Bounded::new(0)
}

fn no_delay() -> Bounded<0, 10_000> {
    Bounded::new(0)
}

fn message_bytes() -> Bounded<{ STAMP_BYTES as u64 }, { 1 << 20 }> {
    Bounded::new(STAMP_BYTES as u64)
}

fn first_source() -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2)
}

/// What holds the clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// A kernel socket each.
    #[default]
    Socket,
    /// None: one XDP program plays them all, in network namespaces that are made for it. Needs root.
    Xdp,
}

/// What the started daemons are set to, beyond what puts them on their ports: their own settings, as in their files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Daemons {
    /// The edge's.
    pub push_daemon: toml::Table,
    /// The tier's.
    pub logic_tier: toml::Table,
}

/// Where running daemons are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The edge's plain port.
    pub tcp: SocketAddr,
    /// The edge's WebSocket port.
    pub websocket: SocketAddr,
    /// The edge's page, `/metrics` and `/stats`.
    pub admin: SocketAddr,
    /// The tier's publisher API.
    pub http: SocketAddr,
    /// Process id of the edge, on this host.
    pub edge_pid: Bounded<1, { i32::MAX as u64 }>,
    /// Process id of the tier, when it is on this host.
    pub tier_pid: Option<Bounded<1, { i32::MAX as u64 }>>,
    /// The publisher's key. Never written into a report.
    #[serde(default, skip_serializing)]
    pub api_key: String,
    /// The clients' credential. Never written into a report.
    #[serde(default, skip_serializing)]
    pub token: String,
}

/// Whether and how the floor is measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FloorPlan {
    /// Its send paths. Empty: there is no floor. A phase with `floor = true` is then also done to each of these.
    pub paths: BTreeSet<SendPath>,
    /// Threads of its loop; 0 is as many as there are CPUs, or as its connections need.
    pub threads: usize,
}

/// What kinds of phases there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// All clients connect, authenticate and join, on fresh daemons.
    Connect,
    /// Nobody publishes.
    Idle,
    /// Messages to rooms, at a rate or as fast as they are taken.
    Broadcast,
    /// The edge is stopped while messages are published, and goes on with all of them at once.
    Backlog,
    /// Messages to single clients.
    Push,
    /// Clients leave and come back while messages are published.
    Churn,
    /// Some clients stop reading.
    Slow,
    /// Many clients reconnect at once.
    Storm,
    /// Held for long, with heartbeats and now and then a message.
    Soak,
}

/// How a push names its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// By a key that the client brought.
    Key,
    /// By its user id.
    Mid,
}

/// A phase. Which keys may stand with which kind is checked when a profile is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Its name; its figures begin with it.
    pub name: String,
    /// What is done.
    pub kind: Kind,
    /// Clients, when not those of the profile.
    pub clients: Option<Bounded<1, 100_000_000>>,
    /// Transport, when not the profile's.
    pub transport: Option<Transport>,
    /// Repeats, when fewer than the profile's.
    pub repeats: Option<Repeats>,
    /// Rooms that the clients are spread over.
    #[serde(default = "one_room")]
    pub rooms: Bounded<1, 100_000_000>,
    /// The merge window of these rooms.
    #[serde(default = "no_window")]
    pub merge_ms: Bounded<0, 10_000>,
    /// Also done to the floor, just before.
    #[serde(default)]
    pub floor: bool,
    /// Messages published in all.
    pub messages: Option<Bounded<1, 1_000_000_000>>,
    /// Messages per second over all rooms; 0 is as fast as they are taken.
    pub per_second: Option<f64>,
    /// Publishers that may speak to one room at once. Above 1 they share the disk's commits, and a room has no order.
    #[serde(default = "one_publisher")]
    pub abreast: Bounded<1, 1_000>,
    /// How long it lasts.
    pub seconds: Option<f64>,
    /// Length of a message, when not the profile's.
    pub message_bytes: Option<Bounded<{ STAMP_BYTES as u64 }, { 1 << 20 }>>,
    /// `slow`: of all clients, who stop reading. `churn`: who leave per second. `storm`: who reconnect at once.
    pub share: Option<f64>,
    /// `push`: what it names.
    pub by: Option<By>,
}

fn one_room() -> Bounded<1, 100_000_000> {
    Bounded::new(1)
}

fn one_publisher() -> Bounded<1, 1_000> {
    Bounded::new(1)
}

fn no_window() -> Bounded<0, 10_000> {
    Bounded::new(0)
}

/// What a figure must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// At most; with `of`, at most so many times that.
    pub max: Option<f64>,
    /// At least; with `of`, at least so many times that.
    pub min: Option<f64>,
    /// The figure that it is a multiple of.
    pub of: Option<String>,
}

/// What the figures of the floor by this path begin with. Those of the path that the edge takes also begin with `floor`.
#[must_use]
pub fn floor_prefix(path: SendPath) -> &'static str {
    match path {
        SendPath::Send => "floor_send",
        SendPath::Ring => "floor_ring",
    }
}

/// Room types: where the merge window is the daemon's own, and where it is the phase's.
#[must_use]
pub fn room_type(merge_ms: u64) -> String {
    if merge_ms == 0 { "live".to_owned() } else { format!("merge{merge_ms}") }
}

impl Phase {
    /// Of the profile's repeats, how many this phase takes part in.
    #[must_use]
    pub fn repeats(&self, profile: &Profile) -> u64 {
        self.repeats.unwrap_or(profile.repeats).get().min(profile.repeats.get())
    }

    /// Messages that it publishes.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        let by_time = self.seconds.unwrap_or(0.0) * self.per_second.unwrap_or(0.0);
        self.messages.map_or(by_time.ceil() as u64, Bounded::get)
    }
}

impl Profile {
    /// The profile in `path`.
    ///
    /// # Errors
    /// [`SettingsError`] says where the mistake is and what would be right.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        Self::parse(&Source::read(path)?)
    }

    /// Has the edge send by `path`, and the floor, if there is one, do the same and nothing else.
    ///
    /// A row of the budget that is a multiple of the other path's floor is then not measured.
    pub fn send_by(&mut self, path: SendPath) {
        let word = match path {
            SendPath::Send => "plain",
            SendPath::Ring => "ring",
        };
        let shard = self.daemons.push_daemon.entry("shard").or_insert_with(|| toml::Table::new().into());
        // What is no table is the edge's to refuse.
        if let Some(shard) = shard.as_table_mut() {
            shard.insert("send".to_owned(), word.into());
        }
        if !self.floor.paths.is_empty() {
            self.floor.paths = BTreeSet::from([path]);
        }
    }

    /// The same for a text that was already read.
    ///
    /// # Errors
    /// As [`Profile::load`].
    pub fn parse(source: &Source) -> Result<Self, SettingsError> {
        let profile: Self = source.parse()?;
        profile.check(source)?;
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_and_floor_send_by_the_path_that_is_asked_for() {
        let text = "name = \"x\"\nclients.count = 1\nphase = []\nfloor.paths = [\"send\", \"ring\"]\n\
                    daemons.push_daemon.shard = { count = 2, send = \"auto\" }\n";
        let mut profile: Profile = Source::new("x", text).parse().unwrap();
        for (path, word) in [(SendPath::Ring, "ring"), (SendPath::Send, "plain")] {
            profile.send_by(path);
            assert_eq!(profile.daemons.push_daemon["shard"].to_string(), format!("{{ count = 2, send = \"{word}\" }}"));
            assert_eq!(profile.floor.paths, BTreeSet::from([path]));
        }
        profile.floor.paths.clear();
        profile.send_by(SendPath::Ring);
        assert!(profile.floor.paths.is_empty(), "who has no floor gets none");
    }
}
