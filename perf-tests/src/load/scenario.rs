//! What a run does: how many clients, where, in which dialect, and what is published to them.
//!
//! A scenario is plain data: the command line makes one, the report carries it, and every engine gets the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::behaviour::{Behaviour, Ramp};
use super::stamp::STAMP_BYTES;
use super::target::Target;
use crate::probe::AuthRequest;

/// What carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Plain TCP (port 3101).
    Tcp,
    /// WebSocket on `/sub` (port 3102).
    Websocket,
}

/// What the clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// goim's.
    Goim,
    /// Bilibili's, plain bodies.
    Bilibili,
}

/// What is published to the clients, by us.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publish {
    /// The tier's HTTP address.
    pub http: SocketAddr,
    /// Messages in all, spread over the rooms in turn.
    pub messages: u64,
    /// Messages a second in all; 0 is as fast as the tier answers.
    pub per_second: f64,
    /// Length of each body.
    pub message_bytes: usize,
    /// Requests under way at once.
    pub workers: usize,
    /// Of them, those that may be for one room or other stream. Above 1 it is faster, and nobody defines the order of its
    /// messages: then it is no fault.
    #[serde(default = "one")]
    pub abreast: usize,
    /// Operation of the pushes.
    pub operation: i32,
    /// To whom.
    #[serde(default)]
    pub target: Target,
}

fn one() -> usize {
    1
}

/// Everything that a run needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Where the clients connect, in turn.
    pub connect: Vec<SocketAddr>,
    /// What carries the packets.
    pub transport: Transport,
    /// What the clients speak.
    pub dialect: Dialect,
    /// Clients in all.
    pub clients: u32,
    /// Threads, each with a descriptor table of its own.
    pub threads: usize,
    /// Source addresses, from the first on; 0 lets the kernel choose the source.
    pub sources: u32,
    /// The first source address.
    pub first_source: Ipv4Addr,
    /// Connects begun per second, over all threads; 0 is as fast as the bound on open handshakes allows.
    pub connects_per_second: f64,
    /// Where that rate goes in time; `None` leaves it as it is.
    #[serde(default)]
    pub ramp: Option<Ramp>,
    /// Handshakes of one thread under way at once. The default is below any usual listen backlog, so that a run does not
    /// test SYN retries.
    #[serde(default = "open_handshakes")]
    pub open_handshakes: usize,
    /// How long a thread sleeps between two looks at its sockets, once everybody is in. With none a send to a sleeping thread
    /// wakes it at the sender's expense, which clients on other hosts do not cost it; every delay is longer by as much at
    /// most. Only sockets have such threads.
    #[serde(default)]
    pub rest: Duration,
    /// Rooms, with the clients spread over them evenly.
    pub rooms: u32,
    /// The part of a room's name before `://`.
    pub room_type: String,
    /// Number of the first room; the others follow.
    pub first_room: u32,
    /// User id of the first client; the others follow.
    pub first_mid: i64,
    /// Begins the key of each client, its number ends it; empty lets the server make keys. Only goim's dialect has them.
    #[serde(default)]
    pub own_keys: String,
    /// Operations that shall reach the clients outside their rooms. Only goim's dialect has them.
    #[serde(default)]
    pub accepts: Vec<i32>,
    /// What clients do besides listening.
    #[serde(default)]
    pub behaviour: Behaviour,
    /// The credential of every client; never written into a report.
    #[serde(skip)]
    pub token: String,
    /// The publisher's key; never written into a report.
    #[serde(skip)]
    pub api_key: String,
    /// How often each client says that it is alive; none when zero.
    pub heartbeat: Duration,
    /// What we publish; `None` only listens.
    pub publish: Option<Publish>,
    /// The run whose messages count; 0 takes the first that is heard. Drawn by the publisher otherwise.
    pub run: u32,
    /// How long everybody may take to join, beyond what the pace asks for.
    pub build_within: Duration,
    /// How long to listen when somebody else publishes.
    pub listen_for: Duration,
    /// After the last message: how long without a new one until what is missing counts as lost.
    pub settle: Duration,
    /// After everything has come: how long to go on listening for what should not.
    pub linger: Duration,
}

