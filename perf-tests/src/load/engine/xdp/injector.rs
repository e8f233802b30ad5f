//! The thread that begins things: SYNs and heartbeats, at a pace, repeated until they are answered.
//!
//! It reads how the clients stand and writes nothing but frames. Frames get lost (the ring of a veth end holds 256), so
//! whatever shows no effect is sent again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use abi::clients::{Client, state};

use super::error::XdpError;
use super::flock::Flock;
use super::line::Line;
use super::{BURST, TICK, slow};
use crate::load::scenario::Scenario;
use crate::load::stamp::monotonic_ns;

/// Handshakes under way at once: far below the backlog of the server's end, so that none is dropped there, and enough for a
/// server that answers many at a time.
const OPEN_HANDSHAKES: usize = 16_384;

/// Of these, how many are looked at in each tick: the oldest.
const LOOKS: usize = 1_024;

/// How long the answer to a SYN may take until it is sent again. What is lost is lost at once, in a ring.
const SYN_ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// How long the answer to the auth packet, which the program sent, may take until a SYN has it sent again. The server's own
/// repeats begin after a second.
const GRANT_WITHIN: Duration = Duration::from_secs(2);

/// After so many SYNs a client makes way for others, and is tried again when there are none.
const TRIES: u8 = 4;

/// How long the server may take to acknowledge a heartbeat.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// What the engine and the thread tell each other.
#[derive(Debug)]
pub(super) struct Signals {
    /// No more SYNs.
    pub(super) sealed: AtomicBool,
    /// No more of anything.
    pub(super) stop: AtomicBool,
    /// By client: when its first SYN went out, on the clock of the stamps; 0 until then.
    pub(super) begun_ns: Vec<AtomicU64>,
    /// Heartbeats that were begun; repeats do not count.
    pub(super) heartbeats: AtomicU64,
}

impl Signals {
    pub(super) fn new(clients: u32) -> Self {
        Self {
            sealed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            begun_ns: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            heartbeats: AtomicU64::new(0),
        }
    }
}

pub(super) struct Injector {
    pub(super) line: Line,
    pub(super) scenario: Scenario,
    pub(super) signals: Arc<Signals>,
    pub(super) flock: Arc<Mutex<Flock>>,
}

/// A client that has begun and is not in.
struct Arrival {
    number: u32,
    tries: u8,
    /// The last SYN.
    sent: Instant,
}

/// Who has begun, and who is next.
struct Arrivals {
    /// The first that has not begun.
    next: u32,
    /// Each in turn, and not more than [`OPEN_HANDSHAKES`].
    under_way: VecDeque<Arrival>,
    /// Those that had [`TRIES`] SYNs and no answer.
    late: VecDeque<u32>,
    /// First SYNs so far, and those of the late.
    begun: u64,
}

/// A heartbeat that the server has not acknowledged yet.
struct UnderWay {
    number: u32,
    /// The byte that it begins with.
    from: u32,
    sent: Instant,
}

