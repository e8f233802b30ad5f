//! What a run does: how many clients, where, in which dialect, and what is published to them.
//!
//! A scenario is plain data: the command line makes one, the report carries it, and every engine gets the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stamp::STAMP_BYTES;
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
    /// Requests under way at once. A room's messages are never in two of them, so that its order is defined.
    pub workers: usize,
    /// Operation of the pushes.
    pub operation: i32,
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
    /// Rooms, with the clients spread over them evenly.
    pub rooms: u32,
    /// The part of a room's name before `://`.
    pub room_type: String,
    /// Number of the first room; the others follow.
    pub first_room: u32,
    /// User id of the first client; the others follow.
    pub first_mid: i64,
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
}

/// Descriptors of a thread that are no client: what it inherited, its poll, the listener of a test.
pub const SPARE_DESCRIPTORS: u64 = 256;

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
        if let Some(publish) = &self.publish {
            if publish.message_bytes < STAMP_BYTES {
                return Err(ScenarioError::MessageBytes(publish.message_bytes));
            }
            if publish.workers == 0 {
                return Err(ScenarioError::Zero("--publishers"));
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

    /// What a client says of itself.
    #[must_use]
    pub fn auth_of(&self, client: u32) -> AuthRequest {
        let (mid, number) = (self.first_mid.wrapping_add(i64::from(client)), self.room_number(self.room_of(client)));
        let request = match self.dialect {
            Dialect::Goim => AuthRequest::goim(mid, &format!("{}://{number}", self.room_type)),
            Dialect::Bilibili => AuthRequest::bilibili(mid, number),
        };
        request.with_token(&self.token)
    }

    /// How long a phase of `count` things at `per_second` may take before it is given up.
    pub(super) fn patience(count: u64, per_second: f64, beyond: Duration) -> Duration {
        let planned = if per_second > 0.0 { count as f64 / per_second } else { 0.0 };
        // Twice the plan, and never more than a day: a rate of one a week is no reason to wait for one.
        Duration::from_secs_f64((2.0 * planned).min(86_400.0)) + beyond
    }
}

/// Threads that `clients` need when each may have `descriptor_limit` descriptors.
#[must_use]
pub fn threads_for(clients: u32, descriptor_limit: u64) -> u64 {
    u64::from(clients).div_ceil(descriptor_limit.saturating_sub(SPARE_DESCRIPTORS).max(1))
}