/// Why a scenario cannot be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// A count that must not be zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A message has to hold its stamp.
    #[error("a message of {0} bytes has no room for its stamp of {STAMP_BYTES}")]
    MessageBytes(usize),
    /// A thread would need more descriptors than its table may hold.
    #[error(
        "{clients} clients on {threads} threads need {each} descriptors a thread, but RLIMIT_NOFILE is {limit}: use --threads {enough}"
    )]
    Descriptors {
        /// Clients wanted.
        clients: u32,
        /// Threads wanted.
        threads: usize,
        /// Descriptors that each needs.
        each: u64,
        /// Descriptors that each may have.
        limit: u64,
        /// Threads that would do.
        enough: u64,
    },
    /// A rate is a plain, non-negative number.
    #[error("{0} is no rate")]
    Rate(&'static str),
    /// A share is a part of all.
    #[error("{0} is no share: 0 is nobody, 1 is everybody")]
    Share(&'static str),
    /// A push by key to clients whose keys nobody knows.
    #[error("a push by key needs clients that bring keys of their own: use --own-keys, and the goim dialect")]
    NoKeys,
    /// A push by id reaches only clients that accept its operation.
    #[error("no client accepts operation {0}, so a push past the rooms reaches nobody: use --accept {0}")]
    NotAccepted(i32),
}

/// Twice a plan is waited for, and never more than a day: a rate of one a week is no reason to wait for one.
const MAX_PLANNED_SECONDS: f64 = 86_400.0;

/// Descriptors of a thread that are no client: what it inherited, its poll, the listener of a test.
pub const SPARE_DESCRIPTORS: u64 = 256;

/// Handshakes of one thread under way at once, when a scenario says nothing else.
#[must_use]
pub fn open_handshakes() -> usize {
    512
}

/// A thousand clients in one room who only listen. Where they connect has to be said.
impl Default for Scenario {
    fn default() -> Self {
        Self {
            connect: Vec::new(),
            transport: Transport::Tcp,
            dialect: Dialect::Goim,
            clients: 1000,
            threads: 1,
            sources: 0,
            first_source: Ipv4Addr::new(127, 0, 0, 2),
            connects_per_second: 0.0,
            ramp: None,
            open_handshakes: open_handshakes(),
            rest: Duration::ZERO,
            rooms: 1,
            room_type: "live".to_owned(),
            first_room: 1000,
            first_mid: 1,
            own_keys: String::new(),
            accepts: Vec::new(),
            behaviour: Behaviour::default(),
            token: String::new(),
            api_key: String::new(),
            heartbeat: Duration::from_secs(60),
            publish: None,
            run: 0,
            build_within: Duration::from_secs(30),
            listen_for: Duration::from_secs(30),
            settle: Duration::from_secs(10),
            linger: Duration::from_millis(300),
        }
    }
}

impl Scenario {
    /// Judges the numbers against each other and against `descriptor_limit`, before anything is opened.
    ///
    /// # Errors
    /// [`ScenarioError`] says which number is wrong.
    pub fn check(&self, descriptor_limit: u64) -> Result<(), ScenarioError> {
        let counts = [
            ("--clients", u64::from(self.clients)),
            ("--threads", self.threads as u64),
            ("--rooms", u64::from(self.rooms)),
            ("--connect", self.connect.len() as u64),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(ScenarioError::Zero(name));
        }
        if !(self.connects_per_second >= 0.0 && self.connects_per_second.is_finite()) {
            return Err(ScenarioError::Rate("--rate"));
        }
        if let Some(ramp) = &self.ramp {
            let is_rate = |rate: f64| rate >= 0.0 && rate.is_finite();
            if !is_rate(ramp.to_per_second) || !is_rate(ramp.over_seconds) || self.connects_per_second == 0.0 {
                return Err(ScenarioError::Rate("the ramp that --rate, --ramp-to and --ramp-seconds make"));
            }
        }
        if self.open_handshakes == 0 {
            return Err(ScenarioError::Zero("--open-handshakes"));
        }
        self.behaviour.check()?;
        if let Some(publish) = &self.publish {
            self.check_target(publish)?;
            if publish.message_bytes < STAMP_BYTES {
                return Err(ScenarioError::MessageBytes(publish.message_bytes));
            }
            if publish.workers == 0 {
                return Err(ScenarioError::Zero("--publishers"));
            }
            if publish.abreast == 0 {
                return Err(ScenarioError::Zero("--abreast"));
            }
            if !(publish.per_second >= 0.0 && publish.per_second.is_finite()) {
                return Err(ScenarioError::Rate("--publish-rate"));
            }
        }
        let each = u64::from(self.clients).div_ceil(self.threads as u64) + SPARE_DESCRIPTORS;
        if each > descriptor_limit {
            return Err(ScenarioError::Descriptors {
                clients: self.clients,
                threads: self.threads,
                each,
                limit: descriptor_limit,
                enough: threads_for(self.clients, descriptor_limit),
            });
        }
        Ok(())
    }

    fn check_target(&self, publish: &Publish) -> Result<(), ScenarioError> {
        match publish.target {
            Target::Rooms => return Ok(()),
            Target::Everybody { .. } => {}
            Target::Mids { each } | Target::Keys { each } if each == 0 => return Err(ScenarioError::Zero("--each")),
            Target::Mids { .. } => {}
            Target::Keys { .. } => {
                if self.own_keys.is_empty() || self.dialect == Dialect::Bilibili {
                    return Err(ScenarioError::NoKeys);
                }
            }
        }
        if self.dialect == Dialect::Goim && !self.accepts.contains(&publish.operation) {
            return Err(ScenarioError::NotAccepted(publish.operation));
        }
        Ok(())
    }

    /// Index of the room of a client.
    #[must_use]
    pub fn room_of(&self, client: u32) -> u32 {
        client % self.rooms
    }

    /// The part behind `://` of a room's name.
    #[must_use]
    pub fn room_number(&self, room: u32) -> u64 {
        u64::from(self.first_room) + u64::from(room)
    }

    /// User id of a client.
    #[must_use]
    pub fn mid_of(&self, client: u32) -> i64 {
        self.first_mid.wrapping_add(i64::from(client))
    }

    /// The key that a client brings; empty when the server makes it.
    #[must_use]
    pub fn key_of(&self, client: u32) -> String {
        if self.own_keys.is_empty() { String::new() } else { format!("{}{client}", self.own_keys) }
    }

    /// What a client says of itself.
    #[must_use]
    pub fn auth_of(&self, client: u32) -> AuthRequest {
        let (mid, number) = (self.mid_of(client), self.room_number(self.room_of(client)));
        let request = match self.dialect {
            Dialect::Goim => AuthRequest::goim(mid, &format!("{}://{number}", self.room_type)),
            Dialect::Bilibili => AuthRequest::bilibili(mid, number),
        };
        request.with_token(&self.token).with_key(&self.key_of(client)).accepting(&self.accepts)
    }

    /// Connects that may have been begun, over all threads, so many seconds after the start; infinite without a rate.
    #[must_use]
    pub fn connects_by(&self, seconds: f64) -> f64 {
        match self.ramp {
            Some(ramp) => ramp.begun_by(self.connects_per_second, seconds),
            None if self.connects_per_second > 0.0 => self.connects_per_second * seconds,
            None => f64::INFINITY,
        }
    }

    /// How long everybody may take to join before it is given up.
    pub(super) fn build_patience(&self) -> Duration {
        let clients = f64::from(self.clients);
        let planned = match self.ramp {
            Some(ramp) => ramp.seconds_for(self.connects_per_second, clients),
            None if self.connects_per_second > 0.0 => clients / self.connects_per_second,
            None => 0.0,
        };
        Duration::from_secs_f64((2.0 * planned).min(MAX_PLANNED_SECONDS)) + self.build_within
    }

    /// How long a phase of `count` things at `per_second` may take before it is given up.
    pub(super) fn patience(count: u64, per_second: f64, beyond: Duration) -> Duration {
        let planned = if per_second > 0.0 { count as f64 / per_second } else { 0.0 };
        Duration::from_secs_f64((2.0 * planned).min(MAX_PLANNED_SECONDS)) + beyond
    }
}

/// Threads that `clients` need when each may have `descriptor_limit` descriptors.
#[must_use]
pub fn threads_for(clients: u32, descriptor_limit: u64) -> u64 {
    u64::from(clients).div_ceil(descriptor_limit.saturating_sub(SPARE_DESCRIPTORS).max(1))
}
