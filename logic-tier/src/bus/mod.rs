//! The bus: the ordered, replayable, durable log between those who publish and the edges.
//!
//! A record is appended to the partition of its room and gets the next offset there, from 1, never twice. Appending
//! returns when the disk has it; many who append at once share one sync. Old records are trimmed by bytes and age.
//!
//! It does not merge (`job`), send (`trunk`) or judge (`api`, `admission`). Its public face is small on purpose: a
//! Kafka topic can answer the same questions.
//!
//! Layout: `record` one message and its partition · `store` the tables on disk · `writer` the thread that commits

mod record;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use record::{DIRECT_PARTITION, Origin, Record, Target, room_partition};
use store::{Placed, Retention, Store};
use writer::{Append, Order, Writer};

use crate::clock::wall_clock_ms;
use crate::config;
use crate::metrics::Metrics;

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The directory cannot be made.
    #[error("cannot create the bus directory {directory}: {source}; set [bus] directory to one that can be written")]
    Directory {
        /// As configured.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("the bus in {directory} is in use by another logic-tier; stop that one or set another [bus] directory")]
    InUse {
        /// As configured.
        directory: PathBuf,
    },
    /// A newer or foreign layout.
    #[error("the bus {path} has format {found}, and this version knows {known}; use the version that wrote it")]
    Format {
        /// The file.
        path: PathBuf,
        /// What the file says.
        found: u64,
        /// What this version reads.
        known: u64,
    },
    /// The number of partitions decides where a room is, so it cannot change under a bus.
    #[error(
        "the bus {path} was created with {found} partitions; set [bus] partitions = {found} instead of {asked}, or use a new directory"
    )]
    Partitions {
        /// The file.
        path: PathBuf,
        /// What it was created with.
        found: u64,
        /// What the config says.
        asked: u32,
    },
    /// The store failed.
    #[error("cannot {doing} the bus {path}: {source}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// A record that this version cannot read.
    #[error("the record at offset {offset} of partition {partition} in {path} cannot be read")]
    Record {
        /// The file.
        path: PathBuf,
        /// Where.
        partition: u32,
        /// Where.
        offset: u64,
    },
    /// The system gave no random number.
    #[error("cannot draw an id for the new bus: {0}")]
    Random(getrandom::Error),
    /// The system gave no thread.
    #[error("cannot start the writer of the bus: {0}")]
    Thread(std::io::Error),
}

impl BusError {
    fn storage(path: &Path, doing: &'static str, source: impl Into<redb::Error>) -> Self {
        Self::Storage { path: path.into(), doing, source: Box::new(source.into()) }
    }
}

/// Why a record was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too much waits for the disk.
    #[error("the bus is busy: too much waits for the disk; try again")]
    Busy,
    /// The tier is stopping, or its bus failed.
    #[error("the bus is closed")]
    Closed,
    /// The disk did not take it.
    #[error("the bus failed: {0}")]
    Failed(String),
}

/// What a partition holds: offsets from `head` to `tail`; nothing when `head` is `tail + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first offset that is still there.
    pub head: u64,
    /// The last offset given out.
    pub tail: u64,
}

/// A record and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its offset in the partition that was read.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

/// Names one message of one client of one run of an edge, so that it is appended once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatId {
    /// The edge.
    pub edge: String,
    /// Its run.
    pub incarnation: u64,
    /// Counts up within the run.
    pub id: u64,
}

/// An append under way; resolves when the disk has the record.
#[derive(Debug)]
pub struct Appending(oneshot::Receiver<Result<Placed, AppendError>>);

impl Appending {
    /// Waits for the disk.
    ///
    /// # Errors
    /// [`AppendError`] when the record is not in the bus, or when nobody can say whether it is.
    pub async fn durable(self) -> Result<(), AppendError> {
        self.0.await.map_err(|_| AppendError::Closed)?.map(|_| ())
    }
}

/// The bus, shared by everybody who appends or reads.
#[derive(Debug)]
pub struct Bus {
    store: Arc<Store>,
    partitions: u32,
    orders: mpsc::Sender<Order>,
    /// Bytes that may still wait for the disk. The channel above has no bound of its own: this is it.
    waiting: Arc<Semaphore>,
    waiting_bytes: usize,
    spans: watch::Receiver<Arc<[Span]>>,
    alive: watch::Receiver<Instant>,
    failure: watch::Receiver<Option<String>>,
}

