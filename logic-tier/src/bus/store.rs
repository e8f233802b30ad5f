//! The bus on disk: records by (partition, offset), the last offset of each partition, the last chat of each edge.
//!
//! One call is one transaction. It keeps no thread and no clock (`now_ms` is an argument), and it never gives an
//! offset out twice: the tails are stored beside the records and survive their trimming.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::record::{Record, stored};
use super::{BusError, ChatId, Entry, Span};

/// "format", "bus", "partitions", "record_bytes".
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Partition to the last offset given out; 0 before the first.
const TAILS: TableDefinition<u32, u64> = TableDefinition::new("tails");
/// (partition, offset) to a `stored` record. Bounded by retention.
const RECORDS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("records");
/// (edge, incarnation) to (last chat, when in ms). Bounded by [`CHAT_MEMORY_MS`].
const CHATS: TableDefinition<(&str, u64), (u64, u64)> = TableDefinition::new("chats");

/// The layout of the tables above.
const FORMAT: u64 = 1;

/// How long the last chat of an incarnation is remembered. An edge sends again what was not answered as soon as it
/// has a line, so a week is far beyond any resend.
const CHAT_MEMORY_MS: u64 = 7 * 24 * 3_600_000;

/// Chats judged in one sweep.
const CHAT_SWEEP: usize = 1_024;

/// Records trimmed in a transaction beyond those that it appends: retention keeps up, and no commit waits long for it.
const TRIM_STEP: usize = 256;

/// A key in RECORDS.
const KEY_BYTES: u64 = 12;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) bytes: u64,
    pub(super) age_ms: u64,
}

/// A record that wants in.
pub(super) struct Candidate<'a> {
    pub(super) record: &'a Record,
    /// Set for a client's message: appended only when its id is above the last one.
    pub(super) chat: Option<&'a ChatId>,
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    At {
        partition: u32,
        offset: u64,
    },
    /// The chat was appended before.
    Already,
}

#[derive(Debug)]
pub(super) struct Store {
    database: Database,
    path: PathBuf,
    id: u64,
}

/// What the writer knows of the store without asking it.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) spans: Vec<Span>,
    pub(super) record_bytes: u64,
    pub(super) trimmed: u64,
}

