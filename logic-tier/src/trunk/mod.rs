//! The tier's end of the trunk: lines come in, frames go out, questions are answered.
//!
//! A line is served by one task: one reader, one writer, one queue of answers with a bound. What is pushed is not
//! queued at all: a line is a position in each partition (`job` has the frames), so a stuck edge costs its own lines
//! and nobody else's.
//!
//! Every line gets every stretch. A push by key or by mid goes to all edges too, and each of them resolves the names
//! it knows: a key's place is on one edge, but a mid may be on all, and the tier would need every session to know.
//!
//! Layout: `frames` bytes to messages · `hello` who comes in · `line` what it says · `writer` what it is told
//! · `edges` who is connected · `counts` what edges hear of rooms

mod counts;
mod edges;
mod frames;
mod hello;
mod line;
mod writer;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use edges::{EdgeView, Edges};

use crate::admission::Admission;
use crate::bus::Bus;
use crate::config::Config;
use crate::job::Job;
use crate::metrics::{LineEnd, LineLabel, Metrics};
use crate::sessions::{EdgeId, Sessions};

/// Sessions forgotten before the lock is given to others.
const FORGET_STEP: usize = 4_096;

/// How often edges without lines are looked at, and figures are taken.
const JANITOR_INTERVAL: Duration = Duration::from_millis(250);

/// Rounds of room counts that a line may be behind; further, it gets all counts again.
const COUNT_ROUNDS: usize = 8;

/// What lines share.
pub struct Trunk {
    bus: Arc<Bus>,
    job: Arc<Job>,
    admission: Admission,
    sessions: Mutex<Sessions>,
    edges: Edges,
    /// Each round of changed room counts, encoded once.
    counts: broadcast::Sender<Arc<[Bytes]>>,
    metrics: Arc<Metrics>,
    config: Config,
}

impl Trunk {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(bus: Arc<Bus>, job: Arc<Job>, config: &Config, metrics: Arc<Metrics>) -> Self {
        Self {
            bus,
            job,
            admission: Admission::new(&config.admission),
            sessions: Mutex::new(Sessions::new(config.sessions.max.count())),
            edges: Edges::new(config.trunk.max_lines_per_edge.count()),
            counts: broadcast::channel(COUNT_ROUNDS).0,
            metrics,
            config: config.clone(),
        }
    }

    /// Who is connected.
    #[must_use]
    pub fn edges(&self) -> &Edges {
        &self.edges
    }

    /// Who is online. Hold it briefly.
    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // Its methods do not panic half way; see `sessions`.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes lines in until `stop`, then ends them all.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.config.trunk.max_lines.count()));
        let lines = TaskTracker::new();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: a moment later some may be free.
                    tracing::warn!(%error, "cannot accept a trunk line");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                self.count_end(LineEnd::TooMany);
                continue;
            };
            let (trunk, stop) = (self.clone(), stop.child_token());
            lines.spawn(async move {
                trunk.metrics.lines.inc();
                let end = trunk.clone().line(stream, peer, stop).await;
                trunk.metrics.lines.dec();
                trunk.count_end(end);
                drop(place);
            });
        }
        lines.close();
        lines.wait().await;
    }

    /// Tells edges of room counts, forgets edges that stay away, takes figures; until `stop`.
    pub async fn housekeep(self: Arc<Self>, stop: CancellationToken) {
        let grace = Duration::from_millis(self.config.sessions.grace_ms.get());
        let mut counts = tokio::time::interval(Duration::from_millis(self.config.sessions.counts_interval_ms.get()));
        let mut janitor = tokio::time::interval(JANITOR_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = counts.tick() => self.tell_counts(),
                _ = janitor.tick() => {
                    for edge in self.edges.expire(Instant::now(), grace) {
                        self.forget(edge).await;
                    }
                    self.take_figures();
                }
            }
        }
    }

    async fn line(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) -> LineEnd {
        // Answers are small and waited for; a failure to set this only delays them.
        let _ = stream.set_nodelay(true);
        line::serve(self, stream, peer, stop).await
    }

    async fn forget(&self, edge: EdgeId) {
        while self.sessions().forget(edge, FORGET_STEP) {
            tokio::task::yield_now().await;
        }
    }

    fn tell_counts(&self) {
        let changed = self.sessions().take_changed();
        if !changed.is_empty() {
            // No receiver: no line is up, and the next one begins with all counts.
            let _ = self.counts.send(counts::frames(changed));
        }
    }

    fn take_figures(&self) {
        {
            let sessions = self.sessions();
            self.metrics.sessions.set(sessions.total() as i64);
            self.metrics.rooms.set(sessions.rooms() as i64);
            self.metrics.addresses.set(sessions.addresses() as i64);
        }
        let spans = self.bus.spans().borrow().clone();
        let (edges, lag) = self.edges.figures(&spans);
        self.metrics.edges.set(edges as i64);
        self.metrics.ack_lag.set(lag as i64);
    }

    fn count_end(&self, reason: LineEnd) {
        self.metrics.line_ends.get_or_create(&LineLabel { reason }).inc();
    }
}
