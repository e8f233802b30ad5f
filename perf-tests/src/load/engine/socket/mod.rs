//! One kernel socket per client, spread over threads that share nothing but a few atomics.
//!
//! Each thread has its own descriptor table, so that the clients of a run may be more than `RLIMIT_NOFILE`, and its own
//! `Poll`. A client costs its socket, 24 bytes, and eight in the ledger; it has no buffer while nothing is incomplete.
//! The engine asks, and each thread answers, in one queue each way.
//!
//! Layout: `shard` one thread's loop · `arrivals` connecting, joining, coming back · `departures` goodbyes and ends ·
//! `orders` who is told what · `slow` who reads a little at a time · `lines` the books by phases · `heartbeats` when each
//! says that it is alive · `intake` bytes to packets to the ledger · `open` a socket on its source address

mod arrivals;
mod departures;
mod heartbeats;
mod intake;
mod lines;
mod open;
mod orders;
mod shard;
mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

pub(crate) use open::begin;

use super::{Books, Due, Engine, EngineError, Gauges, Tally};
use crate::load::behaviour::{Acknowledging, Order};
use crate::load::scenario::Scenario;
use shard::Shard;

/// What the engine asks of every thread. Each is answered by one [`Answer`].
#[derive(Debug, Clone)]
enum Ask {
    Seal,
    Open(Arc<Books>),
    Order(Order),
    Outstanding(Arc<[u32]>),
    LookIntoUnread,
    /// One past the highest number heard, by stream.
    Heard,
    Settle(Arc<[u32]>),
}

enum Answer {
    /// Of clients or messages.
    Count(u64),
    /// By stream.
    Numbers(Vec<u32>),
    Tally(Box<Tally>),
    Refused(EngineError),
}

/// What the threads of an engine share.
#[derive(Debug)]
struct Shared {
    scenario: Scenario,
    /// The run whose messages count; 0 until the first is heard.
    run: AtomicU32,
}

/// One thread's gauges, written by it once per loop. As in [`Gauges`].
#[derive(Debug, Default)]
struct ShardGauges {
    joined: AtomicU64,
    failed: AtomicU64,
    closed: AtomicU64,
    present: AtomicU64,
    returning: AtomicU64,
    astray: AtomicU64,
    closed_astray: AtomicU64,
    received: AtomicU64,
    faults: AtomicU64,
}

struct Worker {
    /// `None` once it was joined. Without its questions a thread ends.
    handle: Option<JoinHandle<Result<(), EngineError>>>,
    asks: Option<Sender<Ask>>,
    answers: Receiver<Answer>,
    gauges: Arc<ShardGauges>,
}

impl Worker {
    /// Why the thread is gone.
    fn post_mortem(&mut self) -> EngineError {
        match self.handle.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error,
            _ => EngineError::Panicked,
        }
    }
}

/// See the module.
pub struct SocketEngine {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

impl SocketEngine {
    /// Starts the threads, which begin to connect at once.
    ///
    /// # Errors
    /// When the system has no thread left, or the scenario asks for what no socket does.
    pub fn start(scenario: &Scenario) -> Result<Self, EngineError> {
        if scenario.behaviour.acknowledging != Acknowledging::default() {
            return Err(EngineError::NoSuchSocket("lose what comes, or acknowledge it late"));
        }
        let shared = Arc::new(Shared { scenario: scenario.clone(), run: AtomicU32::new(scenario.run) });
        let mut engine = Self { shared, workers: Vec::new() };
        let (clients, threads) = (u64::from(scenario.clients), scenario.threads as u64);
        for index in 0..threads {
            // Rounded so that the parts differ by one at most and add up.
            let (first, end) = (clients * index / threads, clients * (index + 1) / threads);
            engine.spawn(index as usize, first as u32..end as u32)?;
        }
        Ok(engine)
    }

    fn spawn(&mut self, index: usize, clients: std::ops::Range<u32>) -> Result<(), EngineError> {
        let gauges = Arc::new(ShardGauges::default());
        let ((ask, asks), (answer, answers)) = (channel(), channel());
        let (shared, own_gauges) = (Arc::clone(&self.shared), Arc::clone(&gauges));
        let handle = thread::Builder::new()
            .name(format!("clients-{index}"))
            .spawn(move || Shard::new(shared, own_gauges, clients).and_then(|shard| shard.run(&asks, &answer)))
            .map_err(EngineError::io("start a client thread"))?;
        self.workers.push(Worker { handle: Some(handle), asks: Some(ask), answers, gauges });
        Ok(())
    }

