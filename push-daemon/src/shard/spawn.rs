//! How a shard comes to life: its thread, its CPU, its own descriptor table, its listeners.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use mio::{Poll, Waker};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::Socket;

use super::accepts::AcceptSets;
use super::activity::MergeWindows;
use super::clock::{Clock, Tick};
use super::conn::{Connections, Side};
use super::counters::Counters;
use super::fanout::Everyone;
use super::ingress::SCRATCH_BYTES;
use super::lanes::Lanes;
use super::listen::bind;
use super::mids::Mids;
use super::news::NewsDesk;
use super::order::ShardHandle;
use super::own_keys::OwnKeys;
use super::platforms::Platforms;
use super::presence::Presence;
use super::rest::Rest;
use super::rooms::Rooms;
use super::send::{Outlet, Pieces, RING_ENTRIES};
use super::wait::Waits;
use super::{Shard, WAKER_TOKEN, longest_sleep_ms};
use crate::block::BlockPool;
use crate::config::{Limits, SendPath};
use crate::format::Format;
use crate::kernel::steer::Seat;
use crate::sys;

/// What a shard has to know of itself.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// Its number.
    pub id: u16,
    /// The edge's number, for keys.
    pub node: u16,
    /// The CPU to stay on, if any.
    pub cpu: Option<usize>,
    /// Connections it may hold: below the descriptors of one table.
    pub capacity: u32,
    /// Where it listens for plain TCP.
    pub tcp: Vec<SocketAddr>,
    /// Where it listens for WebSocket.
    pub websocket: Vec<SocketAddr>,
    /// Connections that the kernel holds until they are accepted.
    pub backlog: i32,
    /// Connections taken in between two polls.
    pub accepts_per_turn: usize,
    /// How long a shard that has just heard clients lets others speak up before it looks again, in milliseconds.
    pub rest_ms: u32,
    /// Clients that admission may be asked about at once; then no more are taken in until it answers.
    pub most_asking: u32,
    /// Sends of one round before the next has its turn.
    pub slice_sends: usize,
    /// Sends between two polls.
    pub turn_sends: usize,
    /// Orders that may wait.
    pub order_queue: usize,
    /// How sends reach the kernel.
    pub send: SendPath,
    /// Bytes of packets that may wait for rounds under way, over all rooms, before no more orders are taken.
    pub backlog_bytes: usize,
    /// The longest block.
    pub block_bytes: usize,
    /// How long messages of a room wait for others.
    pub merge: MergeWindows,
    /// Type of the rooms that Bilibili clients name by number.
    pub bilibili_room_type: Box<str>,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// Its place among those that connections are steered to, if they are.
    pub seat: Option<Seat>,
}

/// A shard that runs.
pub struct Running {
    /// Gives it orders.
    pub handle: ShardHandle,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Ends when it was told to stop, or failed.
    pub thread: JoinHandle<io::Result<()>>,
}

/// What a shard says once it listens: the addresses it got, plain TCP and WebSocket.
pub type Start = (Vec<SocketAddr>, Vec<SocketAddr>);

