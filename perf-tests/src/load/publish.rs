//! The publisher of a run: numbered, stamped messages through the HTTP API, at a pace.
//!
//! Each worker has one keep-alive connection and its own rooms, so the messages of a room follow one another and their
//! numbers are their order. A refused message gives its number back. One without an answer may or may not have been
//! accepted: its room is published to no more, and nothing after the last accepted number is counted as due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::engine::Reasons;
use super::scenario::{Publish, Scenario};
use super::stamp::{Stamp, monotonic_ns};
use crate::probe::publisher::Publisher;

/// How long publishing may take beyond twice its plan.
const GRACE: Duration = Duration::from_secs(30);

/// Shared by the workers and whoever watches.
#[derive(Debug)]
struct Board {
    /// Accepted messages per room: also the room's next number.
    accepted: Vec<AtomicU32>,
    accepted_sum: AtomicU64,
    stop: AtomicBool,
}

/// What became of the messages.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Accepted by the tier, per room.
    pub accepted: Vec<u32>,
    /// Refused by the tier, by reason.
    pub refused: Reasons,
    /// Sent, but never answered, by reason. Each closed its room to further messages.
    pub unanswered: Reasons,
    /// Never sent: interrupted, out of time, or their room was closed.
    pub unsent: u64,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl Published {
    /// What becomes of messages when nobody is there to hear them.
    #[must_use]
    pub fn none(scenario: &Scenario, publish: &Publish) -> Self {
        Self { accepted: vec![0; scenario.rooms as usize], unsent: publish.messages, ..Self::default() }
    }
}

/// A publisher at work.
#[derive(Debug)]
pub struct Publishing {
    board: Arc<Board>,
    workers: Vec<JoinHandle<Published>>,
    started: Instant,
}

impl Publishing {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(scenario: &Scenario, publish: &Publish, run: u32) -> std::io::Result<Self> {
        let board = Arc::new(Board {
            accepted: (0..scenario.rooms).map(|_| AtomicU32::new(0)).collect(),
            accepted_sum: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let started = Instant::now();
        let mut publishing = Self { board, workers: Vec::new(), started };
        let count = publish.workers.min(scenario.rooms as usize);
        for index in 0..count {
            let mut publisher = Publisher::new(publish.http);
            if !scenario.api_key.is_empty() {
                publisher = publisher.with_api_key(&scenario.api_key);
            }
            let worker = Worker {
                board: Arc::clone(&publishing.board),
                scenario: scenario.clone(),
                publish: publish.clone(),
                publisher,
                run,
                index: index as u64,
                count: count as u64,
                started,
            };
            let name = format!("publisher-{index}");
            // On an error here, dropping `publishing` stops those that have begun.
            publishing.workers.push(thread::Builder::new().name(name).spawn(move || worker.run())?);
        }
        Ok(publishing)
    }

    /// Messages accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.board.accepted_sum.load(Ordering::Relaxed)
    }

    /// Whether all workers are through.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }

    /// Tells the workers to send no more; [`Publishing::finish`] waits for those under way.
    pub fn stop(&self) {
        self.board.stop.store(true, Ordering::Release);
    }

    /// Waits for the workers and adds up. At most the time of one request after [`Publishing::stop`].
    #[must_use]
    pub fn finish(mut self) -> Published {
        let mut sum = Published::default();
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(part) => {
                    sum.refused.merge(&part.refused);
                    sum.unanswered.merge(&part.unanswered);
                    sum.unsent += part.unsent;
                    sum.took = sum.took.max(part.took);
                }
                Err(_) => sum.unanswered.add("a publisher's thread panicked", 1),
            }
        }
        sum.accepted = self.board.accepted.iter().map(|accepted| accepted.load(Ordering::Acquire)).collect();
        sum
    }

    /// When it began.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.stop();
        for worker in self.workers.drain(..) {
            // A panic there has been printed by the thread itself.
            let _ = worker.join();
        }
    }
}

struct Worker {
    board: Arc<Board>,
    scenario: Scenario,
    publish: Publish,
    publisher: Publisher,
    run: u32,
    index: u64,
    count: u64,
    started: Instant,
}

impl Worker {
    /// Message k goes to room k mod rooms; a room belongs to one worker.
    fn run(self) -> Published {
        let mut result = Published::default();
        let rooms = u64::from(self.scenario.rooms);
        let deadline = self.started + Scenario::patience(self.publish.messages, self.publish.per_second, GRACE);
        let mut body = vec![b'.'; self.publish.message_bytes];
        let mut closed = vec![false; self.scenario.rooms as usize];
        for message in 0..self.publish.messages {
            let room = message % rooms;
            if room % self.count != self.index {
                continue;
            }
            if closed[room as usize] || !self.wait_for_turn(message) || Instant::now() >= deadline {
                result.unsent += 1;
                continue;
            }
            closed[room as usize] = !self.send(room as u32, &mut body, &mut result);
        }
        result.took = self.started.elapsed();
        result
    }

    /// False when told to stop.
    fn wait_for_turn(&self, message: u64) -> bool {
        let rate = self.publish.per_second;
        let turn = if rate > 0.0 { Duration::from_secs_f64(message as f64 / rate) } else { Duration::ZERO };
        loop {
            if self.board.stop.load(Ordering::Acquire) {
                return false;
            }
            let left = turn.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// False when there was no answer.
    fn send(&self, room: u32, body: &mut [u8], result: &mut Published) -> bool {
        let number = self.board.accepted[room as usize].load(Ordering::Acquire);
        Stamp { run: self.run, room, number: u64::from(number), sent_ns: monotonic_ns() }.write(body);
        let name = self.scenario.room_number(room).to_string();
        match self.publisher.push_room(self.publish.operation, &self.scenario.room_type, &name, body) {
            Ok(answer) if answer.is_accepted() => {
                self.board.accepted[room as usize].fetch_add(1, Ordering::AcqRel);
                self.board.accepted_sum.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                let code = answer.code.map_or_else(String::new, |code| format!(" code {code}"));
                result.refused.add(&format!("HTTP {}{code} {}", answer.status, answer.message), 1);
            }
            Err(error) => {
                result.unanswered.add(&error.to_string(), 1);
                return false;
            }
        }
        true
    }
}