    /// Asks all threads, and gives each one's answer to `take`. Each looks into its queue at least every
    /// `shard::LOOK_EVERY`, so this ends; a thread that died is an error.
    fn ask(&mut self, ask: &Ask, mut take: impl FnMut(Answer)) -> Result<(), EngineError> {
        for worker in &mut self.workers {
            let sent = worker.asks.as_ref().is_some_and(|asks| asks.send(ask.clone()).is_ok());
            if !sent {
                return Err(worker.post_mortem());
            }
        }
        let mut refused = None;
        for worker in &mut self.workers {
            match worker.answers.recv() {
                Ok(Answer::Refused(error)) => refused = Some(error),
                Ok(answer) => take(answer),
                Err(_) => return Err(worker.post_mortem()),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn count(&mut self, ask: &Ask) -> Result<u64, EngineError> {
        let mut sum = 0;
        self.ask(ask, |answer| {
            if let Answer::Count(count) = answer {
                sum += count;
            }
        })?;
        Ok(sum)
    }

    /// The answers by stream, brought together by `merge`.
    fn numbers(&mut self, ask: &Ask, merge: fn(u32, u32) -> u32) -> Result<Vec<u32>, EngineError> {
        let mut all: Vec<u32> = Vec::new();
        self.ask(ask, |answer| {
            if let Answer::Numbers(numbers) = answer {
                all.resize(all.len().max(numbers.len()), 0);
                all.iter_mut().zip(numbers).for_each(|(sum, number)| *sum = merge(*sum, number));
            }
        })?;
        Ok(all)
    }

    /// A thread whose queue is gone closes its clients and ends.
    fn stop(&mut self) -> Result<(), EngineError> {
        for worker in &mut self.workers {
            worker.asks = None;
        }
        let mut outcome = Ok(());
        for worker in &mut self.workers {
            if let Some(handle) = worker.handle.take() {
                outcome = outcome.and(handle.join().unwrap_or(Err(EngineError::Panicked)));
            }
        }
        outcome
    }
}

impl Engine for SocketEngine {
    fn gauges(&self) -> Gauges {
        let mut sum = Gauges::default();
        for Worker { gauges, .. } in &self.workers {
            sum.joined += gauges.joined.load(Ordering::Relaxed);
            sum.failed += gauges.failed.load(Ordering::Relaxed);
            sum.closed += gauges.closed.load(Ordering::Relaxed);
            sum.present += gauges.present.load(Ordering::Relaxed);
            sum.returning += gauges.returning.load(Ordering::Relaxed);
            sum.astray += gauges.astray.load(Ordering::Relaxed);
            sum.closed_astray += gauges.closed_astray.load(Ordering::Relaxed);
            sum.received += gauges.received.load(Ordering::Relaxed);
            sum.faults += gauges.faults.load(Ordering::Relaxed);
        }
        sum
    }

    fn check(&mut self) -> Result<(), EngineError> {
        for worker in &mut self.workers {
            // None of them ends before its queue does, but by an error.
            if worker.handle.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(worker.post_mortem());
            }
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<u64, EngineError> {
        self.count(&Ask::Seal)
    }

    fn open(&mut self, books: &Books) -> Result<Vec<u32>, EngineError> {
        self.shared.run.store(books.run, Ordering::Relaxed);
        self.numbers(&Ask::Open(Arc::new(books.clone())), |sum, members| sum + members)
    }

    fn order(&mut self, order: Order) -> Result<u64, EngineError> {
        self.count(&Ask::Order(order))
    }

    fn outstanding(&mut self, ends: &[u32]) -> Result<u64, EngineError> {
        self.count(&Ask::Outstanding(ends.into()))
    }

    fn look_into_unread(&mut self) -> Result<(), EngineError> {
        self.count(&Ask::LookIntoUnread).map(drop)
    }

    fn settle(&mut self, due: Due) -> Result<Tally, EngineError> {
        let ends = match due {
            Due::Published(ends) => ends,
            Due::AsHeard => self.numbers(&Ask::Heard, u32::max)?,
        };
        let mut sum = Tally::default();
        self.ask(&Ask::Settle(ends.into()), |answer| {
            if let Answer::Tally(tally) = answer {
                sum.merge(&tally);
            }
        })?;
        sum.run = self.shared.run.load(Ordering::Relaxed);
        sum.time_broadcasts();
        Ok(sum)
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        self.stop()
    }

    fn name(&self) -> &'static str {
        "socket"
    }
}

impl Drop for SocketEngine {
    fn drop(&mut self) {
        // A panic there has been printed by the thread itself, and nobody is left to hear of an error.
        let _ = self.stop();
    }
}