impl Injector {
    /// Works until it is told to stop.
    pub(super) fn run(self) -> Result<(), XdpError> {
        let began = Instant::now();
        let mut arrivals = Arrivals { next: 0, under_way: VecDeque::new(), late: VecDeque::new(), begun: 0 };
        let mut beats = Beats::default();
        while !self.signals.stop.load(Ordering::Acquire) {
            if !self.signals.sealed.load(Ordering::Acquire) {
                self.begin_some(&mut arrivals, began)?;
            }
            self.beat(&mut beats)?;
            self.flock().turn(&self.line, BURST)?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn flock(&self) -> MutexGuard<'_, Flock> {
        self.flock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self, client: &Client) -> u16 {
        slow::window(&self.flock().script, client)
    }

    /// Sends SYNs: again for those who wait too long, then for new ones, by pace and as long as not too many are under way.
    fn begin_some(&self, arrivals: &mut Arrivals, began: Instant) -> Result<(), XdpError> {
        let mut room = BURST;
        for _ in 0..arrivals.under_way.len().min(LOOKS) {
            let Some(Arrival { number, mut tries, mut sent }) = arrivals.under_way.pop_front() else { break };
            let Some(within) = self.answer_is_due_within(number) else { continue };
            if room > 0 && sent.elapsed() >= within {
                if tries == TRIES {
                    arrivals.late.push_back(number);
                    continue;
                }
                room -= 1;
                (tries, sent) = (tries + 1, Instant::now());
                self.line.send(&self.line.frames.syn(number))?;
            }
            arrivals.under_way.push_back(Arrival { number, tries, sent });
        }
        // Without a pace it is infinite, and there is always a burst to catch up with.
        let by_pace = self.scenario.connects_by(began.elapsed().as_secs_f64());
        let due = by_pace - arrivals.begun as f64;
        let due = if due < BURST as f64 { due.max(0.0) as usize } else { BURST };
        for _ in 0..due.min(room) {
            if arrivals.under_way.len() >= OPEN_HANDSHAKES {
                break;
            }
            let Some(number) = self.next_to_begin(arrivals) else { break };
            arrivals.begun += 1;
            arrivals.under_way.push_back(Arrival { number, tries: 1, sent: Instant::now() });
            self.line.send(&self.line.frames.syn(number))?;
        }
        Ok(())
    }

    /// A new client while there are any, then those that are late.
    fn next_to_begin(&self, arrivals: &mut Arrivals) -> Option<u32> {
        if arrivals.next < self.scenario.clients {
            let number = arrivals.next;
            arrivals.next += 1;
            self.signals.begun_ns[number as usize].store(monotonic_ns(), Ordering::Relaxed);
            return Some(number);
        }
        loop {
            let number = arrivals.late.pop_front()?;
            if self.answer_is_due_within(number).is_some() {
                return Some(number);
            }
        }
    }

    /// How long after a SYN something should have come; `None` when it has.
    fn answer_is_due_within(&self, number: u32) -> Option<Duration> {
        match self.line.clients.get(number)?.state {
            state::FRESH => Some(SYN_ANSWER_WITHIN),
            state::UPGRADING => Some(GRANT_WITHIN),
            state::GREETED if self.line.frames.greet() => Some(GRANT_WITHIN),
            _ => None,
        }
    }

    /// Sends the heartbeats that are due, and again those that show no effect.
    fn beat(&self, beats: &mut Beats) -> Result<(), XdpError> {
        if self.scenario.heartbeat.is_zero() {
            return Ok(());
        }
        let per_second = f64::from(self.scenario.clients) / self.scenario.heartbeat.as_secs_f64();
        beats.credit = (beats.credit + per_second * beats.last.elapsed().as_secs_f64()).min(BURST as f64);
        beats.last = Instant::now();
        while beats.credit >= 1.0 {
            beats.credit -= 1.0;
            let number = beats.next % self.scenario.clients;
            beats.next = number + 1;
            let Some(client) = self.line.clients.get(number) else { continue };
            if beats_in(client.state) {
                self.line.send(&self.line.frames.heartbeat(number, &client, self.window(&client)))?;
                self.signals.heartbeats.fetch_add(1, Ordering::Relaxed);
                beats.under_way.push_back(UnderWay { number, from: client.next_out, sent: Instant::now() });
            }
        }
        while beats.under_way.front().is_some_and(|first| first.sent.elapsed() >= HEARD_WITHIN) {
            let Some(UnderWay { number, from, .. }) = beats.under_way.pop_front() else { break };
            let Some(client) = self.line.clients.get(number) else { continue };
            if beats_in(client.state) && client.next_out == from {
                self.line.send(&self.line.frames.heartbeat(number, &client, self.window(&client)))?;
                beats.under_way.push_back(UnderWay { number, from, sent: Instant::now() });
            }
        }
        Ok(())
    }
}

/// Whether a client in `state` says that it is alive.
fn beats_in(state: u8) -> bool {
    state::is_in(state) && state != state::SILENT
}

/// Whose heart beats when.
struct Beats {
    next: u32,
    credit: f64,
    last: Instant,
    /// By time. Bounded by the heartbeats of [`HEARD_WITHIN`], as each is looked at once in that time.
    under_way: VecDeque<UnderWay>,
}

impl Default for Beats {
    fn default() -> Self {
        Self { next: 0, credit: 0.0, last: Instant::now(), under_way: VecDeque::new() }
    }
}
