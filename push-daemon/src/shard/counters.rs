//! What a shard counts. Only the shard writes, so an addition is a plain load and store; anybody may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use super::reason::CloseReason;
use crate::lanes::MAX_LANES;

/// One figure with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The figure now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, by: u64) {
        self.0.store(self.get().wrapping_add(by), Relaxed);
    }

    /// Adds, or takes away.
    pub(crate) fn add_signed(&self, by: i64) {
        self.0.store(self.get().wrapping_add_signed(by), Relaxed);
    }

    pub(crate) fn subtract(&self, by: u64) {
        self.0.store(self.get().wrapping_sub(by), Relaxed);
    }

    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Relaxed);
    }
}

/// The figures of one shard. Those in `_total` only grow; the others are gauges.
#[derive(Debug)]
#[repr(align(128))] // Two cache lines, as the prefetcher takes them, so that shards do not share one.
pub struct Counters {
    /// Connections that were accepted.
    pub accepted_total: Counter,
    /// Connections there are, lingering ones included.
    pub connections: Counter,
    /// Those of them on WebSocket.
    pub websocket_connections: Counter,
    /// Those of them that are in.
    pub joined: Counter,
    /// Rooms with members here.
    pub rooms: Counter,
    /// Packets handed to client sockets or owed to them.
    pub delivered_packets_total: Counter,
    /// Bytes of those.
    pub delivered_bytes_total: Counter,
    /// Sends that carried them.
    pub sends_total: Counter,
    /// System calls for those sends: fewer where io_uring takes many at once.
    pub send_calls_total: Counter,
    /// Sends that the kernel had no memory for; they are tried again at each tick.
    pub sends_without_memory_total: Counter,
    /// Clients that take batches as zlib.
    pub zlib_clients: Counter,
    /// Clients that take batches as brotli.
    pub brotli_clients: Counter,
    /// 1 when sends go through io_uring.
    pub io_uring: Counter,
    /// Connections whose sockets the kernel holds for io_uring: sends to those look no descriptor up.
    pub held_sockets: Counter,
    /// Packets that were owed to connections when those were closed.
    pub dropped_packets_total: Counter,
    /// Bytes owed to slow clients.
    pub owed_bytes: Counter,
    /// Clients that owe reading.
    pub debtors: Counter,
    /// Packets from clients.
    pub client_packets_total: Counter,
    /// Orders taken from the queue.
    pub orders_total: Counter,
    /// Times that the listeners were closed because the shard was full.
    pub full_total: Counter,
    /// `accept` failed: no descriptor, no memory.
    pub accept_errors_total: Counter,
    /// Times that the loop stood still for longer than it ever sleeps, and did not count that time.
    pub standstills_total: Counter,
    /// Turns of the loop: one that stands still is stuck.
    pub turns_total: Counter,
    /// Nanoseconds of work, waiting not counted.
    pub busy_ns_total: Counter,
    closed: [Counter; CloseReason::ALL.len()],
    /// By the number of the ISP; made when there are lanes for the first time.
    lanes: OnceLock<Arc<[LaneCounters]>>,
}

/// What a shard counts of one lane.
#[derive(Debug, Default)]
pub struct LaneCounters {
    /// Connections from the ISP's addresses.
    pub connections: Counter,
    /// Those of them that wait for the lane.
    pub waiting: Counter,
    /// Bytes that went to them, with headers, as far as user space can tell.
    pub bytes_total: Counter,
    /// Sends that had to wait for the lane.
    pub delayed_total: Counter,
    /// Connections that were closed because they waited too long, or for too much.
    pub closed_total: Counter,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            accepted_total: Counter::default(),
            connections: Counter::default(),
            websocket_connections: Counter::default(),
            joined: Counter::default(),
            rooms: Counter::default(),
            delivered_packets_total: Counter::default(),
            delivered_bytes_total: Counter::default(),
            sends_total: Counter::default(),
            send_calls_total: Counter::default(),
            sends_without_memory_total: Counter::default(),
            zlib_clients: Counter::default(),
            brotli_clients: Counter::default(),
            io_uring: Counter::default(),
            held_sockets: Counter::default(),
            dropped_packets_total: Counter::default(),
            owed_bytes: Counter::default(),
            debtors: Counter::default(),
            client_packets_total: Counter::default(),
            orders_total: Counter::default(),
            full_total: Counter::default(),
            accept_errors_total: Counter::default(),
            standstills_total: Counter::default(),
            turns_total: Counter::default(),
            busy_ns_total: Counter::default(),
            closed: std::array::from_fn(|_| Counter::default()),
            lanes: OnceLock::new(),
        }
    }

    /// Of the lane with this number, once there are lanes.
    #[must_use]
    pub fn lane(&self, id: u8) -> Option<&LaneCounters> {
        self.lanes.get()?.get(usize::from(id))
    }

    /// Of all lanes, which there are from now on.
    pub(crate) fn make_lanes(&self) -> &Arc<[LaneCounters]> {
        self.lanes.get_or_init(|| (0..MAX_LANES).map(|_| LaneCounters::default()).collect())
    }

    /// Connections closed for `reason`.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> &Counter {
        &self.closed[reason as usize]
    }
}
