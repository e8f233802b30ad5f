//! One kernel socket per client, spread over threads that share nothing but a few atomics.
//!
//! Each thread has its own descriptor table, so that the clients of a run may be more than `RLIMIT_NOFILE`, and its own
//! `Poll`. A client costs its socket, twelve bytes, and eight in the ledger; it has no buffer while nothing is incomplete.
//!
//! Layout: `shard` one thread's loop · `intake` bytes to packets to the ledger · `open` a socket on its source address

mod intake;
mod open;
mod shard;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

pub(crate) use open::begin;

use super::{Due, Engine, EngineError, Gauges, Tally};
use crate::load::broadcasts::Broadcasts;
use crate::load::ledger::Ledger;
use crate::load::scenario::Scenario;
use shard::Shard;

/// What all threads do now; only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Phase {
    /// Connecting.
    Build,
    /// Whoever has not joined has failed; the others listen.
    Run,
    /// Close everything.
    Stop,
}

/// What the threads of an engine share.
#[derive(Debug)]
struct Shared {
    scenario: Scenario,
    phase: AtomicU8,
    /// Joined clients per room.
    members: Vec<AtomicU32>,
    /// The run whose messages count; 0 until the first is heard.
    run: AtomicU32,
}

impl Shared {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Build,
            1 => Phase::Run,
            _ => Phase::Stop,
        }
    }
}

/// One thread's gauges, written by it once per loop.
#[derive(Debug, Default)]
struct ShardGauges {
    joined: AtomicU64,
    failed: AtomicU64,
    closed: AtomicU64,
    received: AtomicU64,
    faults: AtomicU64,
    /// Set after the thread has abandoned whoever had not joined.
    sealed: AtomicBool,
}

/// What a thread hands back: its counts, and its ledger still to be settled.
struct Harvest {
    tally: Tally,
    ledger: Ledger,
    broadcasts: Broadcasts,
    /// The client at slot 0.
    first_client: u32,
    /// By slot, whether it ever joined.
    joined: Vec<bool>,
}

struct Worker {
    handle: JoinHandle<()>,
    result: Receiver<Result<Harvest, EngineError>>,
    gauges: Arc<ShardGauges>,
}

/// See the module.
pub struct SocketEngine {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Results that came before they were asked for: errors, or the end after `Stop`.
    early: Vec<Option<Result<Harvest, EngineError>>>,
}

impl SocketEngine {
    /// Starts the threads, which begin to connect at once.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(scenario: &Scenario) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared {
            scenario: scenario.clone(),
            phase: AtomicU8::new(Phase::Build as u8),
            members: (0..scenario.rooms).map(|_| AtomicU32::new(0)).collect(),
            run: AtomicU32::new(scenario.run),
        });
        let mut engine = Self { shared, workers: Vec::new(), early: Vec::new() };
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
        let (done, result) = sync_channel(1);
        let (shared, own_gauges) = (Arc::clone(&self.shared), Arc::clone(&gauges));
        let handle = thread::Builder::new()
            .name(format!("clients-{index}"))
            .spawn(move || {
                let harvest = Shard::new(shared, own_gauges, clients).and_then(Shard::run);
                // Nobody listens any more when the engine was dropped; then nobody needs the result.
                let _ = done.send(harvest);
            })
            .map_err(EngineError::io("start a client thread"))?;
        self.workers.push(Worker { handle, result, gauges });
        self.early.push(None);
        Ok(())
    }

    fn enter(&self, phase: Phase) {
        self.shared.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    fn members(&self) -> Vec<u32> {
        self.shared.members.iter().map(|members| members.load(Ordering::Acquire)).collect()
    }
}

impl Engine for SocketEngine {
    fn gauges(&self) -> Gauges {
        let mut sum = Gauges::default();
        for Worker { gauges, .. } in &self.workers {
            sum.joined += gauges.joined.load(Ordering::Relaxed);
            sum.failed += gauges.failed.load(Ordering::Relaxed);
            sum.closed += gauges.closed.load(Ordering::Relaxed);
            sum.received += gauges.received.load(Ordering::Relaxed);
            sum.faults += gauges.faults.load(Ordering::Relaxed);
        }
        sum
    }

