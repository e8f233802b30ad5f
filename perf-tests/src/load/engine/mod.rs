//! What holds the clients of a run, behind one interface.
//!
//! An engine connects the clients of a scenario, keeps the books of what they hear, and knows nothing of who publishes.
//! [`socket`] holds one kernel socket per client. Another may stand beside it that holds none.

pub mod socket;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::ledger::{Balance, Counts};

/// Different reasons that are counted apart; the rest goes under one name.
const MAX_REASONS: usize = 64;

/// Longest text kept of a reason, which may be the peer's.
const MAX_REASON_CHARS: usize = 120;

/// A look at a running engine. Counts only rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Clients whose auth was granted.
    pub joined: u64,
    /// Clients that never got there.
    pub failed: u64,
    /// Clients that joined and were closed since.
    pub closed: u64,
    /// Different messages heard.
    pub received: u64,
    /// Duplicates, order faults and messages of another room.
    pub faults: u64,
}

/// Until where the rooms' numbers went.
#[derive(Debug, Clone)]
pub enum Due {
    /// We published, and this many were accepted per room.
    Published(Vec<u32>),
    /// Somebody else did: as far as anybody heard.
    AsHeard,
}

/// Times in microseconds, three digits exact, up to ten minutes.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("1 < 600,000,000 and three digits are within the bounds")
}

/// How often each reason occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    /// Counts `reason` `times` more.
    pub fn add(&mut self, reason: &str, times: u64) {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect();
        if self.0.len() >= MAX_REASONS && !self.0.contains_key(&reason) {
            *self.0.entry("other reasons".to_owned()).or_default() += times;
        } else {
            *self.0.entry(reason).or_default() += times;
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (reason, times) in &other.0 {
            self.add(reason, *times);
        }
    }

    /// How often anything occurred.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The counts by reason.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, u64> {
        self.0
    }
}

/// What an engine has to say in the end.
#[derive(Debug)]
pub struct Tally {
    /// The run whose messages were counted; 0 when none was named and none heard.
    pub run: u32,
    /// Clients whose auth was granted.
    pub joined: u64,
    /// Clients that never got there, by reason.
    pub failed: Reasons,
    /// Clients that joined and were closed before the end, by reason.
    pub closed: Reasons,
    /// The books.
    pub counts: Counts,
    /// The books against what was due.
    pub balance: Balance,
    /// Messages of this run that reached a client of another room.
    pub misrouted: u64,
    /// Messages that are not of this run.
    pub foreign: u64,
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats answered.
    pub heartbeats_answered: u64,
    /// Bytes that came, framing included.
    pub bytes_received: u64,
    /// From the publisher's request to the client, in microseconds.
    pub delay_us: Histogram<u64>,
    /// From the publisher's request to the last of a message's receivers, in microseconds: one time per message.
    pub last_receiver_us: Histogram<u64>,
    /// When the last message was heard, on the clock of the stamps; 0 when none was.
    pub heard_until_ns: u64,
    /// From the connect to the grant, in microseconds.
    pub join_us: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            run: 0,
            joined: 0,
            failed: Reasons::default(),
            closed: Reasons::default(),
            counts: Counts::default(),
            balance: Balance::default(),
            misrouted: 0,
            foreign: 0,
            heartbeats_sent: 0,
            heartbeats_answered: 0,
            bytes_received: 0,
            delay_us: histogram(),
            last_receiver_us: histogram(),
            heard_until_ns: 0,
            join_us: histogram(),
        }
    }
}

/// Why an engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A system call that every client needs.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread is gone, and its clients with it.
    #[error("a client thread panicked")]
    Panicked,
}

impl EngineError {
    pub(super) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// Something that holds clients. It begins to connect them when it is made.
pub trait Engine {
    /// How it stands.
    fn gauges(&self) -> Gauges;

    /// Why it cannot go on, when it cannot.
    ///
    /// # Errors
    /// What broke one of its threads.
    fn check(&mut self) -> Result<(), EngineError>;

    /// Ends the building: who has not joined by now has failed. Says how many have, per room.
    ///
    /// # Errors
    /// As [`Engine::check`].
    fn seal(&mut self) -> Result<Vec<u32>, EngineError>;

    /// Closes everything and settles the books.
    ///
    /// # Errors
    /// As [`Engine::check`].
    fn finish(self: Box<Self>, due: Due) -> Result<Tally, EngineError>;

    /// Its name in reports.
    fn name(&self) -> &'static str;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_makes_up_reasons_fills_no_memory() {
        let mut reasons = Reasons::default();
        for n in 0..1000 {
            reasons.add(&format!("{n}\n{}", "x".repeat(500)), 1);
        }
        assert_eq!(reasons.total(), 1000);
        let map = reasons.into_map();
        assert_eq!(map.len(), MAX_REASONS + 1);
        assert!(map.keys().all(|reason| reason.len() <= MAX_REASON_CHARS && !reason.contains('\n')));
    }
}
