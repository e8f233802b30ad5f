//! The data plane: one event loop per shard.
//!
//! A shard owns its connections, its rooms and its descriptor table. It takes orders from one bounded queue and
//! never waits for anything but `Poll`; it never locks, and it allocates nothing per message or idle connection.
//!
//! It does not: decode trunk frames (`trunk`), decide who may enter (the logic tier), keep time (the loop passes
//! `now` in), or touch another shard.
//!
//! Layout: `conn` state · `listen` accepts · `ingress` bytes in · `requests` what a client asks · `session` coming
//! and going · `rooms`, `room_index`, `mids`, `own_keys`, `accepts`, `platforms` who is where · `presence` what the hub
//! knows of that · `activity` what a room has to send · `fanout` one block to many · `send`, `ring`, `files` how bytes
//! reach the kernel · `egress`, `debt` what a slow socket still owes · `lanes`, `labels` who waits for its ISP's lane, and
//! which that is · `liveness` who fell silent · `order`, `intake`, `news` orders in and news out · `wait`, `rest` what the
//! loop waits for · `counters`, `reason` what is counted · `tables` for benchmarks

mod accepts;
mod activity;
#[cfg(test)]
mod by_hand;
mod clock;
mod conn;
pub mod counters;
mod debt;
mod egress;
mod fanout;
mod files;
#[cfg(test)]
mod full_lanes;
#[cfg(test)]
mod held_sockets;
mod ingress;
mod intake;
mod labels;
mod lanes;
mod listen;
mod liveness;
mod mids;
pub mod news;
pub mod order;
mod own_keys;
mod platforms;
pub mod presence;
pub mod reason;
mod requests;
mod rest;
mod ring;
mod room_index;
mod rooms;
mod send;
#[cfg(test)]
mod send_faults;
mod session;
mod spawn;
#[cfg(test)]
mod standstills;
#[cfg(test)]
mod storms;
pub mod tables;
mod wait;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem};

use abi::steer::ShardState;
use mio::Token;
use wire::key::Place;

use accepts::AcceptSets;
pub use activity::MergeWindows;
use clock::{Clock, Tick};
use conn::{Connections, Side};
use counters::Counters;
use debt::Debt;
use fanout::{Everyone, Round, Windows};
use ingress::Input;
use lanes::Lanes;
use listen::Listener;
use mids::Mids;
use news::NewsDesk;
use order::{Order, ShardHandle};
use own_keys::OwnKeys;
use platforms::Platforms;
use reason::CloseReason;
use rest::Rest;
use rooms::Rooms;
use send::{Outgoing, Outlet, Pieces};
pub use spawn::{Running, ShardSettings, Start, spawn};
use wait::{Came, Waits};

use crate::block::BlockPool;
use crate::config::Limits;
use crate::format::{Format, Formats};
use crate::kernel::steer::Seat;

/// The waker's token. Connections have their slot and generation.
const WAKER_TOKEN: Token = Token(usize::MAX);

/// Rings when a shard has stopped listening.
const BELL_TOKEN: Token = Token(usize::MAX - 1);

/// Listeners are numbered from here; no slot is as high as its lower half.
const LISTENER_TOKEN_BASE: usize = usize::MAX - 1024;

/// Longest sleep, so that a stuck loop can be told from an idle one.
const MAX_SLEEP_MS: u32 = 1_000;