    fn check(&mut self) -> Result<(), EngineError> {
        for (worker, early) in self.workers.iter().zip(&mut self.early) {
            match early.take() {
                Some(Err(error)) => return Err(error),
                Some(harvest) => *early = Some(harvest),
                None if worker.handle.is_finished() => match worker.result.try_recv() {
                    Ok(Err(error)) => return Err(error),
                    Ok(harvest) => *early = Some(harvest),
                    Err(_) => return Err(EngineError::Panicked),
                },
                None => {}
            }
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<Vec<u32>, EngineError> {
        self.enter(Phase::Run);
        // Each thread looks at the phase at least every `shard::LOOK_EVERY`, so this ends; a thread that died is an error.
        while !self.workers.iter().all(|worker| worker.gauges.sealed.load(Ordering::Acquire)) {
            self.check()?;
            thread::sleep(shard::LOOK_EVERY);
        }
        Ok(self.members())
    }

    fn finish(mut self: Box<Self>, due: Due) -> Result<Tally, EngineError> {
        self.enter(Phase::Stop);
        let mut harvests = Vec::with_capacity(self.workers.len());
        for (worker, early) in std::mem::take(&mut self.workers).into_iter().zip(std::mem::take(&mut self.early)) {
            let result = early.unwrap_or_else(|| worker.result.recv().map_err(|_| EngineError::Panicked)?);
            worker.handle.join().map_err(|_| EngineError::Panicked)?;
            harvests.push(result?);
        }
        let scenario = &self.shared.scenario;
        let ends = match due {
            Due::Published(ends) => ends,
            Due::AsHeard => ends_as_heard(&harvests, scenario),
        };
        let mut sum = Tally { run: self.shared.run.load(Ordering::Relaxed), ..Tally::default() };
        let mut broadcasts = Broadcasts::new(scenario.rooms as usize);
        for harvest in &harvests {
            absorb(&mut sum, &harvest.tally);
            broadcasts.merge(&harvest.broadcasts);
            for slot in 0..harvest.joined.len() as u32 {
                if harvest.joined[slot as usize] {
                    let room = scenario.room_of(harvest.first_client + slot);
                    harvest.ledger.settle(slot, ends[room as usize], &mut sum.balance);
                }
            }
        }
        sum.last_receiver_us = broadcasts.last_receiver_us();
        sum.heard_until_ns = broadcasts.until_ns();
        Ok(sum)
    }

    fn name(&self) -> &'static str {
        "socket"
    }
}

impl Drop for SocketEngine {
    fn drop(&mut self) {
        self.enter(Phase::Stop);
        for worker in self.workers.drain(..) {
            // A panic there has been printed by the thread itself.
            let _ = worker.handle.join();
        }
    }
}

fn ends_as_heard(harvests: &[Harvest], scenario: &Scenario) -> Vec<u32> {
    let mut ends = vec![0; scenario.rooms as usize];
    for harvest in harvests {
        for slot in 0..harvest.joined.len() as u32 {
            let room = scenario.room_of(harvest.first_client + slot) as usize;
            ends[room] = ends[room].max(harvest.ledger.end_of(slot).unwrap_or(0));
        }
    }
    ends
}

fn absorb(sum: &mut Tally, part: &Tally) {
    sum.joined += part.joined;
    sum.failed.merge(&part.failed);
    sum.closed.merge(&part.closed);
    sum.counts.received += part.counts.received;
    sum.counts.gaps += part.counts.gaps;
    sum.counts.duplicates += part.counts.duplicates;
    sum.counts.order_faults += part.counts.order_faults;
    sum.counts.unremembered += part.counts.unremembered;
    sum.misrouted += part.misrouted;
    sum.foreign += part.foreign;
    sum.heartbeats_sent += part.heartbeats_sent;
    sum.heartbeats_answered += part.heartbeats_answered;
    sum.bytes_received += part.bytes_received;
    sum.delay_us.add(&part.delay_us).expect("all histograms are made with the same bounds");
    sum.join_us.add(&part.join_us).expect("all histograms are made with the same bounds");
}
