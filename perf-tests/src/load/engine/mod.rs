//! What holds the clients of a run, behind one interface.
//!
//! An engine connects the clients of a scenario, keeps the books of what they hear, and takes orders how they shall
//! behave. It knows nothing of who publishes, but how far the numbers have gone.
//! [`socket`] holds one kernel socket per client, [`xdp`] holds none.
//!
//! The books are kept by phases: [`Engine::open`] begins one, [`Engine::settle`] draws a line under it and says what
//! happened since the last line. What comes between a line and the next opening belongs to no phase.

mod churn;
mod error;
mod picker;
mod reasons;
pub mod socket;
pub mod xdp;

use std::sync::Arc;

use hdrhistogram::Histogram;

pub use error::EngineError;
pub use reasons::Reasons;

use super::behaviour::Order;
use super::broadcasts::Broadcasts;
use super::ledger::{Balance, Counts};
use super::numbers::Numbers;
use super::report::Segments;
use super::scenario::Scenario;
use super::target::Target;

/// Seconds of a run that are told apart in [`Tally::begun_by_second`].
pub const MAX_SECONDS: usize = 3600;

/// A look at a running engine. What is not said to be a number of clients just now only rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Clients whose auth was granted, once each.
    pub joined: u64,
    /// Clients that never got there.
    pub failed: u64,
    /// Times that a client was closed by the server, those that were told to behave badly not counted.
    pub closed: u64,
    /// Clients that have their connection just now, whatever they do with it.
    pub present: u64,
    /// Clients that are on their way back just now: away for a moment, or connecting again.
    pub returning: u64,
    /// Clients just now that do not read as they should, as they were told to, and still have their connection.
    pub astray: u64,
    /// Times that one of those was closed by the server.
    pub closed_astray: u64,
    /// Different messages heard by clients that they are owed to.
    pub received: u64,
    /// Duplicates, order faults and messages of another room.
    pub faults: u64,
}

/// Until where the streams' numbers went.
#[derive(Debug, Clone)]
pub enum Due {
    /// We published, and this many were accepted per stream.
    Published(Vec<u32>),
    /// Somebody else did: as far as anybody heard.
    AsHeard,
}

/// What a phase is about, for the books.
#[derive(Debug, Clone)]
pub struct Books {
    /// The run whose messages count; 0 takes the first that is heard.
    pub run: u32,
    /// The phase within the run, from 0. A message of an earlier one is a straggler.
    pub phase: u32,
    /// To whom is published.
    pub target: Target,
    /// How far we have published; `None` when somebody else does. Then each client is owed what follows the first that it hears.
    pub numbers: Option<Arc<Numbers>>,
}

/// Times in microseconds, three digits exact, up to ten minutes.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("1 < 600,000,000 and three digits are within the bounds")
}

/// What became of clients that were told not to read as they should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fate {
    /// Told so since the last line.
    pub clients: u64,
    /// Closed by the server since the last line, by reason, whenever they were told.
    pub closed: Reasons,
    /// Still connected, and still so, at the line.
    pub stuck: u64,
}

impl Fate {
    fn absorb(&mut self, later: &Self) {
        self.clients += later.clients;
        self.closed.merge(&later.closed);
        self.stuck = later.stuck;
    }
}

/// Clients that are owed nothing because they were told not to listen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Astray {
    /// Those that read nothing.
    pub stopped: Fate,
    /// Those that read a little at a time.
    pub slow: Fate,
    /// Those that are as if dead.
    pub silent: Fate,
    /// Clients that vanished without a FIN.
    pub vanished: u64,
    /// What these heard all the same, each once and in order or not.
    pub counts: Counts,
}

/// Clients that went of their own will, and came back.
#[derive(Debug, Clone)]
pub struct Returns {
    /// Goodbyes in order.
    pub left_orderly: u64,
    /// Of these, those that the server had not answered by closing when the client gave up.
    pub unanswered: u64,
    /// Goodbyes by reset.
    pub left_reset: u64,
    /// Times that a client was granted again.
    pub back: u64,
    /// Attempts to come back that failed, by reason. Each was followed by another.
    pub failed: Reasons,
    /// Clients on their way back at the line.
    pub not_back: u64,
    /// From the moment that a client wanted to come back to its grant, failed attempts included, in microseconds.
    pub back_us: Histogram<u64>,
}