/// Starts a shard and waits until it listens.
///
/// The door and its waker are made here, before the thread has a descriptor table of its own, so that this
/// thread's table holds the waker as well. `presence` is what all shards of the edge share.
///
/// # Errors
/// No thread, no poll, no table of its own, or an address that cannot be listened on.
pub fn spawn(settings: ShardSettings, news: NewsDesk, presence: &Presence) -> io::Result<(Running, Start)> {
    let door = Poll::new()?;
    let waker = Waker::new(door.registry(), WAKER_TOKEN)?;
    let handle = ShardHandle::new(settings.order_queue, waker);
    let counters = Arc::new(Counters::new());
    let (ready, started) = channel();
    let thread = std::thread::Builder::new().name(format!("shard-{}", settings.id)).spawn({
        let (handle, counters, presence) = (handle.clone(), Arc::clone(&counters), presence.clone());
        move || start(settings, door, handle, news, &presence, counters, &ready)
    })?;
    match started.recv() {
        Ok(Ok(start)) => Ok((Running { handle, counters, thread }, start)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the shard's thread ended before it listened")),
    }
}

fn start(
    settings: ShardSettings,
    door: Poll,
    handle: ShardHandle,
    news: NewsDesk,
    presence: &Presence,
    counters: Arc<Counters>,
    ready: &Sender<io::Result<Start>>,
) -> io::Result<()> {
    match open(settings, door, handle, news, presence, counters) {
        Ok((mut shard, start)) => {
            // The one who waits for it has gone: the process is going down, and so does the shard.
            if ready.send(Ok(start)).is_err() {
                return Ok(());
            }
            shard.run()
        }
        Err(error) => {
            let told = io::Error::new(error.kind(), error.to_string());
            // As above: nobody waits for the reason any more.
            let _gone = ready.send(Err(told));
            Err(error)
        }
    }
}

pub(super) fn open(
    settings: ShardSettings,
    door: Poll,
    handle: ShardHandle,
    news: NewsDesk,
    presence: &Presence,
    counters: Arc<Counters>,
) -> io::Result<(Shard, Start)> {
    let seat = settings.seat.as_ref();
    let keep: Vec<RawFd> = seat.iter().flat_map(|seat| seat.descriptors()).chain([door.as_raw_fd()]).collect();
    sys::own_descriptor_table(&keep).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot give the shard a descriptor table of its own: {error}"))
    })?;
    if let Some(cpu) = settings.cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        // A shard on another CPU is slower, not wrong.
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!(shard = settings.id, cpu, %error, "cannot stay on its CPU");
        }
    }
    let unsent_bytes = settings.limits.unsent_bytes.get_u32();
    let tcp = resolve(&settings.tcp, unsent_bytes)?;
    let websocket = resolve(&settings.websocket, unsent_bytes)?;
    let mut shard = Shard {
        id: settings.id,
        node: settings.node,
        waits: Waits::new(door)?,
        rest: Rest::new(settings.rest_ms),
        listeners: Vec::new(),
        connections: Connections::with_capacity(settings.capacity),
        rooms: Rooms::new(settings.merge, presence.of_shard(settings.id)),
        mids: Mids::new(),
        accepts: AcceptSets::new(),
        own_keys: OwnKeys::new(),
        platforms: Platforms::new(),
        confined: HashMap::new(),
        inputs: Side::new(),
        debts: Side::new(),
        owed_bytes: 0,
        debts_next: 0,
        no_debts_since: None,
        lanes: Lanes::off(Instant::now()),
        labels_next: None,
        handshakes: VecDeque::new(),
        lingers: VecDeque::new(),
        unread: Vec::new(),
        rounds: VecDeque::new(),
        everyone: Everyone::default(),
        windows: Vec::new(),
        closing: Vec::new(),
        outlet: Outlet::open(settings.send, settings.id, settings.capacity)?,
        outgoing: Vec::with_capacity(RING_ENTRIES as usize),
        pieces: Pieces::default(),
        let_in: Vec::new(),
        broken: None,
        blocks: BlockPool::new(),
        due: Vec::new(),
        named: Vec::new(),
        scratch: vec![0; SCRATCH_BYTES],
        reply_buffer: Vec::new(),
        handle,
        orders: Vec::new(),
        news,
        counters,
        joined: 0,
        joined_by_format: [0; Format::ALL.len()],
        websocket_connections: 0,
        // Twice as long as it ever sleeps: an ordinary turn is far below.
        clock: Clock::new(Instant::now(), 2 * longest_sleep_ms(&settings.limits)),
        now: Tick(0),
        last_tick: Tick(0),
        sweep_next: 0,
        resync_next: None,
        draining: None,
        last_call: None,
        accept_again: None,
        tcp: tcp.iter().map(|(address, _)| *address).collect(),
        websocket: websocket.iter().map(|(address, _)| *address).collect(),
        backlog: settings.backlog,
        accepts_per_turn: settings.accepts_per_turn,
        asking: 0,
        most_asking: settings.most_asking,
        slice_sends: settings.slice_sends,
        turn_sends: settings.turn_sends,
        block_bytes: settings.block_bytes,
        backlog_bytes: settings.backlog_bytes,
        bilibili_room_type: settings.bilibili_room_type,
        limits: settings.limits,
        seat: settings.seat,
    };
    shard.hang_the_bell()?;
    shard.counters.io_uring.set(u64::from(shard.outlet.is_ring()));
    shard.listen()?;
    let start = (shard.tcp.clone(), shard.websocket.clone());
    Ok((shard, start))
}

/// Finds out which port the kernel gives for port 0, and holds it until the listeners are open.
fn resolve(addresses: &[SocketAddr], unsent_bytes: u32) -> io::Result<Vec<(SocketAddr, Option<Socket>)>> {
    addresses
        .iter()
        .map(|address| {
            if address.port() != 0 {
                return Ok((*address, None));
            }
            let holder = bind(*address, unsent_bytes)?;
            let got = holder.local_addr()?.as_socket().unwrap_or(*address);
            Ok((got, Some(holder)))
        })
        .collect()
}
