//! The server of the floor, from inside: threads that loop over sockets, and one that keeps time.
//!
//! It takes orders from stdin and answers on stdout, a line of JSON each, and ends when stdin closes. The main thread
//! stamps the messages and hands each block of them to every thread, which writes it to its sockets, one round after
//! another.
//!
//! Layout: `worker` one thread: accepts, grants, sends · `outlet` the two ways to the kernel · `ring` the one by io_uring
//! · `block` the bytes of a round

mod block;
mod outlet;
mod ring;
mod worker;

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::options::{Pattern, SendPath};
use super::orders::{Answer, Order, Sent};
use crate::load::stamp::monotonic_ns;
use block::Packets;
use worker::{Job, JobDone, Shared, Worker, WorkerHandle};

/// Operation of the messages.
pub(super) const OPERATION: i32 = wire::goim::op::FIRST_OF_APPLICATION;

/// Rounds that a thread may be behind when messages come at a pace. Beyond, the clock waits and the stamps are late.
const MAX_ROUNDS_WAITING: usize = 1024;

/// Without a pace one round is written while the next waits, so that a thread never waits for the clock.
const ROUNDS_WAITING_FLAT_OUT: usize = 1;

/// Serves until stdin closes; then the process ends, whatever it was about.
///
/// # Errors
/// When stdout cannot be written to: nobody listens any more.
pub fn run() -> io::Result<()> {
    let (sender, orders) = channel();
    thread::Builder::new().name("orders".to_owned()).spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        std::process::exit(0);
    })?;
    let mut server = None;
    for line in orders {
        let answer = match serde_json::from_str(&line) {
            Ok(Order::Open { address, threads, path, body_bytes }) if server.is_none() => {
                match Server::open(address, threads, path, body_bytes) {
                    Ok((opened, address)) => {
                        server = Some(opened);
                        Answer::Listening { address }
                    }
                    Err(OpenError::NoRing(words)) => Answer::NoRing { words },
                    Err(OpenError::Failed(words)) => Answer::Failed { words },
                }
            }
            Ok(order) => match server.as_mut().map(|server| server.obey(order)) {
                Some(Ok(answer)) => answer,
                Some(Err(words)) => Answer::Failed { words },
                None => Answer::Failed { words: "the first order must be to open".to_owned() },
            },
            Err(error) => Answer::Failed { words: format!("an order that is none: {error}") },
        };
        let line = serde_json::to_string(&answer)?;
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(())
}

enum OpenError {
    NoRing(String),
    Failed(String),
}

struct Server {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    done: Receiver<Result<JobDone, String>>,
    body_bytes: usize,
}

impl Server {
    fn open(
        address: SocketAddr,
        threads: usize,
        path: SendPath,
        body_bytes: usize,
    ) -> Result<(Self, SocketAddr), OpenError> {
        if path == SendPath::Ring {
            // Asked here, so that a machine without io_uring is told apart from one that lacks something else.
            ring::Ring::new().map_err(|error| OpenError::NoRing(error.to_string()))?;
        }
        let failed = |doing: &'static str| move |error| OpenError::Failed(format!("cannot {doing}: {error}"));
        // Bound and not listening, it keeps the port for the threads' own sockets and gets no connection.
        let keeper = worker::bind(address).map_err(failed("bind a socket to its address"))?;
        let address = keeper.local_addr().map_err(failed("see the port"))?;
        let address = address.as_socket().ok_or_else(|| OpenError::Failed("a socket without a port".to_owned()))?;
        let shared = Arc::new(Shared::default());
        let (sender, done) = channel();
        let mut server = Self { shared, workers: Vec::new(), done, body_bytes };
        for index in 0..threads {
            let worker = Worker::start(index, path, address, Arc::clone(&server.shared), sender.clone());
            server.workers.push(worker.map_err(failed("start a thread"))?);
        }
        // Each says so when it listens.
        server.all_done().map_err(OpenError::Failed)?;
        Ok((server, address))
    }

