//! One thread of the server: a descriptor table, a listener, and sockets in the order in which they came.
//!
//! While clients come in it waits for events. During a broadcast it waits for blocks and looks at nothing else, as a raw
//! loop would.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use socket2::{Domain, Protocol, Socket, Type};
use wire::goim::{self, Header, op};

use super::outlet::Outlet;
use crate::floor::options::SendPath;
use crate::floor::orders::Sent;
use crate::sys;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// Events taken in one turn.
const MAX_EVENTS: usize = 1024;

/// Connections that the kernel may hold for one thread until it accepts them.
const BACKLOG: i32 = 4096;

/// What the threads share: a few words, touched while clients come in and not while messages go out.
#[derive(Debug, Default)]
pub(super) struct Shared {
    grants: AtomicBool,
    accepted: AtomicU64,
    /// Why a thread cannot go on; the first reason stays.
    trouble: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn admit(&self, grant: bool) {
        self.grants.store(grant, Ordering::Release);
    }

    /// Connections, of all threads.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complain(&self, words: String) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(words);
    }
}

/// Something to do for every thread.
pub(super) enum Job {
    /// Make ready to send.
    Prepare,
    /// Write each block to all sockets, until there are no more.
    Broadcast(Receiver<Arc<Vec<u8>>>),
    /// Close all connections.
    Disband,
}

/// What came of a job.
#[derive(Debug, Default)]
pub(super) struct JobDone {
    pub(super) sent: Sent,
}

/// A thread, from outside.
pub(super) struct WorkerHandle {
    jobs: Sender<Job>,
    waker: Waker,
}

impl WorkerHandle {
    /// False when the thread is gone.
    pub(super) fn give(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok() && self.waker.wake().is_ok()
    }
}

/// See the module.
pub(super) struct Worker {
    poll: Poll,
    listener: TcpListener,
    sockets: Vec<OwnedFd>,
    outlet: Outlet,
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    done: Sender<Result<JobDone, String>>,
    /// The ready-made grant.
    grant: Vec<u8>,
}

/// Binds a socket that shares its address with the other threads. What is set here is inherited by what it accepts. Until
/// it listens, the kernel gives it no connection.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    // Closing resets the connection, so that thousands of them leave nothing to wait for behind.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Worker {
    /// Starts the thread. It answers on `done` when it listens, and after each job.
    pub(super) fn start(
        index: usize,
        path: SendPath,
        address: SocketAddr,
        shared: Arc<Shared>,
        done: Sender<Result<JobDone, String>>,
    ) -> io::Result<WorkerHandle> {
        // Poll and waker are made before the thread has a table of its own: both sides need them.
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (jobs, taken) = channel();
        thread::Builder::new().name(format!("floor-{index}")).spawn(move || {
            let started = Self::new(poll, path, address, Arc::clone(&shared), taken, done.clone());
            let result = match started {
                Ok(worker) => {
                    let listening = done.send(Ok(JobDone::default()));
                    if listening.is_ok() { worker.run() } else { Ok(()) }
                }
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                let words = format!("thread {index}: {error}");
                shared.complain(words.clone());
                // The main thread waits for an answer, unless it is gone.
                let _ = done.send(Err(words));
            }
        })?;
        Ok(WorkerHandle { jobs, waker })
    }

    fn new(
        poll: Poll,
        path: SendPath,
        address: SocketAddr,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
        done: Sender<Result<JobDone, String>>,
    ) -> io::Result<Self> {
        sys::unshare_descriptor_table()?;
        let socket = bind(address)?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE)?;
        let mut grant = Vec::new();
        Header { version: 1, operation: op::AUTH_REPLY, sequence: 1 }.put_packet(b"", &mut grant);
        Ok(Self { poll, listener, sockets: Vec::new(), outlet: Outlet::open(path)?, shared, jobs, done, grant })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(MAX_EVENTS);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept_all()?,
                    WAKER => {
                        while let Ok(job) = self.jobs.try_recv() {
                            let done = self.work(job)?;
                            if self.done.send(Ok(done)).is_err() {
                                return Ok(());
                            }
                        }
                    }
                    Token(index) => self.greet(index),
                }
            }
        }
    }

    fn work(&mut self, job: Job) -> io::Result<JobDone> {
        let mut sent = Sent::default();
        match job {
            Job::Prepare => self.outlet.prepare(&self.sockets)?,
            Job::Broadcast(blocks) => {
                for block in blocks {
                    self.outlet.round(&self.sockets, &block, &mut sent)?;
                }
            }
            Job::Disband => {
                self.outlet.forget()?;
                self.shared.accepted.fetch_sub(self.sockets.len() as u64, Ordering::AcqRel);
                // Not only cleared: the memory is that of these connections, and the next ones are measured too.
                self.sockets = Vec::new();
            }
        }
        Ok(JobDone { sent })
    }

    fn accept_all(&mut self) -> io::Result<()> {
        let grants = self.shared.grants.load(Ordering::Acquire);
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::MFILE) => {
                    let held = self.sockets.len();
                    return Err(io::Error::other(format!(
                        "its descriptor table is full with {held} connections (RLIMIT_NOFILE): use more threads"
                    )));
                }
                Err(error) => return Err(error.into()),
            };
            if grants {
                let token = Token(self.sockets.len());
                self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
            }
            self.sockets.push(socket);
            self.shared.accepted.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Reads a client's auth and grants it. Clients of the instrument write it in one piece; whatever else is read, as
    /// their end, is of no interest.
    fn greet(&mut self, index: usize) {
        // An event may be older than the end of its connection.
        let Some(socket) = self.sockets.get(index) else { return };
        let mut scratch = [0; 1024];
        let Ok((count, _)) = recv(socket, &mut scratch, RecvFlags::DONTWAIT) else { return };
        let is_auth = matches!(goim::parse(&scratch[..count], goim::MAX_BODY_BYTES), Ok(Some(packet)) if packet.header.operation == op::AUTH);
        if is_auth {
            // A client that is gone already will be missed by the instrument, which counts who joins.
            let _ = send(socket, &self.grant, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}