/// One event loop with all it owns. It is made on its own thread and never leaves it.
pub struct Shard {
    id: u16,
    node: u16,
    waits: Waits,
    rest: Rest,
    listeners: Vec<Listener>,
    connections: Connections,
    rooms: Rooms,
    mids: Mids,
    accepts: AcceptSets,
    own_keys: OwnKeys,
    platforms: Platforms,
    /// Rooms that confined clients may move to. Bounded by the connections.
    confined: HashMap<u32, Box<[Box<str>]>>,
    inputs: Side<Input>,
    debts: Side<Debt>,
    /// Sum of all debts.
    owed_bytes: usize,
    /// Where the next tick goes on looking at debts.
    debts_next: usize,
    /// Since when there has been no debt, if there were some.
    no_debts_since: Option<Tick>,
    lanes: Lanes,
    /// Where the next turn goes on asking which lane a connection is in, after a change of plan.
    labels_next: Option<u32>,
    /// Connections by the time by which they have to be in: what was accepted within the handshake time-out.
    handshakes: VecDeque<(Place, Tick)>,
    /// Connections that were told goodbye, by the time at which they are closed all the same.
    lingers: VecDeque<(Place, Tick)>,
    /// Connections of which more could be read than one turn allows.
    unread: Vec<Place>,
    rounds: VecDeque<Round>,
    everyone: Everyone,
    windows: Vec<Windows>,
    closing: Vec<(Place, CloseReason)>,
    blocks: BlockPool,
    outlet: Outlet,
    /// The sends of the slice under way; kept for its memory.
    outgoing: Vec<Outgoing>,
    /// What they carry; kept for its memory.
    pieces: Pieces,
    /// Clients that were let in and whose answer is among them: what they sent meanwhile is taken up behind it.
    let_in: Vec<Place>,
    /// Why the shard cannot go on.
    broken: Option<io::Error>,
    /// Slots that a slice serves; kept for its memory.
    due: Vec<u32>,
    /// Slots that a push names; kept for its memory.
    named: Vec<u32>,
    scratch: Vec<u8>,
    reply_buffer: Vec<u8>,
    handle: ShardHandle,
    /// Orders taken and not yet done; kept for its memory.
    orders: Vec<Order>,
    news: NewsDesk,
    counters: Arc<Counters>,
    joined: u32,
    /// Clients that are in, by the number of their format.
    joined_by_format: [u32; Format::ALL.len()],
    websocket_connections: u32,
    clock: Clock,
    /// Of this turn.
    now: Tick,
    last_tick: Tick,
    sweep_next: u32,
    resync_next: Option<u32>,
    draining: Option<Drain>,
    /// While it drains and still takes what was on its way: until when.
    last_call: Option<Tick>,
    /// After a failed accept: not before.
    accept_again: Option<Tick>,
    tcp: Vec<SocketAddr>,
    websocket: Vec<SocketAddr>,
    backlog: i32,
    accepts_per_turn: usize,
    /// Connections that admission is being asked about.
    asking: u32,
    /// When so many are, no more are accepted: they wait in the kernel's queue, where nobody refuses them.
    most_asking: u32,
    slice_sends: usize,
    turn_sends: usize,
    block_bytes: usize,
    backlog_bytes: usize,
    bilibili_room_type: Box<str>,
    limits: Limits,
    /// Where connections are steered to, if they are.
    seat: Option<Seat>,
}

/// A goodbye to all, spread over time.
struct Drain {
    began: Tick,
    over_ms: u32,
    /// Connections at its beginning.
    total: u32,
    told: u32,
    next: u32,
}

impl Drop for Shard {
    fn drop(&mut self) {
        // However it ends: what waits in its queues goes to the others while its clients are closed.
        self.close_doors(ShardState::Gone);
    }
}

/// Slot and generation in one word, so that an event of an earlier connection is not taken for one of the present.
fn token_of(slot: u32, generation: u32) -> Token {
    Token((generation as usize) << 32 | slot as usize)
}

/// How long a loop with nothing to do sleeps.
fn longest_sleep_ms(limits: &Limits) -> u32 {
    (limits.heartbeat_timeout_ms.get_u32() / 8).clamp(liveness::TICK_MS, MAX_SLEEP_MS)
}

impl Shard {
    /// Runs until told to stop.
    fn run(&mut self) -> io::Result<()> {
        let mut came = Came::new();
        loop {
            let awake = self.has_work() || !self.handle.fall_asleep();
            let wait = if awake { Duration::ZERO } else { self.sleep() };
            let rest = self.rest_left().filter(|_| !awake);
            let waited = self.waits.wait(&mut came, rest.map_or(wait, |rest| rest.min(wait)), rest.is_some());
            self.handle.woke();
            waited?;
            if !self.turn(&came, Instant::now())? {
                return Ok(());
            }
        }
    }

    /// Does what is to be done at the moment `began`. False when the shard has to stop.
    fn turn(&mut self, came: &Came, began: Instant) -> io::Result<bool> {
        let (now, skipped) = self.clock.turn(began);
        self.now = now;
        self.lanes.begin_turn(began);
        if !skipped.is_zero() {
            self.counters.standstills_total.add(1);
            tracing::warn!(shard = self.id, ?skipped, "stood still; that time counts for no client");
        }
        for event in came.door() {
            self.at_the_door(event);
        }
        self.hear(came);
        self.read_unread();
        self.accept();
        self.send_gathered();
        if !self.take_orders() {
            return Ok(false);
        }
        self.close_windows();
        self.serve_lanes(self.turn_sends);
        self.serve_rounds(self.turn_sends);
        self.go_on_with_resync();
        self.go_on_with_labels();
        self.drain();
        self.tick();
        self.close_gathered();
        self.lanes.end_turn();
        self.switch_lanes_off();
        self.outlet.let_go();
        self.publish(began);
        match self.broken.take() {
            Some(error) => Err(error),
            None => Ok(true),
        }
    }

    fn at_the_door(&mut self, event: &mio::event::Event) {
        match event.token() {
            WAKER_TOKEN => {}
            BELL_TOKEN => self.look_at_all_listeners(),
            Token(token) if token >= LISTENER_TOKEN_BASE => self.listener_is_ready(token - LISTENER_TOKEN_BASE),
            Token(_) => {}
        }
    }

    /// Hears the clients that spoke, answers all of them in one slice, and lets the next ones gather.
    fn hear(&mut self, came: &Came) {
        let mut heard = 0;
        for event in came.clients() {
            heard += 1;
            self.dispatch(event);
        }
        if heard > 0 {
            self.send_gathered();
        }
        self.rest.heard(heard, came.is_full(), self.now);
    }

