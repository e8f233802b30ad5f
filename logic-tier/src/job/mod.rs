//! The job: turns what the bus has into frames for the trunk, once for all lines.
//!
//! One task per partition follows the tail and keeps the newest frames ready. A line that is further behind asks
//! [`Job::replay`] for the stretch that it needs, at its own pace, until it meets the frames again: what a slow edge
//! costs is a position, not a queue.
//!
//! It does not know lines or edges (`trunk`).
//!
//! Layout: `merge` records into a frame · `ready` the newest frames

pub mod merge;
pub mod ready;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, Span};
use crate::config;
use merge::{Frame, Limits, Merge};
use ready::{Next, Ready};

/// What lies behind a position in the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// First and last position that the bus no longer has.
    pub lost: Option<(u64, u64)>,
    /// What it has behind that; `None` at the tail.
    pub frame: Option<Frame>,
}

/// The frames of all partitions.
#[derive(Debug)]
pub struct Job {
    bus: Arc<Bus>,
    limits: Limits,
    merge_time: Duration,
    ready: Vec<Mutex<Ready>>,
    /// Counts frames, over all partitions: whoever waits for a change sees one.
    news: watch::Sender<u64>,
    /// Replays that may read the disk at the same moment.
    replays: Semaphore,
}

impl Job {
    /// Follows `bus` from where it is now. The tasks that do it are [`Job::follow`]'s.
    #[must_use]
    pub fn new(bus: Arc<Bus>, config: &config::Job) -> Self {
        let spans = bus.spans().borrow().clone();
        let ready = spans.iter().map(|span| Mutex::new(Ready::new(span.tail, config.ready_bytes.count()))).collect();
        Self {
            bus,
            limits: Limits { packets: config.merge_packets.count(), bytes: config.merge_bytes.count() },
            merge_time: Duration::from_millis(config.merge_ms.get()),
            ready,
            news: watch::channel(0).0,
            replays: Semaphore::new(config.replays.count()),
        }
    }

    /// Changes whenever a frame became ready.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What a line at `cursor` sends next.
    #[must_use]
    pub fn next(&self, partition: u32, cursor: u64) -> Next {
        self.with_ready(partition, |ready| ready.next(cursor))
    }

    /// The stretch behind `after`, read from the bus. Waits when too many read at once.
    ///
    /// # Errors
    /// [`BusError`] when the bus cannot be read.
    pub async fn replay(self: &Arc<Self>, partition: u32, after: u64) -> Result<Stretch, BusError> {
        // The semaphore is never closed; without a permit the read would only be less fair.
        let _permit = self.replays.acquire().await;
        self.read(partition, after).await
    }

    /// Keeps the frames of `partition` ready until `stop`.
    ///
    /// # Errors
    /// [`BusError`] when the bus cannot be read: nothing reaches the edges any more.
    pub async fn follow(self: Arc<Self>, partition: u32, stop: CancellationToken) -> Result<(), BusError> {
        let mut spans = self.bus.spans();
        let mut cursor = self.with_ready(partition, |ready| ready.end());
        loop {
            let Some(Some(tail)) = stop.run_until_cancelled(self.due(partition, cursor, &mut spans)).await else {
                return Ok(());
            };
            while cursor < tail {
                let stretch = self.read(partition, cursor).await?;
                if stretch.lost.is_none() && stretch.frame.is_none() {
                    break;
                }
                if let Some((_, last)) = stretch.lost {
                    // Retention is shorter than our own delay. Lines will say what is lost to their edges.
                    tracing::warn!(partition, after = cursor, last, "the bus trimmed messages before they were merged");
                    cursor = last;
                }
                if let Some(frame) = stretch.frame {
                    cursor = frame.last;
                    self.with_ready(partition, |ready| ready.push(frame));
                    self.news.send_modify(|count| *count += 1);
                }
            }
        }
    }

    /// Waits until something behind `cursor` shall leave, and says up to where. `None`: the bus has ended.
    async fn due(&self, partition: u32, cursor: u64, spans: &mut watch::Receiver<Arc<[Span]>>) -> Option<u64> {
        let tail = |spans: &[Span]| spans.get(partition as usize).map_or(0, |span| span.tail);
        let first_seen = tail(&spans.wait_for(|spans| tail(spans) > cursor).await.ok()?);
        if self.merge_time.is_zero() {
            return Some(first_seen);
        }
        let full = cursor + self.limits.packets as u64;
        let deadline = Instant::now() + self.merge_time;
        // Full or late, what is there now leaves; only the end of the bus makes a difference.
        if let Ok(filled) = tokio::time::timeout_at(deadline, spans.wait_for(|spans| tail(spans) >= full)).await {
            filled.ok()?;
        }
        Some(tail(&spans.borrow_and_update()))
    }

    async fn read(&self, partition: u32, after: u64) -> Result<Stretch, BusError> {
        let (bus, limits) = (self.bus.clone(), self.limits);
        let read = tokio::task::spawn_blocking(move || stretch(&bus, partition, after, limits)).await;
        // The only other outcome is that the runtime is going down, or a panic, which is passed on.
        read.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Ok(Stretch { lost: None, frame: None }),
        })
    }

    fn with_ready<T>(&self, partition: u32, then: impl FnOnce(&mut Ready) -> T) -> T {
        // Whoever panicked while holding it left it whole: each change of a `Ready` is made by one call.
        then(&mut self.ready[partition as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn stretch(bus: &Bus, partition: u32, after: u64, limits: Limits) -> Result<Stretch, BusError> {
    let entries = bus.read(partition, after, limits.packets, limits.bytes)?;
    let Some(first) = entries.first() else {
        // Everything behind `after` may have been trimmed, or there is nothing behind it.
        let spans = bus.spans();
        let head = spans.borrow().get(partition as usize).map_or(1, |span| span.head);
        let lost = (head > after + 1).then(|| (after + 1, head - 1));
        return Ok(Stretch { lost, frame: None });
    };
    let previous = first.offset - 1;
    let mut merge = Merge::new(partition, previous, limits);
    for entry in &entries {
        if !merge.offer(entry) {
            break;
        }
    }
    let lost = (previous > after).then_some((after + 1, previous));
    Ok(Stretch { lost, frame: merge.cut().map(merge::encode) })
}
