//! What shards are told and what they tell: the only two ways in and out of a shard.
//!
//! Orders come in through one bounded queue and a `Waker`; news go out through `news`. Nothing else is shared, so a
//! shard needs no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crossbeam_queue::ArrayQueue;
use mio::Waker;
use wire::goim::Header;
use wire::key::Place;

use super::presence::RoomName;
use crate::block::Run;
use crate::lanes::LaneOrder;

/// Something for a shard to do.
#[derive(Debug)]
pub enum Order {
    /// Deliver packets to every member of a room.
    DeliverToRoom(Arc<RoomRun>),
    /// Deliver packets.
    Deliver(Arc<Delivery>),
    /// Deliver packets to the connections at these places, as far as they accept the operation.
    DeliverToPlaces(Box<[Place]>, Arc<[OperationRun]>),
    /// Admission has decided on a client.
    Admitted(Place, Box<Admitted>),
    /// Admission will not have a client.
    Refused(Place, Refusal),
    /// The logic tier has taken a client's message, or not.
    MessageDone(Place, Header, Option<Refusal>),
    /// People online, over all edges, by room.
    RoomCounts(Arc<[(RoomName, u32)]>),
    /// End these connections.
    Close(Arc<[Place]>, Refusal),
    /// Keep to this plan of lanes.
    Lanes(LaneOrder),
    /// Tell of every session again.
    Resync,
    /// Take no more connections and say goodbye to those that are here, spread over this time.
    Drain {
        /// Milliseconds until the last one has been told.
        over_ms: u32,
        /// Milliseconds for which those that are on their way still come in, where connections are steered; the kernel lets no
        /// others come. 0: what waits goes to whoever else listens.
        last_call_ms: u32,
    },
    /// End the loop.
    Stop,
}

impl Order {
    /// What is to be delivered to a room, if it is that.
    pub(crate) fn to_room(&self) -> Option<&RoomRun> {
        match self {
            Self::DeliverToRoom(run) => Some(run),
            _ => None,
        }
    }
}

/// Packets for the members of a room.
#[derive(Debug)]
pub struct RoomRun {
    /// The room.
    pub room: RoomName,
    /// The packets.
    pub run: Run,
}

/// Packets for several shards.
#[derive(Debug)]
pub enum Delivery {
    /// To connections that brought one of these keys themselves and accept the operation.
    OwnKeys(Box<[Box<str>]>, Arc<[OperationRun]>),
    /// To connections of these users that accept the operation.
    Mids(Box<[i64]>, Arc<[OperationRun]>),
    /// To every connection that accepts the operation, this many connections per second on this shard (0: at once).
    All(u32, Arc<[OperationRun]>),
}

/// Packets of one operation, in order.
#[derive(Debug, Clone)]
pub struct OperationRun {
    /// What a connection has to accept.
    pub operation: i32,
    /// The packets.
    pub run: Run,
}

/// What admission allows a client.
#[derive(Debug)]
pub struct Admitted {
    /// User id.
    pub mid: i64,
    /// A key that the client brought, if it did.
    pub key: Option<Box<str>>,
    /// The room to join.
    pub room: Option<Box<str>>,
    /// Operations that it accepts.
    pub accepts: Vec<i32>,
    /// Rooms that it may move to; `None` means any.
    pub rooms: Option<Box<[Box<str>]>>,
    /// Where it comes from, as the shard said when it asked.
    pub address: String,
}

/// A no, with its reason.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// As the client sees it.
    pub code: i32,
    /// As the client sees it.
    pub reason: Arc<str>,
}

/// A way to give one shard orders.
#[derive(Clone)]
pub struct ShardHandle {
    /// Orders not yet taken by the loop. Full means that the shard is behind: the sender keeps the order and
    /// tries again; nothing is dropped here.
    orders: Arc<ArrayQueue<Order>>,
    /// Set while the loop waits in `poll`, so that a waking costs a system call only then.
    asleep: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl ShardHandle {
    pub(crate) fn new(capacity: usize, waker: Waker) -> Self {
        Self {
            orders: Arc::new(ArrayQueue::new(capacity)),
            asleep: Arc::new(AtomicBool::new(false)),
            waker: Arc::new(waker),
        }
    }

    /// Puts an order in the queue without waking the shard; see [`Self::wake`].
    ///
    /// # Errors
    /// Gives the order back when the queue is full.
    pub fn queue(&self, order: Order) -> Result<(), Order> {
        self.orders.push(order)
    }

    /// Wakes the shard if it sleeps. Once after several orders is enough.
    pub fn wake(&self) {
        if self.asleep.swap(false, SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake a shard; it takes its orders at its next tick");
        }
    }

    pub(crate) fn take(&self) -> Option<Order> {
        self.orders.pop()
    }

    /// Says that the loop is about to wait. False when orders are there, and it must not.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, SeqCst);
        if self.orders.is_empty() {
            return true;
        }
        self.asleep.store(false, SeqCst);
        false
    }

    pub(crate) fn woke(&self) {
        self.asleep.store(false, SeqCst);
    }
}
