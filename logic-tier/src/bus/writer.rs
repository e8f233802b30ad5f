//! The one writer of the bus: a thread that takes what waits, commits it together and answers everybody at once.
//!
//! While one commit is at the disk the next one gathers, so a disk that is slow to sync gets larger commits, not a
//! longer queue. It does not bound what waits: the permits of `Bus` do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::record::Record;
use super::store::{Candidate, Placed, Retention, State, Store};
use super::{AppendError, ChatId, Span};
use crate::metrics::Metrics;

/// How long the writer sleeps when nothing comes: the pace of trimming by age, and of its own sign of life.
const IDLE: Duration = Duration::from_millis(500);

/// How often chats of old incarnations are forgotten.
const CHAT_SWEEP_INTERVAL: Duration = Duration::from_secs(600);

pub(super) enum Order {
    Append(Append),
    /// Commit what came before, then end.
    Stop,
}

pub(super) struct Append {
    pub(super) record: Record,
    pub(super) chat: Option<ChatId>,
    pub(super) answer: oneshot::Sender<Result<Placed, AppendError>>,
    /// Goes back when the answer is given: what waits is bounded by it.
    pub(super) permit: OwnedSemaphorePermit,
}

pub(super) struct Writer {
    pub(super) store: Arc<Store>,
    pub(super) state: State,
    pub(super) retention: Retention,
    pub(super) commit_records: usize,
    pub(super) commit_window: Duration,
    pub(super) orders: Receiver<Order>,
    pub(super) spans: watch::Sender<Arc<[Span]>>,
    pub(super) alive: watch::Sender<Instant>,
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) now_ms: fn() -> u64,
}

impl Writer {
    /// Runs until `Stop`, until nobody is left to ask, or until the store fails.
    pub(super) fn run(mut self) {
        let mut swept_at = Instant::now();
        loop {
            self.alive.send_replace(Instant::now());
            let first = match self.orders.recv_timeout(IDLE) {
                Ok(Order::Append(append)) => Some(append),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => None,
            };
            let outcome = match first {
                Some(first) => {
                    let (appends, stop) = self.gather(first);
                    let outcome = self.commit(appends);
                    if stop {
                        return;
                    }
                    outcome
                }
                None => self.housekeep(&mut swept_at),
            };
            if let Err(error) = outcome {
                // The store refuses everything after an I/O error until it is opened anew, so the process has to end.
                tracing::error!(%error, "the bus failed");
                self.failure.send_replace(Some(error.to_string()));
                return;
            }
        }
    }

    fn gather(&self, first: Append) -> (Vec<Append>, bool) {
        let deadline = Instant::now() + self.commit_window;
        let mut appends = vec![first];
        while appends.len() < self.commit_records {
            // A wait of zero still takes what is there.
            match self.orders.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Order::Append(append)) => appends.push(append),
                Ok(Order::Stop) => return (appends, true),
                Err(_) => break,
            }
        }
        (appends, false)
    }

    fn commit(&mut self, appends: Vec<Append>) -> Result<(), super::BusError> {
        let candidates: Vec<Candidate<'_>> =
            appends.iter().map(|append| Candidate { record: &append.record, chat: append.chat.as_ref() }).collect();
        let started = Instant::now();
        let outcome = self.store.commit(&mut self.state, &candidates, self.retention, (self.now_ms)());
        self.metrics.bus_commit_seconds.observe(started.elapsed().as_secs_f64());
        match outcome {
            Ok(placed) => {
                let appended = placed.iter().filter(|placed| **placed != Placed::Already).count();
                self.metrics.bus_appends.inc_by(appended as u64);
                self.publish();
                for (append, placed) in appends.into_iter().zip(placed) {
                    // Who does not wait any more has hung up; the record stays.
                    let _ = append.answer.send(Ok(placed));
                    drop(append.permit);
                }
                Ok(())
            }
            Err(error) => {
                for append in appends {
                    let _ = append.answer.send(Err(AppendError::Failed(error.to_string())));
                }
                Err(error)
            }
        }
    }

    fn housekeep(&mut self, swept_at: &mut Instant) -> Result<(), super::BusError> {
        while self.store.overdue(&self.state, self.retention, (self.now_ms)())? {
            self.store.commit(&mut self.state, &[], self.retention, (self.now_ms)())?;
            self.publish();
            self.alive.send_replace(Instant::now());
        }
        if swept_at.elapsed() >= CHAT_SWEEP_INTERVAL {
            *swept_at = Instant::now();
            self.store.forget_chats((self.now_ms)())?;
        }
        Ok(())
    }

    fn publish(&mut self) {
        self.metrics.bus_commits.inc();
        self.metrics.bus_retained_bytes.set(self.state.record_bytes as i64);
        self.metrics.bus_trimmed.inc_by(std::mem::take(&mut self.state.trimmed));
        self.spans.send_replace(self.state.spans.clone().into());
    }
}