    fn obey(&mut self, order: Order) -> Result<Answer, String> {
        if let Some(words) = self.shared.trouble() {
            return Err(words);
        }
        match order {
            Order::Open { .. } => return Err("it is open already".to_owned()),
            Order::Admit { grant } => self.shared.admit(grant),
            Order::Count => return Ok(Answer::Counted { accepted: self.shared.accepted() }),
            Order::Prepare => drop(self.everybody(|| Job::Prepare)?),
            Order::Send { pattern, seconds, run } => return self.send(pattern, seconds, run).map(Answer::Sent),
            Order::Disband => drop(self.everybody(|| Job::Disband)?),
        }
        Ok(Answer::Done)
    }

    fn send(&mut self, pattern: Pattern, seconds: f64, run: u32) -> Result<Sent, String> {
        let waiting = match pattern {
            Pattern::FlatOut { .. } => ROUNDS_WAITING_FLAT_OUT,
            _ => MAX_ROUNDS_WAITING,
        };
        let (mut senders, mut receivers): (Vec<SyncSender<Arc<Vec<u8>>>>, Vec<_>) =
            self.workers.iter().map(|_| sync_channel(waiting)).unzip();
        let mut packets = Packets::new(run, self.body_bytes);
        // In reverse, because they are taken from the end.
        receivers.reverse();
        self.give(|| receivers.pop().map(Job::Broadcast))?;
        let began_ns = send_rounds(pattern, seconds, &mut packets, &mut senders);
        // The threads end their rounds when there is nobody to send any.
        drop(senders);
        let mut sent = Sent { messages: packets.numbered(), began_ns, ..Sent::default() };
        for done in self.all_done()? {
            sent.add_writes_of(&done.sent);
        }
        Ok(sent)
    }

    fn everybody(&mut self, job: impl Fn() -> Job) -> Result<Vec<JobDone>, String> {
        self.give(|| Some(job()))?;
        self.all_done()
    }

    fn give(&mut self, mut job: impl FnMut() -> Option<Job>) -> Result<(), String> {
        for worker in &self.workers {
            let given = job().is_some_and(|job| worker.give(job));
            if !given {
                return Err(self.shared.trouble().unwrap_or_else(|| "a thread is gone".to_owned()));
            }
        }
        Ok(())
    }

    /// Waits until every thread has done its job.
    fn all_done(&mut self) -> Result<Vec<JobDone>, String> {
        let gone = |_| "a thread is gone".to_owned();
        (0..self.workers.len()).map(|_| self.done.recv().map_err(gone)?).collect()
    }
}

/// Stamps the rounds and hands them out; says when the first began.
fn send_rounds(pattern: Pattern, seconds: f64, packets: &mut Packets, threads: &mut [SyncSender<Arc<Vec<u8>>>]) -> u64 {
    let began = Instant::now();
    let began_ns = monotonic_ns();
    let per_send = pattern.packets_per_send();
    let mut round = |apart_ns| {
        let block = Arc::new(packets.block(per_send, apart_ns));
        // A thread that is gone has said why; the others get on.
        threads.iter_mut().for_each(|thread| drop(thread.send(Arc::clone(&block))));
    };
    match pattern {
        Pattern::Accept => {}
        Pattern::Paced { messages_per_second, .. } => {
            let interval = f64::from(per_send) / messages_per_second;
            let rounds = (seconds / interval).round().max(1.0) as u64;
            for number in 0..rounds {
                let due = Duration::from_secs_f64(number as f64 * interval);
                thread::sleep(due.saturating_sub(began.elapsed()));
                round((1e9 / messages_per_second) as u64);
            }
        }
        Pattern::FlatOut { .. } => {
            while began.elapsed().as_secs_f64() < seconds {
                round(0);
            }
        }
    }
    began_ns
}
