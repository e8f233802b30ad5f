//! The publisher of a run: numbered, stamped messages through the HTTP API, at a pace.
//!
//! Each worker has one keep-alive connection and its own streams, so the messages of a stream follow one another and their
//! numbers are their order. A refused message gives its number back. One without an answer may or may not have been
//! accepted: its stream is published to no more, and nothing after the last accepted number is counted as due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::engine::{Books, Reasons};
use super::numbers::Numbers;
use super::scenario::{Publish, Scenario};
use super::stamp::{Stamp, monotonic_ns};
use super::target::{Streams, Target};
use crate::probe::publisher::{Answer, NoAnswer, Publisher};

/// How long publishing may take beyond twice its plan.
const GRACE: Duration = Duration::from_secs(30);

/// What became of the messages.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Accepted by the tier, per stream.
    pub accepted: Vec<u32>,
    /// Refused by the tier, by reason.
    pub refused: Reasons,
    /// Sent, but never answered, by reason. Each closed its stream to further messages.
    pub unanswered: Reasons,
    /// Never sent: interrupted, out of time, or their stream was closed.
    pub unsent: u64,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl Published {
    /// What becomes of messages when nobody is there to hear them.
    #[must_use]
    pub fn none(streams: &Streams, publish: &Publish) -> Self {
        Self { accepted: vec![0; streams.count() as usize], unsent: publish.messages, ..Self::default() }
    }
}

/// A publisher at work.
#[derive(Debug)]
pub struct Publishing {
    numbers: Arc<Numbers>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Published>>,
    started: Instant,
}

impl Publishing {
    /// Starts the workers, who stamp their messages with the run and phase of `books` and write `numbers`, one for each
    /// stream.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        scenario: &Scenario,
        publish: &Publish,
        books: &Books,
        numbers: Arc<Numbers>,
    ) -> std::io::Result<Self> {
        let streams = Streams::new(publish.target, scenario.clients, scenario.rooms);
        let started = Instant::now();
        let mut publishing = Self { numbers, stop: Arc::default(), workers: Vec::new(), started };
        let count = publish.workers.min(streams.count() as usize);
        for index in 0..count {
            let mut publisher = Publisher::new(publish.http);
            if !scenario.api_key.is_empty() {
                publisher = publisher.with_api_key(&scenario.api_key);
            }
            let worker = Worker {
                numbers: Arc::clone(&publishing.numbers),
                stop: Arc::clone(&publishing.stop),
                scenario: scenario.clone(),
                publish: publish.clone(),
                streams,
                publisher,
                run: books.run,
                phase: books.phase,
                index: index as u32,
                count: count as u32,
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
        self.numbers.accepted_sum()
    }

    /// Whether all workers are through.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }

    /// Tells the workers to send no more; [`Publishing::finish`] waits for those under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
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
        sum.accepted = self.numbers.accepted();
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
    numbers: Arc<Numbers>,
    stop: Arc<AtomicBool>,
    scenario: Scenario,
    publish: Publish,
    streams: Streams,
    publisher: Publisher,
    run: u32,
    phase: u32,
    index: u32,
    count: u32,
    started: Instant,
}

impl Worker {
    /// A stream belongs to one worker.
    fn run(self) -> Published {
        let mut result = Published::default();
        let deadline = self.started + Scenario::patience(self.publish.messages, self.publish.per_second, GRACE);
        let mut body = vec![b'.'; self.publish.message_bytes];
        let mut closed = vec![false; self.streams.count() as usize];
        for message in 0..self.publish.messages {
            let stream = self.streams.of_message(message);
            if stream % self.count != self.index {
                continue;
            }
            if closed[stream as usize] || !self.wait_for_turn(message) || Instant::now() >= deadline {
                result.unsent += 1;
                continue;
            }
            closed[stream as usize] = !self.send(stream, &mut body, &mut result);
        }
        result.took = self.started.elapsed();
        result
    }

    /// False when told to stop.
    fn wait_for_turn(&self, message: u64) -> bool {
        let rate = self.publish.per_second;
        let turn = if rate > 0.0 { Duration::from_secs_f64(message as f64 / rate) } else { Duration::ZERO };
        loop {
            if self.stop.load(Ordering::Acquire) {
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
    fn send(&self, stream: u32, body: &mut [u8], result: &mut Published) -> bool {
        let number = u64::from(self.numbers.begin(stream));
        Stamp { run: self.run, room: stream, phase: self.phase, number, sent_ns: monotonic_ns() }.write(body);
        match self.push(stream, body) {
            Ok(answer) if answer.is_accepted() => self.numbers.accept(stream),
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

    fn push(&self, stream: u32, body: &[u8]) -> Result<Answer, NoAnswer> {
        let (scenario, operation) = (&self.scenario, self.publish.operation);
        match self.streams.target() {
            Target::Rooms => {
                let name = scenario.room_number(stream).to_string();
                self.publisher.push_room(operation, &scenario.room_type, &name, body)
            }
            Target::Everybody { speed } => self.publisher.push_all(operation, speed, body),
            Target::Mids { .. } => {
                let mids: Vec<i64> = self.streams.clients_of(stream).map(|client| scenario.mid_of(client)).collect();
                self.publisher.push_mids(operation, &mids, body)
            }
            Target::Keys { .. } => {
                let keys: Vec<String> = self.streams.clients_of(stream).map(|client| scenario.key_of(client)).collect();
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                self.publisher.push_keys(operation, &keys, body)
            }
        }
    }
}
