//! What shards tell the trunk, and how it gets there.
//!
//! A shard has a descriptor table of its own, so it must not wake an async runtime: that writes to a descriptor,
//! whose number means something else in the shard's table. News therefore cross in a queue and a courier thread,
//! woken by a futex, which lives with the runtime's descriptors and passes them on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use tokio::sync::mpsc;
use wire::auth::AuthBody;
use wire::goim::Header;
use wire::key::Place;

/// News that the courier has handed over and the trunk has not taken; behind them they wait in the desk.
const HANDED_OVER: usize = 1_024;

/// How often an idle courier looks whether there is anybody left to bring news to.
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

struct Shared {
    /// News that the courier has not fetched. Full means that the trunk is behind; see [`NewsDesk::tell`].
    queue: ArrayQueue<News>,
    /// Set while the courier sleeps, so that waking it costs a system call only then.
    courier_sleeps: AtomicBool,
    /// Session news were lost: the trunk has to ask every shard for the full picture.
    resync_due: AtomicBool,
}

impl NewsDesk {
    /// A desk that holds `capacity` news, its courier, and the end where the news come out.
    ///
    /// # Errors
    /// The courier's thread cannot be started.
    pub fn open(capacity: usize) -> io::Result<(Self, mpsc::Receiver<News>)> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(capacity),
            courier_sleeps: AtomicBool::new(false),
            resync_due: AtomicBool::new(false),
        });
        let (handed_over, receiver) = mpsc::channel(HANDED_OVER);
        let courier = thread::Builder::new().name("courier".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || carry(&shared, &handed_over)
        })?;
        Ok((Self { shared, courier: courier.thread().clone() }, receiver))
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
        if self.shared.courier_sleeps.swap(false, SeqCst) {
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

/// The courier's life: it ends when nobody takes the news any more.
fn carry(shared: &Shared, handed_over: &mpsc::Sender<News>) {
    while !handed_over.is_closed() {
        while let Some(news) = shared.queue.pop() {
            if handed_over.blocking_send(news).is_err() {
                return;
            }
        }
        shared.courier_sleeps.store(true, SeqCst);
        if shared.queue.is_empty() {
            thread::park_timeout(COURIER_NAP);
        }
        shared.courier_sleeps.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(slot: u32) -> News {
        News::Left { place: Place { node: 1, shard: 0, slot, generation: 0 } }
    }

    fn slot(news: Option<News>) -> Option<u32> {
        match news {
            Some(News::Left { place }) => Some(place.slot),
            _ => None,
        }
    }

    #[test]
    fn news_come_out_in_order() {
        let (desk, mut receiver) = NewsDesk::open(4_096).unwrap();
        for count in 0..3_000 {
            assert!(desk.tell(left(count)));
        }
        for count in 0..3_000 {
            assert_eq!(slot(receiver.blocking_recv()), Some(count));
        }
    }

    #[test]
    fn lost_session_news_ask_for_a_resync_once() {
        let (desk, receiver) = NewsDesk::open(1).unwrap();
        // Nobody receives: the courier's hands, then the desk, fill up.
        while desk.tell(left(0)) {}
        assert!(desk.take_resync_due());
        assert!(!desk.take_resync_due());
        drop(receiver);
    }
}
