//! Shards that are no more than listeners, steered to between two namespaces.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use abi::steer::ShardState;
use push_daemon::kernel::{
    KernelPlane, Mode,
    steer::{Seat, SteerReport, Steering},
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::{Domain, Socket, Type};

use crate::netns::{Bpffs, Namespace, Pair, SERVER_INTERFACE, config, eventually, object};

const PORT: u16 = 3101;
/// More than any test uses.
const SHARDS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// Two CPUs that this process may use.
pub(crate) struct CpuPair {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

pub(crate) fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
}

/// `None` after saying that there is only one.
pub(crate) fn two_cpus() -> Option<CpuPair> {
    if let [first, second, ..] = cpus()[..] {
        return Some(CpuPair { first, second });
    }
    eprintln!("skipped: {}: it takes two CPUs", thread::current().name().unwrap_or("a test"));
    None
}

/// Keeps this thread on one CPU. What it sends over a veth pair or loopback comes in on the same one.
pub(crate) fn on_cpu(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).unwrap();
}

/// Namespaces, pins and the filter.
pub(crate) struct Ground {
    _plane: KernelPlane,
    pub(crate) pair: Pair,
    pub(crate) bpffs: Bpffs,
    config: push_daemon::kernel::KernelConfig,
}

/// Listeners, one to a shard, all on one address.
pub(crate) struct Steered {
    listeners: Vec<Option<TcpListener>>,
    pub(crate) seats: Vec<Seat>,
    steering: Steering,
    pub(crate) address: SocketAddr,
    pub(crate) ground: Arc<Ground>,
}

impl Steered {
    /// `None` after saying why not.
    pub(crate) fn start(mode: Mode, server: &str, cpus: &[Option<usize>]) -> Option<Self> {
        let object = object()?;
        let (bpffs, pair) = (Bpffs::mount(), Pair::new());
        let config = config(&object, &bpffs, SERVER_INTERFACE, mode);
        let plane = pair.server.run(|| KernelPlane::bring_up(&config)).unwrap();
        let address = SocketAddr::new(server.parse().unwrap(), PORT);
        Some(Self::on(Arc::new(Ground { _plane: plane, pair, bpffs, config }), address, cpus))
    }

    fn on(ground: Arc<Ground>, address: SocketAddr, cpus: &[Option<usize>]) -> Self {
        let steering = Steering::load(&ground.config, cpus).unwrap();
        let seats: Vec<_> = (0..cpus.len() as u16).map(|shard| steering.seat(shard)).collect();
        let listeners = seats.iter().map(|seat| Some(listen(&ground.pair.server, address, seat))).collect();
        Self { listeners, seats, steering, address, ground }
    }

    /// Another process's worth of the same, beside this.
    pub(crate) fn successor(&self) -> Self {
        Self::on(Arc::clone(&self.ground), self.address, &vec![None; self.seats.len()])
    }

    /// Connections that have said something, made on `cpu` if it matters.
    pub(crate) fn connect(&self, cpu: Option<usize>, count: usize) -> Vec<TcpStream> {
        self.ground.pair.client.run(|| {
            if let Some(cpu) = cpu {
                on_cpu(cpu);
            }
            (0..count)
                .map(|_| {
                    let mut client = TcpStream::connect(self.address).unwrap();
                    client.set_read_timeout(Some(PATIENCE)).unwrap();
                    client.write_all(b"x").unwrap();
                    client
                })
                .collect()
        })
    }

