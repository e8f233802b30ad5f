//! What shards tell the trunk, and how it gets there.
//!
//! News cross in a queue that the trunk's hub empties. Under load the hub comes by itself, once a millisecond, and finds
//! what came meanwhile: a storm of clients wakes nobody once per client. Only when there was nothing does it ask to be
//! rung for.
//!
//! A shard has a descriptor table of its own, so it must not ring for an async runtime: that writes to a descriptor,
//! whose number means something else in the shard's table. A courier thread, woken by a futex, lives with the
//! runtime's descriptors and rings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use wire::auth::AuthBody;
use wire::goim::Header;
use wire::key::Place;

/// News taken at once.
const NEWS_BATCH: usize = 1_024;

/// Between two batches: what comes meanwhile shares the cost of the next.
const GATHER: Duration = Duration::from_millis(1);

/// How often an idle courier looks whether there is anybody left to ring for.
const COURIER_NAP: Duration = Duration::from_secs(1);

/// Something that happened in a shard and concerns the logic tier.
#[derive(Debug)]
pub enum News {
    /// A client wants in.
    Auth {
        /// Where it is.
        place: Place,
        /// What it said.
        body: AuthBody,
        /// Cookie header of its upgrade.
        cookie: String,
        /// Its address.
        address: String,
    },
    /// A client is in.
    Joined {
        /// Where it is.
        place: Place,
        /// User id.
        mid: i64,
        /// The key that it brought, if it did.
        key: Option<Box<str>>,
        /// Its room, if any.
        room: Option<Box<str>>,
        /// What it runs on, as it says.
        platform: Box<str>,
        /// Its address.
        address: String,
    },
    /// A client changed its room.
    Moved {
        /// Where it is.
        place: Place,
        /// Its new room, if any.
        room: Option<Box<str>>,
    },
    /// A client that was in is gone.
    Left {
        /// Where it was.
        place: Place,
    },
    /// A client's message for its room.
    Message {
        /// Where it is.
        place: Place,
        /// Of the packet, for the reply.
        header: Header,
        /// User id.
        mid: i64,
        /// Its room.
        room: Box<str>,
        /// The message.
        body: Bytes,
    },
}

/// Where shards put their news.
#[derive(Clone)]
pub struct NewsDesk {
    shared: Arc<Shared>,
    courier: Thread,
}

/// Where the trunk takes them. Dropping it ends the courier.
pub struct NewsIntake {
    shared: Arc<Shared>,
    /// When news were last taken; `None` once there were none.
    taken: Option<Instant>,
}

struct Shared {
    /// News that the hub has not taken. Full means that the trunk is behind; see [`NewsDesk::tell`].
    queue: ArrayQueue<News>,
    /// Set while the hub waits to be rung for, so that telling costs a system call only then.
    hub_waits: AtomicBool,
    /// Somebody told the courier to ring.
    ring_due: AtomicBool,
    bell: Notify,
    /// Nobody takes news any more.
    closed: AtomicBool,
    /// Session news were lost: the trunk has to ask every shard for the full picture.
    resync_due: AtomicBool,
}

impl NewsDesk {
    /// A desk that holds `capacity` news, its courier, and the end where the news come out.
    ///
    /// # Errors
    /// The courier's thread cannot be started.
    pub fn open(capacity: usize) -> io::Result<(Self, NewsIntake)> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(capacity),
            hub_waits: AtomicBool::new(false),
            ring_due: AtomicBool::new(false),
            bell: Notify::new(),
            closed: AtomicBool::new(false),
            resync_due: AtomicBool::new(false),
        });
        let courier = thread::Builder::new().name("courier".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || ring(&shared)
        })?;
        let intake = NewsIntake { shared: Arc::clone(&shared), taken: None };
        Ok((Self { shared, courier: courier.thread().clone() }, intake))
    }

    /// Passes news on. False when there was no room: session news are then made up for by a resync, anything
    /// else the caller has to refuse.
    #[must_use]
    pub(crate) fn tell(&self, news: News) -> bool {
        let told = match self.shared.queue.push(news) {
            Ok(()) => true,
            Err(news) => {
                if matches!(news, News::Joined { .. } | News::Moved { .. } | News::Left { .. }) {
                    self.shared.resync_due.store(true, SeqCst);
                }
                false
            }
        };
        if self.shared.hub_waits.swap(false, SeqCst) {
            self.shared.ring_due.store(true, SeqCst);
            self.courier.unpark();
        }
        told
    }

    /// Whether there is room for `count` more.
    pub(crate) fn has_room_for(&self, count: usize) -> bool {
        self.shared.queue.capacity() - self.shared.queue.len() >= count
    }

    /// True once after session news were lost.
    pub(crate) fn take_resync_due(&self) -> bool {
        self.shared.resync_due.swap(false, SeqCst)
    }
}