    /// How much longer the shard hears nobody but the door.
    fn rest_left(&self) -> Option<Duration> {
        // Who is owed something is waited for: his socket may take more by now. Whose lane is full has nothing to say.
        if self.debts.in_use() > self.lanes.waiting() as usize { None } else { self.rest.left(self.now) }
    }

    fn dispatch(&mut self, event: &mio::event::Event) {
        let Token(token) = event.token();
        let (slot, generation) = (token as u32, (token >> 32) as u32);
        if self.connections.get_exact(slot, generation).is_none() {
            return;
        }
        if event.is_writable() {
            self.pay(slot);
        }
        let is_there = self.connections.get_exact(slot, generation).is_some();
        if is_there && (event.is_readable() || event.is_read_closed() || event.is_error()) {
            let place = self.place(slot);
            // An end of stream that came with data makes no event of its own: read until it shows.
            if self.read(slot) || (event.is_read_closed() && self.slot_of(&place).is_some()) {
                self.unread.push(place);
            }
        }
    }

    fn read_unread(&mut self) {
        for place in mem::take(&mut self.unread) {
            if let Some(slot) = self.slot_of(&place)
                && self.read(slot)
            {
                self.unread.push(place);
            }
        }
    }

    fn begin_drain(&mut self, over_ms: u32, last_call_ms: u32) {
        self.call_last(last_call_ms);
        let total = self.connections.live();
        self.draining = Some(Drain { began: self.now, over_ms, total, told: 0, next: 0 });
    }

    /// Says goodbye to as many as the time that has passed asks for.
    fn drain(&mut self) {
        let Some(mut drain) = self.draining.take() else { return };
        if self.last_call_is_over() {
            // Some came in behind where it is.
            (drain.total, drain.next) = (drain.told + self.connections.live(), 0);
        }
        let elapsed = self.now.since(drain.began);
        let share = match drain.over_ms {
            0 => u64::from(drain.total),
            over => u64::from(drain.total) * u64::from(elapsed.min(over)) / u64::from(over),
        };
        let all = elapsed >= drain.over_ms;
        while drain.next < self.connections.end() && (all || u64::from(drain.told) < share) {
            let slot = drain.next;
            drain.next += 1;
            if self.connections.get(slot).is_some_and(|conn| conn.phase != conn::Phase::Lingering) {
                self.part(slot, CloseReason::Draining, None);
                drain.told += 1;
            }
        }
        self.draining = Some(drain);
    }

    /// The formats that clients of this shard take.
    fn formats(&self) -> Formats {
        Format::ALL.into_iter().filter(|format| self.joined_by_format[*format as usize] > 0).collect()
    }

    fn has_work(&self) -> bool {
        !self.unread.is_empty()
            || !self.closing.is_empty()
            || self.rounds_are_due()
            || self.accepts_are_due()
            || self.resync_is_due()
            || self.labels_next.is_some()
            || self.lanes.are_due()
    }

    fn sleep(&self) -> Duration {
        let timers = !self.handshakes.is_empty()
            || !self.lingers.is_empty()
            || !self.rounds.is_empty()
            || self.inputs.in_use() > 0
            || self.debts.in_use() > 0
            || self.resync_next.is_some()
            || self.draining.is_some()
            || self.listeners.is_empty()
            || self.accept_again.is_some();
        let paced = self.rounds.contains(&Round::Everyone);
        let tick = match (paced, timers) {
            (true, _) => 10,
            (false, true) => u64::from(liveness::TICK_MS),
            (false, false) => u64::from(longest_sleep_ms(&self.limits)),
        };
        // A window that closes within this millisecond is due in the next.
        let window = self.next_window_ms().map_or(u64::MAX, |ms| u64::from(ms.max(1)));
        let lanes = self.lanes.pause_ms().map_or(u64::MAX, u64::from);
        Duration::from_millis(tick.min(window).min(lanes))
    }

    fn publish(&self, began: Instant) {
        let counters = &self.counters;
        counters.connections.set(u64::from(self.connections.live()));
        counters.websocket_connections.set(u64::from(self.websocket_connections));
        counters.joined.set(u64::from(self.joined));
        counters.rooms.set(self.rooms.len() as u64);
        counters.owed_bytes.set(self.owed_bytes as u64);
        counters.held_sockets.set(u64::from(self.outlet.held()));
        counters.debtors.set(self.debts.in_use() as u64);
        if let Some(seat) = &self.seat {
            seat.set_load(self.connections.live());
        }
        counters.zlib_clients.set(u64::from(self.joined_by_format[Format::Zlib as usize]));
        counters.brotli_clients.set(u64::from(self.joined_by_format[Format::Brotli as usize]));
        counters.turns_total.add(1);
        counters.busy_ns_total.add(began.elapsed().as_nanos() as u64);
    }
}