/// What an engine has to say of the time since the last line, or since its start.
#[derive(Debug)]
pub struct Tally {
    /// The run whose messages were counted; 0 when none was named and none heard.
    pub run: u32,
    /// Clients whose auth was granted for the first time.
    pub joined: u64,
    /// Connects begun in each second since the engine's start, the first ones and those of clients that come back.
    /// Only so many seconds are told apart (`MAX_SECONDS`); the last takes the rest.
    pub begun_by_second: Vec<u32>,
    /// Clients that never got there, by reason.
    pub failed: Reasons,
    /// Clients that joined, behaved, and were closed by the server, by reason.
    pub closed: Reasons,
    /// Clients that were told not to read as they should.
    pub astray: Astray,
    /// Clients that went and came back.
    pub returns: Returns,
    /// The books of the clients that are owed something.
    pub counts: Counts,
    /// The books against what was due.
    pub balance: Balance,
    /// Messages of this run that reached a client of another room.
    pub misrouted: u64,
    /// Messages that are not of this run.
    pub foreign: u64,
    /// Messages of an earlier phase of this run. To a client that was owed them they were missing there.
    pub stragglers: u64,
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats answered.
    pub heartbeats_answered: u64,
    /// Replies to a heartbeat that the client had not sent, or had been answered.
    pub heartbeats_unasked: u64,
    /// Heartbeats, of clients that read, that came due while the one before was not answered yet.
    pub heartbeats_overdue: u64,
    /// Bytes that came, framing included.
    pub bytes_received: u64,
    /// Segments that did not go as they should, as far as an engine sees segments.
    pub segments: Segments,
    /// From the publisher's request to the client, in microseconds.
    pub delay_us: Histogram<u64>,
    /// From the publisher's request to the last of a message's receivers, in microseconds: one time per message.
    pub last_receiver_us: Histogram<u64>,
    /// When the last message was heard, on the clock of the stamps; 0 when none was.
    pub heard_until_ns: u64,
    /// When each message was heard, until that is brought into the two fields above.
    pub(super) broadcasts: Broadcasts,
    /// From the connect to the grant, in microseconds.
    pub join_us: Histogram<u64>,
}

impl Default for Returns {
    fn default() -> Self {
        Self {
            left_orderly: 0,
            unanswered: 0,
            left_reset: 0,
            back: 0,
            failed: Reasons::default(),
            not_back: 0,
            back_us: histogram(),
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            run: 0,
            joined: 0,
            failed: Reasons::default(),
            begun_by_second: Vec::new(),
            closed: Reasons::default(),
            astray: Astray::default(),
            returns: Returns::default(),
            counts: Counts::default(),
            balance: Balance::default(),
            misrouted: 0,
            foreign: 0,
            stragglers: 0,
            heartbeats_sent: 0,
            heartbeats_answered: 0,
            heartbeats_unasked: 0,
            heartbeats_overdue: 0,
            bytes_received: 0,
            segments: Segments::default(),
            delay_us: histogram(),
            broadcasts: Broadcasts::default(),
            last_receiver_us: histogram(),
            heard_until_ns: 0,
            join_us: histogram(),
        }
    }
}

impl Tally {
    /// Adds what was counted after this, by the same engine. What is true only at a line is taken from the later one.
    pub fn absorb(&mut self, later: &Self) {
        self.run = later.run;
        self.astray.stopped.absorb(&later.astray.stopped);
        self.astray.slow.absorb(&later.astray.slow);
        self.astray.silent.absorb(&later.astray.silent);
        let not_back = later.returns.not_back;
        self.add(later);
        self.returns.not_back = not_back;
    }

    /// Adds what was counted by another thread meanwhile.
    pub(super) fn merge(&mut self, other: &Self) {
        for (fate, part) in [
            (&mut self.astray.stopped, &other.astray.stopped),
            (&mut self.astray.slow, &other.astray.slow),
            (&mut self.astray.silent, &other.astray.silent),
        ] {
            let stuck = fate.stuck + part.stuck;
            fate.absorb(part);
            fate.stuck = stuck;
        }
        self.broadcasts.merge(&other.broadcasts);
        self.add(other);
    }

    /// Says when each message had reached everybody, once all threads are merged.
    pub(super) fn time_broadcasts(&mut self) {
        let broadcasts = std::mem::take(&mut self.broadcasts);
        self.last_receiver_us = broadcasts.last_receiver_us();
        self.heard_until_ns = broadcasts.until_ns();
    }