impl Store {
    /// Opens the store in `directory`, or creates it with `partitions` and the id that `draw_id` gives.
    pub(super) fn open(
        directory: &Path,
        partitions: u32,
        cache_bytes: usize,
        draw_id: impl FnOnce() -> Result<u64, BusError>,
    ) -> Result<(Self, State), BusError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| BusError::Directory { directory: directory.into(), source })?;
        let path = directory.join("bus.redb");
        let database = Database::builder().set_cache_size(cache_bytes).create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => BusError::InUse { directory: directory.into() },
            error => BusError::storage(&path, "open", error),
        })?;
        let mut store = Self { database, path, id: 0 };
        let state = store.load(partitions, draw_id).map_err(|error| error.place(&store.path, "open"))?;
        Ok((store, state))
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    fn load(&mut self, partitions: u32, draw_id: impl FnOnce() -> Result<u64, BusError>) -> Result<State, Fault> {
        let transaction = self.database.begin_write()?;
        let state = {
            let mut meta = transaction.open_table(META)?;
            let mut tails = transaction.open_table(TAILS)?;
            let records = transaction.open_table(RECORDS)?;
            transaction.open_table(CHATS)?;
            let format = meta.get("format")?.map(|value| value.value());
            match format {
                None => {
                    self.id = draw_id().map_err(Fault::Bus)?;
                    for (key, value) in [
                        ("format", FORMAT),
                        ("bus", self.id),
                        ("partitions", u64::from(partitions)),
                        ("record_bytes", 0),
                    ] {
                        meta.insert(key, value)?;
                    }
                    for partition in 0..partitions {
                        tails.insert(partition, 0)?;
                    }
                }
                Some(FORMAT) => {}
                Some(found) => {
                    return Err(Fault::Bus(BusError::Format { path: self.path.clone(), found, known: FORMAT }));
                }
            }
            let number = |key| -> Result<u64, Fault> { Ok(meta.get(key)?.map_or(0, |value| value.value())) };
            self.id = number("bus")?;
            let found = number("partitions")?;
            if found != u64::from(partitions) {
                let path = self.path.clone();
                return Err(Fault::Bus(BusError::Partitions { path, found, asked: partitions }));
            }
            let record_bytes = number("record_bytes")?;
            let mut spans = Vec::new();
            for partition in 0..partitions {
                let tail = tails.get(partition)?.map_or(0, |value| value.value());
                let first = records.range((partition, 0)..=(partition, u64::MAX))?.next().transpose()?;
                let head = first.map_or(tail + 1, |(key, _)| key.value().1);
                spans.push(Span { head, tail });
            }
            State { spans, record_bytes, trimmed: 0 }
        };
        transaction.commit()?;
        Ok(state)
    }

    /// Appends `candidates` in order and trims, in one transaction that is on disk when this returns.
    ///
    /// `state` moves only when it succeeded.
    pub(super) fn commit(
        &self,
        state: &mut State,
        candidates: &[Candidate<'_>],
        retention: Retention,
        now_ms: u64,
    ) -> Result<Vec<Placed>, BusError> {
        self.try_commit(state, candidates, retention, now_ms).map_err(|error| error.place(&self.path, "append to"))
    }

    fn try_commit(
        &self,
        state: &mut State,
        candidates: &[Candidate<'_>],
        retention: Retention,
        now_ms: u64,
    ) -> Result<Vec<Placed>, Fault> {
        let mut next = state.clone();
        // The default durability: `commit` returns when the disk has it.
        let transaction = self.database.begin_write()?;
        let mut placed = Vec::with_capacity(candidates.len());
        {
            let mut records = transaction.open_table(RECORDS)?;
            let mut chats = transaction.open_table(CHATS)?;
            for candidate in candidates {
                if let Some(chat) = candidate.chat {
                    let key = (chat.edge.as_str(), chat.incarnation);
                    let last = chats.get(key)?.map_or(0, |value| value.value().0);
                    if chat.id <= last {
                        placed.push(Placed::Already);
                        continue;
                    }
                    chats.insert(key, (chat.id, now_ms))?;
                }
                let partition = candidate.record.partition(next.spans.len() as u32);
                let span = &mut next.spans[partition as usize];
                span.tail += 1;
                let bytes = stored::encode(candidate.record, now_ms);
                records.insert((partition, span.tail), bytes.as_slice())?;
                next.record_bytes += KEY_BYTES + bytes.len() as u64;
                placed.push(Placed::At { partition, offset: span.tail });
            }
            trim(&mut records, &mut next, retention, candidates.len() + TRIM_STEP, now_ms)?;
            let mut tails = transaction.open_table(TAILS)?;
            for (partition, (new, old)) in next.spans.iter().zip(&state.spans).enumerate() {
                if new.tail != old.tail {
                    tails.insert(partition as u32, new.tail)?;
                }
            }
            transaction.open_table(META)?.insert("record_bytes", next.record_bytes)?;
        }
        transaction.commit()?;
        *state = next;
        Ok(placed)
    }

    /// Whether a commit without candidates would trim something.
    pub(super) fn overdue(&self, state: &State, retention: Retention, now_ms: u64) -> Result<bool, BusError> {
        let look = || -> Result<bool, Fault> {
            let records = self.database.begin_read()?.open_table(RECORDS)?;
            let heads = heads(&records, &state.spans)?;
            Ok(oldest(&heads).is_some_and(|(_, head)| head.is_due(state.record_bytes, retention, now_ms)))
        };
        look().map_err(|error| error.place(&self.path, "read"))
    }

    /// The records behind `after`, whole, until one would pass `max_bytes` (the first never does).
    pub(super) fn read(
        &self,
        partition: u32,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, BusError> {
        let read = || -> Result<Vec<Entry>, Fault> {
            let records = self.database.begin_read()?.open_table(RECORDS)?;
            let mut entries = Vec::new();
            let mut bytes = 0;
            let from = (partition, after.saturating_add(1));
            for item in records.range(from..=(partition, u64::MAX))?.take(max_records) {
                let (key, value) = item?;
                let offset = key.value().1;
                bytes += value.value().len();
                if bytes > max_bytes && !entries.is_empty() {
                    break;
                }
                let record = stored::decode(value.value()).ok_or(Fault::Record { partition, offset })?;
                entries.push(Entry { offset, record });
            }
            Ok(entries)
        };
        read().map_err(|error| error.place(&self.path, "read"))
    }

    /// The highest chat of `incarnation` that is in the bus; 0 when there is none.
    pub(super) fn last_chat(&self, edge: &str, incarnation: u64) -> Result<u64, BusError> {
        let look = || -> Result<u64, Fault> {
            let chats = self.database.begin_read()?.open_table(CHATS)?;
            Ok(chats.get((edge, incarnation))?.map_or(0, |value| value.value().0))
        };
        look().map_err(|error| error.place(&self.path, "read"))
    }

    /// Forgets chats of incarnations that have been silent for [`CHAT_MEMORY_MS`].
    pub(super) fn forget_chats(&self, now_ms: u64) -> Result<usize, BusError> {
        let forget = || -> Result<usize, Fault> {
            let mut old = Vec::new();
            for item in self.database.begin_read()?.open_table(CHATS)?.iter()? {
                let (key, value) = item?;
                if value.value().1.saturating_add(CHAT_MEMORY_MS) < now_ms {
                    let (edge, incarnation) = key.value();
                    old.push((edge.to_owned(), incarnation));
                    if old.len() == CHAT_SWEEP {
                        break;
                    }
                }
            }
            if !old.is_empty() {
                let transaction = self.database.begin_write()?;
                {
                    let mut chats = transaction.open_table(CHATS)?;
                    for (edge, incarnation) in &old {
                        chats.remove((edge.as_str(), *incarnation))?;
                    }
                }
                transaction.commit()?;
            }
            Ok(old.len())
        };
        forget().map_err(|error| error.place(&self.path, "sweep"))
    }
}

/// The first record of a partition.
struct Head {
    offset: u64,
    appended_ms: u64,
    bytes: u64,
}

impl Head {
    fn is_due(&self, record_bytes: u64, retention: Retention, now_ms: u64) -> bool {
        record_bytes > retention.bytes || self.appended_ms.saturating_add(retention.age_ms) < now_ms
    }
}

type RecordValue = &'static [u8];

fn head(
    records: &impl ReadableTable<(u32, u64), RecordValue>,
    partition: usize,
    span: Span,
) -> Result<Option<Head>, Fault> {
    let key = (partition as u32, span.head);
    let Some(value) = records.get(key)? else { return Ok(None) };
    let appended_ms = stored::appended_ms(value.value()).ok_or(Fault::Record { partition: key.0, offset: key.1 })?;
    Ok(Some(Head { offset: span.head, appended_ms, bytes: KEY_BYTES + value.value().len() as u64 }))
}

fn heads(records: &impl ReadableTable<(u32, u64), RecordValue>, spans: &[Span]) -> Result<Vec<Option<Head>>, Fault> {
    spans.iter().enumerate().map(|(partition, span)| head(records, partition, *span)).collect()
}

/// The partition whose first record is the oldest of all, and that record.
fn oldest(heads: &[Option<Head>]) -> Option<(usize, &Head)> {
    let present = heads.iter().enumerate().filter_map(|(partition, head)| Some((partition, head.as_ref()?)));
    present.min_by_key(|(_, head)| head.appended_ms)
}

fn trim(
    records: &mut redb::Table<'_, (u32, u64), RecordValue>,
    state: &mut State,
    retention: Retention,
    max_records: usize,
    now_ms: u64,
) -> Result<(), Fault> {
    let mut heads = heads(records, &state.spans)?;
    for _ in 0..max_records {
        let Some((partition, oldest)) = oldest(&heads) else { break };
        if !oldest.is_due(state.record_bytes, retention, now_ms) {
            break;
        }
        records.remove((partition as u32, oldest.offset))?;
        state.spans[partition].head = oldest.offset + 1;
        state.record_bytes = state.record_bytes.saturating_sub(oldest.bytes);
        state.trimmed += 1;
        heads[partition] = head(records, partition, state.spans[partition])?;
    }
    Ok(())
}

/// An error on its way to the place that knows the path.
enum Fault {
    Redb(redb::Error),
    Record { partition: u32, offset: u64 },
    Bus(BusError),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        })*
    };
}
from_redb!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl Fault {
    fn place(self, path: &Path, doing: &'static str) -> BusError {
        match self {
            Self::Redb(error) => BusError::storage(path, doing, error),
            Self::Record { partition, offset } => BusError::Record { path: path.into(), partition, offset },
            Self::Bus(error) => error,
        }
    }
}
