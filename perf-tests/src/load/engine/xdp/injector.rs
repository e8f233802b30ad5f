//! The thread that begins things: SYNs and heartbeats, at a pace, repeated until they are answered.
//!
//! It reads how the clients stand and writes nothing but frames. Frames get lost (the ring of a veth end holds 256), so
//! whatever shows no effect is sent again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use abi::clients::{Client, state};
use socket2::Socket;

use super::error::XdpError;
use super::frames::Frames;
use super::program::Program;
use crate::load::scenario::Scenario;
use crate::load::stamp::monotonic_ns;

/// Frames go out in bursts, one in each of these.
const TICK: Duration = Duration::from_millis(2);

/// Frames of a burst, at most: a quarter of the ring.
pub(super) const BURST: usize = 64;

/// SYNs a second when the scenario sets no pace.
const SYNS_PER_SECOND: f64 = 12_000.0;

/// How long the answer to a SYN, or to the auth packet that the program sent, may take. The server's own repeats begin
/// after a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

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
    pub(super) program: Arc<Mutex<Program>>,
    pub(super) frames: Frames,
    pub(super) socket: Socket,
    pub(super) scenario: Scenario,
    pub(super) signals: Arc<Signals>,
    /// Whether the server goes on when we end.
    pub(super) bids_farewell: bool,
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
        // Whose SYN goes out next, the first time around.
        let mut next_new = 0;
        let mut repeats: VecDeque<u32> = VecDeque::new();
        let mut look_again = began;
        let mut beats = Beats::default();
        let mut sent = 0_u64;
        while !self.signals.stop.load(Ordering::Acquire) {
            if !self.signals.sealed.load(Ordering::Acquire) {
                let due = (self.syns_by(began.elapsed().as_secs_f64()) as u64).saturating_sub(sent);
                // What was missed while we did not run is not made up for.
                sent += due.saturating_sub(BURST as u64);
                for _ in 0..due.min(BURST as u64) {
                    sent += 1;
                    let number = match repeats.pop_front() {
                        Some(number) if self.awaits_answer(&self.client(number)?) => number,
                        Some(_) => continue,
                        None if next_new < self.scenario.clients => {
                            self.signals.begun_ns[next_new as usize].store(monotonic_ns(), Ordering::Relaxed);
                            next_new += 1;
                            next_new - 1
                        }
                        None => break,
                    };
                    self.send(&self.frames.syn(number))?;
                }
                if repeats.is_empty() && look_again.elapsed() >= ANSWER_WITHIN {
                    look_again = Instant::now();
                    repeats = self.unanswered(next_new)?;
                }
            }
            self.beat(&mut beats)?;
            thread::sleep(TICK);
        }
        if self.bids_farewell { self.bid_farewell() } else { Ok(()) }
    }

    fn syns_by(&self, seconds: f64) -> f64 {
        let by = self.scenario.connects_by(seconds);
        if by.is_finite() { by } else { SYNS_PER_SECOND * seconds }
    }

    fn awaits_answer(&self, client: &Client) -> bool {
        matches!(client.state, state::FRESH | state::UPGRADING | state::GREETED)
    }

    /// Clients that were begun and have no answer, SYN or auth.
    fn unanswered(&self, begun: u32) -> Result<VecDeque<u32>, XdpError> {
        let mut unanswered = VecDeque::new();
        for number in 0..begun {
            if self.awaits_answer(&self.client(number)?) {
                unanswered.push_back(number);
            }
        }
        Ok(unanswered)
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
            let client = self.client(number)?;
            if client.state == state::JOINED {
                self.send(&self.frames.heartbeat(number, &client))?;
                self.signals.heartbeats.fetch_add(1, Ordering::Relaxed);
                beats.under_way.push_back(UnderWay { number, from: client.next_out, sent: Instant::now() });
            }
        }
        while beats.under_way.front().is_some_and(|first| first.sent.elapsed() >= HEARD_WITHIN) {
            let Some(UnderWay { number, from, .. }) = beats.under_way.pop_front() else { break };
            let client = self.client(number)?;
            if client.state == state::JOINED && client.next_out == from {
                self.send(&self.frames.heartbeat(number, &client))?;
                beats.under_way.push_back(UnderWay { number, from, sent: Instant::now() });
            }
        }
        Ok(())
    }

    pub(super) fn client(&self, number: u32) -> Result<Client, XdpError> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).client(number)
    }

    pub(super) fn send(&self, frame: &[u8]) -> Result<(), XdpError> {
        match self.socket.send(frame) {
            Ok(_) => Ok(()),
            // The ring is full: it is sent again as if it had been lost.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(XdpError::io("send a client's frame")(error)),
        }
    }
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