impl NewsIntake {
    /// Waits for news and appends them to `batch`, a bounded number at once. May be dropped while it waits: nothing is
    /// lost.
    pub async fn take(&mut self, batch: &mut Vec<News>) {
        loop {
            if let Some(taken) = self.taken {
                sleep_until(taken + GATHER).await;
            }
            batch.extend(std::iter::from_fn(|| self.try_next()).take(NEWS_BATCH));
            if !batch.is_empty() {
                self.taken = Some(Instant::now());
                return;
            }
            self.taken = None;
            self.shared.hub_waits.store(true, SeqCst);
            if self.shared.queue.is_empty() {
                self.shared.bell.notified().await;
            }
            self.shared.hub_waits.store(false, SeqCst);
        }
    }

    /// The next of the news that are there now.
    pub fn try_next(&mut self) -> Option<News> {
        self.shared.queue.pop()
    }
}

impl Drop for NewsIntake {
    fn drop(&mut self) {
        self.shared.closed.store(true, SeqCst);
    }
}

/// The courier's life: it ends when nobody takes the news any more.
fn ring(shared: &Shared) {
    while !shared.closed.load(SeqCst) {
        if shared.ring_due.swap(false, SeqCst) {
            shared.bell.notify_one();
        }
        thread::park_timeout(COURIER_NAP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(slot: u32) -> News {
        News::Left { place: Place { node: 1, shard: 0, slot, generation: 0 } }
    }

    fn slot(news: News) -> Option<u32> {
        match news {
            News::Left { place } => Some(place.slot),
            _ => None,
        }
    }

    async fn next(intake: &mut NewsIntake) -> Vec<News> {
        let mut batch = Vec::new();
        intake.take(&mut batch).await;
        batch
    }

    #[tokio::test]
    async fn news_come_out_in_order() {
        let (desk, mut intake) = NewsDesk::open(4_096).unwrap();
        for count in 0..3_000 {
            assert!(desk.tell(left(count)));
        }
        let mut slots = Vec::new();
        while slots.len() < 3_000 {
            slots.extend(next(&mut intake).await.into_iter().filter_map(slot));
        }
        assert!(slots.into_iter().eq(0..3_000));
    }

    #[tokio::test]
    async fn a_hub_that_waits_is_rung_for_each_time() {
        let (desk, mut intake) = NewsDesk::open(8).unwrap();
        for count in 0..100 {
            let teller = thread::spawn({
                let desk = desk.clone();
                move || assert!(desk.tell(left(count)))
            });
            assert_eq!(next(&mut intake).await.into_iter().filter_map(slot).collect::<Vec<_>>(), [count]);
            teller.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_nothing() {
        let (desk, mut intake) = NewsDesk::open(8).unwrap();
        for count in 0..100 {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                () = intake.take(&mut batch) => panic!("nothing was told"),
                () = tokio::task::yield_now() => {}
            }
            assert!(desk.tell(left(count)));
            assert_eq!(next(&mut intake).await.into_iter().filter_map(slot).collect::<Vec<_>>(), [count]);
            // Until the hub has found the queue empty again.
            assert!(tokio::time::timeout(2 * GATHER, intake.take(&mut batch)).await.is_err());
        }
    }

    #[test]
    fn lost_session_news_ask_for_a_resync_once() {
        let (desk, _intake) = NewsDesk::open(1).unwrap();
        assert!(desk.tell(left(0)));
        assert!(!desk.tell(left(1)));
        assert!(desk.take_resync_due());
        assert!(!desk.take_resync_due());
    }
}