    /// Accepts until there are `count`; those of each shard.
    pub(crate) fn accept(&mut self, count: usize) -> [Vec<TcpStream>; SHARDS] {
        let mut taken = [const { Vec::new() }; SHARDS];
        eventually("all connections are there to accept", || {
            for (taken, listener) in taken.iter_mut().zip(&self.listeners) {
                taken.extend(listener.iter().flat_map(|listener| std::iter::from_fn(|| accept(listener))));
            }
            taken.iter().map(Vec::len).sum::<usize>() >= count
        });
        assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), count);
        taken
    }

    /// Waits until so many are in the queue of a shard's listener.
    pub(crate) fn await_waiting(&self, shard: usize, count: usize) {
        let listener = self.listeners[shard].as_ref().unwrap();
        eventually("they wait to be accepted", || self.ground.pair.server.run(|| waiting(listener)) == count);
    }

    /// Closes a shard's listener with all that waits there.
    pub(crate) fn close(&mut self, shard: usize, state: ShardState) {
        self.seats[shard].set_state(state);
        self.listeners[shard] = None;
    }

    /// Has a shard listen anew.
    pub(crate) fn reopen(&mut self, shard: usize) {
        let listener = listen(&self.ground.pair.server, self.address, &self.seats[shard]);
        self.listeners[shard] = Some(listener);
    }

    /// Connections were put so, at least as many as it says (one whose SYN was repeated is put twice), and in no other way.
    pub(crate) fn chose(&self, expected: &[(&str, usize)]) {
        let counts = self.report().choices;
        let made: Vec<_> = counts.iter().filter(|count| count.connections > 0).collect();
        let as_expected = made.len() == expected.len()
            && made
                .iter()
                .zip(expected)
                .all(|(count, (choice, least))| count.choice == *choice && count.connections >= *least as u64);
        assert!(as_expected, "{expected:?}, but {made:?}");
    }

    pub(crate) fn report(&self) -> SteerReport {
        self.steering.report().unwrap()
    }

    pub(crate) fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Everything but the ground goes, as with a process.
    pub(crate) fn end(self) -> Arc<Ground> {
        self.ground
    }

    /// Serves connections on every shard at once while `work` goes on.
    pub(crate) fn serving(self, work: impl FnOnce(&Storm)) {
        let Self { listeners, seats, steering, address, ground } = self;
        let listeners = listeners.into_iter().map(Mutex::new).collect();
        let storm = Storm { listeners, seats, steering, address, ground, served: AtomicUsize::new(0) };
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for shard in 0..storm.listeners.len() {
                let (storm, over) = (&storm, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        if !storm.serve_one(shard) {
                            thread::yield_now();
                        }
                    }
                });
            }
            // Also when it panics: the others would serve for ever.
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&storm)));
            over.store(true, Ordering::Relaxed);
            worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

/// Shards that answer one byte with one.
pub(crate) struct Storm {
    listeners: Vec<Mutex<Option<TcpListener>>>,
    seats: Vec<Seat>,
    steering: Steering,
    pub(crate) address: SocketAddr,
    pub(crate) ground: Arc<Ground>,
    served: AtomicUsize,
}

impl Storm {
    fn serve_one(&self, shard: usize) -> bool {
        let accepted = self.listeners[shard].lock().unwrap().as_ref().and_then(accept);
        let Some(mut server) = accepted else { return false };
        server.set_nonblocking(false).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.read_exact(&mut [0]).unwrap();
        server.write_all(b"y").unwrap();
        self.served.fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Accepts nothing on a shard until something waits there, and then closes its listener with it.
    pub(crate) fn close_on_somebody(&self, shard: usize, state: ShardState) {
        let mut listener = self.listeners[shard].lock().unwrap();
        eventually("somebody waits at the listener", || {
            self.ground.pair.server.run(|| waiting(listener.as_ref().unwrap())) > 0
        });
        self.seats[shard].set_state(state);
        *listener = None;
    }

    pub(crate) fn reopen(&self, shard: usize) {
        let listener = listen(&self.ground.pair.server, self.address, &self.seats[shard]);
        *self.listeners[shard].lock().unwrap() = Some(listener);
    }

    /// How many were moved from one listener to another.
    pub(crate) fn migrated(&self) -> u64 {
        let choices = self.steering.report().unwrap().choices;
        choices.iter().find(|count| count.choice == "migrated").unwrap().connections
    }
}

fn listen(server: &Namespace, address: SocketAddr, seat: &Seat) -> TcpListener {
    server.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1_024).unwrap();
        let listener = TcpListener::from(socket);
        seat.enlist(0, address, &listener).unwrap();
        seat.set_state(ShardState::Open);
        listener
    })
}

fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept() {
        Ok((socket, _)) => Some(socket),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("accept: {error}"),
    }
}

/// Connections in the queue of a listener of this thread's namespace.
fn waiting(listener: &TcpListener) -> usize {
    let inode = rustix::fs::fstat(listener).unwrap().st_ino.to_string();
    let table = if listener.local_addr().unwrap().is_ipv4() { "tcp" } else { "tcp6" };
    let table = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
    let line = table.lines().find(|line| line.split_whitespace().nth(9) == Some(&inode)).unwrap();
    let queues = line.split_whitespace().nth(4).unwrap();
    usize::from_str_radix(queues.split_once(':').unwrap().1, 16).unwrap()
}