    /// All that is a plain sum.
    fn add(&mut self, other: &Self) {
        self.joined += other.joined;
        self.failed.merge(&other.failed);
        let seconds = self.begun_by_second.len().max(other.begun_by_second.len());
        self.begun_by_second.resize(seconds, 0);
        for (sum, part) in self.begun_by_second.iter_mut().zip(&other.begun_by_second) {
            *sum += part;
        }
        self.closed.merge(&other.closed);
        self.astray.vanished += other.astray.vanished;
        self.astray.counts.absorb(&other.astray.counts);
        self.returns.left_orderly += other.returns.left_orderly;
        self.returns.unanswered += other.returns.unanswered;
        self.returns.left_reset += other.returns.left_reset;
        self.returns.back += other.returns.back;
        self.returns.failed.merge(&other.returns.failed);
        self.returns.not_back += other.returns.not_back;
        self.counts.absorb(&other.counts);
        self.balance.absorb(&other.balance);
        self.misrouted += other.misrouted;
        self.foreign += other.foreign;
        self.stragglers += other.stragglers;
        self.heartbeats_sent += other.heartbeats_sent;
        self.heartbeats_answered += other.heartbeats_answered;
        self.heartbeats_unasked += other.heartbeats_unasked;
        self.heartbeats_overdue += other.heartbeats_overdue;
        self.bytes_received += other.bytes_received;
        self.segments.lost += other.segments.lost;
        self.segments.late += other.segments.late;
        self.segments.repeated += other.segments.repeated;
        self.heard_until_ns = self.heard_until_ns.max(other.heard_until_ns);
        for (sum, part) in [
            (&mut self.delay_us, &other.delay_us),
            (&mut self.last_receiver_us, &other.last_receiver_us),
            (&mut self.join_us, &other.join_us),
            (&mut self.returns.back_us, &other.returns.back_us),
        ] {
            sum.add(part).expect("all histograms are made with the same bounds");
        }
    }
}

/// Begins to connect the clients of `scenario`: made of XDP on `rig`, or a socket each without one.
///
/// # Errors
/// [`EngineError`], when the system or the rig cannot have them.
pub fn start(scenario: &Scenario, rig: Option<&xdp::rig::Rig>) -> Result<Box<dyn Engine>, EngineError> {
    Ok(match rig {
        Some(rig) => Box::new(xdp::XdpEngine::start(scenario, rig)?),
        None => Box::new(socket::SocketEngine::start(scenario)?),
    })
}

/// Something that holds clients. It begins to connect them when it is made.
///
/// Calls that give a result wait until every thread of the engine has done its part.
pub trait Engine {
    /// How it stands.
    fn gauges(&self) -> Gauges;

    /// Why it cannot go on, when it cannot.
    ///
    /// # Errors
    /// What broke one of its threads.
    fn check(&mut self) -> Result<(), EngineError>;

    /// Ends the building: who has not joined by now has failed. Says how many have.
    ///
    /// # Errors
    /// As [`Engine::check`].
    fn seal(&mut self) -> Result<u64, EngineError>;

    /// Begins a phase, with empty books: whoever has a connection and behaves is owed all that is published from now on.
    /// Says how many clients follow each stream. An engine begins with books open for a publisher that is not ours.
    ///
    /// # Errors
    /// As [`Engine::check`].
    fn open(&mut self, books: &Books) -> Result<Vec<u32>, EngineError>;

    /// Tells some clients how to behave from now on, and how many they are. A churn, which tells nobody at once, gives 0.
    ///
    /// # Errors
    /// As [`Engine::check`], and when the system forbids what was asked for.
    fn order(&mut self, order: Order) -> Result<u64, EngineError>;

    /// Messages that connected clients are owed and have not heard yet, when the streams' numbers went to `ends`.
    ///
    /// # Errors
    /// As [`Engine::check`].
    fn outstanding(&mut self, ends: &[u32]) -> Result<u64, EngineError>;

    /// Has those who do not read look into their sockets, because a close may stand behind what they have not read. From
    /// then on they read, until the next [`Engine::settle`]: what the server does with them is no news afterwards.
    ///
    /// # Errors
    /// As [`Engine::check`].
    fn look_into_unread(&mut self) -> Result<(), EngineError>;

    /// Draws a line: says what was since the last one, and what of `due` was heard.
    ///
    /// # Errors
    /// As [`Engine::check`].
    fn settle(&mut self, due: Due) -> Result<Tally, EngineError>;

    /// Closes everything.
    ///
    /// # Errors
    /// As [`Engine::check`].
    fn finish(self: Box<Self>) -> Result<(), EngineError>;

    /// Its name in reports.
    fn name(&self) -> &'static str;
}