/// Ends the writer and waits for it.
#[derive(Debug)]
pub struct BusCloser {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

impl BusCloser {
    /// Commits what was appended before this call, then ends the writer. Blocks meanwhile.
    pub fn close(self) {
        // An error means that the writer has ended already.
        let _ = self.orders.send(Order::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the writer of the bus had panicked");
        }
    }
}

impl Bus {
    /// Opens the bus in `directory`, or creates it.
    ///
    /// # Errors
    /// [`BusError`] says what is in the way.
    pub fn open(directory: &Path, config: &config::Bus, metrics: Arc<Metrics>) -> Result<(Self, BusCloser), BusError> {
        // At most 1024 by the config's own bound.
        let partitions = config.partitions.get() as u32;
        // 0 means "no bus" in `Hello`.
        let draw_id = || getrandom::u64().map(|id| id.max(1)).map_err(BusError::Random);
        let (store, state) = Store::open(directory, partitions, config.cache_bytes.count(), draw_id)?;
        let store = Arc::new(store);
        metrics.bus_retained_bytes.set(state.record_bytes as i64);
        let (orders, taken) = mpsc::channel();
        let (spans_sender, spans) = watch::channel(state.spans.clone().into());
        let (alive_sender, alive) = watch::channel(Instant::now());
        let (failure_sender, failure) = watch::channel(None);
        let writer = Writer {
            store: store.clone(),
            state,
            retention: Retention { bytes: config.retention_bytes.get(), age_ms: config.retention_age_s.get() * 1_000 },
            commit_records: config.commit_records.count(),
            commit_window: Duration::from_millis(config.commit_window_ms.get()),
            orders: taken,
            spans: spans_sender,
            alive: alive_sender,
            failure: failure_sender,
            metrics,
            now_ms: wall_clock_ms,
        };
        let thread = std::thread::Builder::new()
            .name("bus-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(BusError::Thread)?;
        let waiting_bytes = config.append_bytes.count();
        let waiting = Arc::new(Semaphore::new(waiting_bytes));
        let closer = BusCloser { orders: orders.clone(), thread };
        Ok((Self { store, partitions, orders, waiting, waiting_bytes, spans, alive, failure }, closer))
    }

    /// Drawn once when the bus was created.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.store.id()
    }

    /// How many strands it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// What each partition holds, now and after each commit.
    #[must_use]
    pub fn spans(&self) -> watch::Receiver<Arc<[Span]>> {
        self.spans.clone()
    }

    /// Set once when the store has failed; nothing can be appended after that.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// When the writer last showed that it runs; it does so at least once a second, or when its disk lets it.
    #[must_use]
    pub fn writer_seen(&self) -> Instant {
        *self.alive.borrow()
    }

    /// Appends `record`; [`Appending`] resolves when the disk has it.
    ///
    /// # Errors
    /// [`AppendError::Busy`] at once when too much waits already.
    pub fn append(&self, record: Record) -> Result<Appending, AppendError> {
        let permit =
            self.waiting.clone().try_acquire_many_owned(self.weight(&record)).map_err(|_| AppendError::Busy)?;
        self.order(record, None, permit)
    }

    /// Appends a client's message unless `chat` was appended before; waits for room instead of refusing.
    ///
    /// Chats that one caller appends keep their order.
    ///
    /// # Errors
    /// [`AppendError::Closed`] when the bus has ended.
    pub async fn append_chat(&self, chat: ChatId, record: Record) -> Result<Appending, AppendError> {
        let weight = self.weight(&record);
        let permit = self.waiting.clone().acquire_many_owned(weight).await.map_err(|_| AppendError::Closed)?;
        self.order(record, Some(chat), permit)
    }

    fn order(
        &self,
        record: Record,
        chat: Option<ChatId>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Appending, AppendError> {
        let (answer, answered) = oneshot::channel();
        let append = Append { record, chat, answer, permit };
        self.orders.send(Order::Append(append)).map_err(|_| AppendError::Closed)?;
        Ok(Appending(answered))
    }

    /// Never more than there is, so that a record of any size gets in when nothing else waits.
    fn weight(&self, record: &Record) -> u32 {
        record.weight_bytes().min(self.waiting_bytes) as u32
    }

    /// The records of `partition` behind `after`, at most `max_records` and about `max_bytes`, but at least one when
    /// there is one. When the first is not `after + 1`, what lies between is gone. Blocks on the disk.
    ///
    /// # Errors
    /// [`BusError`] when the store cannot be read.
    pub fn read(
        &self,
        partition: u32,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, BusError> {
        self.store.read(partition, after, max_records, max_bytes)
    }

    /// The highest chat of this run of `edge` that the bus has; 0 when there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`BusError`] when the store cannot be read.
    pub fn last_chat(&self, edge: &str, incarnation: u64) -> Result<u64, BusError> {
        self.store.last_chat(edge, incarnation)
    }
}
