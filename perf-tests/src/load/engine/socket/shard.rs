//! One thread's loop: what is asked, who is due, and what comes on the sockets.
//!
//! It does not read packets (`intake`) and does not know who publishes.

use std::collections::{BinaryHeap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll};

use super::arrivals::Comeback;
use super::departures::MAX_GOODBYE_BYTES;
use super::intake::{Effect, Intake, MAX_BODY_BYTES, Reader, State};
use super::slow::SlowReaders;
use super::{Answer, Ask, ShardGauges, Shared};
use crate::load::engine::churn::Churning;
use crate::load::engine::picker::Picker;
use crate::load::engine::{EngineError, Tally};
use crate::load::ledger::{Balance, Counts, Standing};
use crate::load::scenario::Transport;
use crate::websocket::{self, opcode};

/// The longest that the loop sleeps, so that it sees what it is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Connects begun in one turn of the loop, and heartbeats sent in one: what has come is read in between.
pub(super) const MAX_PER_TURN: usize = 256;

/// Events taken in one turn.
const MAX_EVENTS: usize = 1024;

/// How a client was told to behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    /// It reads whatever comes.
    Reads,
    /// It reads nothing.
    Stopped,
    /// It reads a little at a time.
    Slow,
    /// It reads nothing and says nothing.
    Silent,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    /// `None` when it has not begun, is away, or is gone.
    pub(super) stream: Option<TcpStream>,
    /// Since the thread's start: when it began to connect; when it wants to be back, while it is leaving, away, or coming
    /// back; when it said goodbye, while it is leaving for good.
    pub(super) moment_us: u64,
    pub(super) state: State,
    pub(super) role: Role,
    /// What its messages are to the books. `None` while they belong to no phase.
    pub(super) standing: Option<Standing>,
    /// Heartbeats that are not answered.
    pub(super) pending: u8,
    /// Whether `tails` holds the beginning of something.
    pub(super) has_tail: bool,
    /// Whether it was ever granted. If so it may come back.
    pub(super) was_joined: bool,
    /// Whether it is on its way back, or will be.
    pub(super) comes_back: bool,
}

// In debug builds mio adds its own checks to a stream.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Client>() == 24);

/// One thread's clients.
pub(super) struct Shard {
    pub(super) shared: Arc<Shared>,
    gauges: Arc<ShardGauges>,
    pub(super) poll: Poll,
    pub(super) first_client: u32,
    pub(super) clients: Vec<Client>,
    /// By slot, the beginning of a packet or frame whose rest has not come. Each at most a header more than
    /// [`MAX_BODY_BYTES`].
    pub(super) tails: HashMap<u32, Vec<u8>>,
    /// Where every read goes: a tail, then what the socket gives.
    scratch: Vec<u8>,
    pub(super) intake: Intake,
    pub(super) upgrade: Vec<u8>,
    pub(super) started: Instant,
    /// Nobody begins any more, except to come back.
    pub(super) sealed: bool,
    /// The next slot to begin. Slots are begun in order.
    pub(super) next_begin: usize,
    pub(super) handshakes: usize,
    /// Who comes back, the earliest first. An entry of a client that is not away any more, or only later, is void.
    pub(super) comebacks: BinaryHeap<Comeback>,
    pub(super) picker: Picker,
    pub(super) churn: Option<Churning>,
    /// Goodbyes of the mixed kind, to tell which is next.
    pub(super) mixed: u64,
    pub(super) slow: SlowReaders,
    pub(super) looking_into_unread: bool,
    /// What clients that went were owed until then.
    pub(super) settled: Balance,
    /// Heartbeats due since the clients were built, all slots in turn.
    pub(super) heartbeats_turned: u64,
    pub(super) joined: u64,
    pub(super) failed: u64,
    pub(super) closed: u64,
    pub(super) present: u64,
    pub(super) returning: u64,
    pub(super) astray: u64,
    pub(super) closed_astray: u64,
    /// Counted up to the last line.
    pub(super) received_before: u64,
    pub(super) faults_before: u64,
    mask: u32,
}

impl Shard {
    /// Made in the thread that runs it: the descriptor table becomes its own here.
    pub(super) fn new(shared: Arc<Shared>, gauges: Arc<ShardGauges>, clients: Range<u32>) -> Result<Self, EngineError> {
        crate::sys::unshare_descriptor_table()
            .map_err(EngineError::io("get a descriptor table of the thread's own"))?;
        let poll = Poll::new().map_err(EngineError::io("make a poll"))?;
        let count = clients.len();
        // One key for all: the proof that it gives is that the server read the request, not who sent it.
        let key = websocket::key(*b"perf-tests nonce");
        let host = shared.scenario.connect[0].to_string();
        let intake = Intake::new(&shared.scenario, websocket::accept_of(&key), count);
        let waiting = || Client {
            stream: None,
            moment_us: 0,
            state: State::Waiting,
            role: Role::Reads,
            standing: None,
            pending: 0,
            has_tail: false,
            was_joined: false,
            comes_back: false,
        };
        Ok(Self {
            upgrade: websocket::request(&host, "/sub", &key, "").into_bytes(),
            shared,
            gauges,
            poll,
            first_client: clients.start,
            clients: (0..count).map(|_| waiting()).collect(),
            tails: HashMap::new(),
            // One whole frame or packet always fits behind nothing, so a full scratch always makes progress.
            scratch: vec![0; MAX_BODY_BYTES + 64],
            intake,
            started: Instant::now(),
            sealed: false,
            next_begin: 0,
            handshakes: 0,
            comebacks: BinaryHeap::new(),
            picker: Picker::new(count),
            churn: None,
            mixed: 0,
            slow: SlowReaders::default(),
            looking_into_unread: false,
            settled: Balance::default(),
            heartbeats_turned: 0,
            joined: 0,
            failed: 0,
            closed: 0,
            present: 0,
            returning: 0,
            astray: 0,
            closed_astray: 0,
            received_before: 0,
            faults_before: 0,
            mask: 0,
        })
    }

    /// Runs while there is somebody to ask, then closes everything in the table that it was opened in.
    pub(super) fn run(mut self, asks: &Receiver<Ask>, answers: &Sender<Answer>) -> Result<(), EngineError> {
        let mut events = Events::with_capacity(MAX_EVENTS);
        let rest = self.shared.scenario.rest;
        let mut heard = 0;
        loop {
            match asks.try_recv() {
                Ok(ask) => {
                    let answer = self.answer(ask);
                    // Before the answer, so that who has it finds what it did in the gauges.
                    self.publish_gauges();
                    // Nobody listens any more when the engine was dropped; then the queue is gone as well.
                    let _ = answers.send(answer);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            if !self.sealed {
                self.begin_some();
            }
            self.churn_some();
            self.come_back_some();
            self.slow_turn();
            self.heartbeats();
            let mut wait = self.sleep();
            // Who sleeps here is not waiting for the sockets, so that they wake nobody. A full turn has left some behind.
            if wait == LOOK_EVERY && self.sealed && !rest.is_zero() && heard < MAX_EVENTS {
                thread::sleep(rest);
                wait = Duration::ZERO;
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.map_err(EngineError::io("wait for events"))?,
            }
            heard = events.iter().count();
            for event in &events {
                self.ready(event.token().0, event);
            }
            self.publish_gauges();
        }
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Seal => {
                self.sealed = true;
                self.abandon_the_unjoined();
                Answer::Count(self.joined)
            }
            Ask::Open(books) => Answer::Numbers(self.open_books(books)),
            Ask::Order(order) => self.obey(order).map_or_else(Answer::Refused, Answer::Count),
            Ask::Outstanding(ends) => Answer::Count(self.outstanding(&ends)),
            Ask::LookIntoUnread => {
                self.look_into_unread();
                Answer::Count(0)
            }
            Ask::Heard => Answer::Numbers(self.heard()),
            Ask::Settle(ends) => Answer::Tally(self.settle(&ends)),
        }
    }

    fn publish_gauges(&self) {
        let (owed, astray) = (self.intake.ledger.counts(Standing::Owed), self.intake.ledger.counts(Standing::Astray));
        let gauges = &self.gauges;
        for (gauge, value) in [
            (&gauges.joined, self.joined),
            (&gauges.failed, self.failed),
            (&gauges.closed, self.closed),
            (&gauges.present, self.present),
            (&gauges.returning, self.returning),
            (&gauges.astray, self.astray),
            (&gauges.closed_astray, self.closed_astray),
            (&gauges.received, self.received_before + owed.received),
            (&gauges.faults, self.faults_before + faults(&self.intake.tally, owed, astray)),
        ] {
            gauge.store(value, Ordering::Relaxed);
        }
    }

    /// Short while connects or goodbyes are due by pace, because nothing else wakes the loop for them.
    fn sleep(&self) -> Duration {
        let building = !self.sealed && self.next_begin < self.clients.len();
        let has_room = self.handshakes < self.shared.scenario.open_handshakes;
        if self.churn.is_some() || ((building || self.comeback_is_due()) && has_room) {
            Duration::from_millis(1)
        } else {
            LOOK_EVERY
        }
    }

    fn ready(&mut self, slot: usize, event: &Event) {
        let client = &self.clients[slot];
        match client.state {
            State::Connecting if event.is_writable() => {
                let Some(stream) = &client.stream else { return };
                match stream.take_error() {
                    Ok(None) => {}
                    Ok(Some(error)) | Err(error) => return self.end(slot, &format!("connect: {error}")),
                }
                self.greet(slot);
            }
            State::Leaving => return self.read_to_the_end(slot),
            _ => {}
        }
        // Who does not read still notices the end of the stream, if the kernel does.
        let over = event.is_read_closed() || event.is_error();
        if self.clients[slot].role == Role::Reads || self.looking_into_unread || over {
            self.read(slot, usize::MAX);
        }
    }

    /// Reads until the socket has no more, or `limit` bytes. With edge-triggered events a read that gives less than was
    /// asked for is as good as `WouldBlock` (epoll(7)).
    pub(super) fn read(&mut self, slot: usize, mut limit: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut filled = 0;
        if self.clients[slot].has_tail {
            let tail = self.tails.remove(&(slot as u32)).unwrap_or_default();
            scratch[..tail.len()].copy_from_slice(&tail);
            filled = tail.len();
            self.clients[slot].has_tail = false;
        }
        while let Some(stream) = self.clients[slot].stream.as_mut().filter(|_| limit > 0) {
            let asked = (scratch.len() - filled).min(limit);
            match stream.read(&mut scratch[filled..filled + asked]) {
                Ok(0) => self.end(slot, if filled == 0 { "end of stream" } else { "end of stream within a packet" }),
                Ok(count) => {
                    self.intake.tally.bytes_received += count as u64;
                    limit -= count;
                    filled += count;
                    let taken = self.digest(slot, &scratch[..filled]);
                    scratch.copy_within(taken..filled, 0);
                    filled -= taken;
                    if count < asked {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.end(slot, &format!("read: {error}")),
            }
        }
        if filled > 0 && self.clients[slot].stream.is_some() {
            self.tails.insert(slot as u32, scratch[..filled].to_vec());
            self.clients[slot].has_tail = true;
        }
        self.scratch = scratch;
    }

    /// A client that says goodbye hears nothing any more; what comes is only read so that its end is seen.
    fn read_to_the_end(&mut self, slot: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut left = MAX_GOODBYE_BYTES;
        while let Some(stream) = &mut self.clients[slot].stream {
            match stream.read(&mut scratch) {
                Ok(count) if count > 0 && left > 0 => left = left.saturating_sub(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.gone(slot, true),
            }
        }
        self.scratch = scratch;
    }

    fn digest(&mut self, slot: usize, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Client { state, standing, .. } = self.clients[slot];
            if !matches!(state, State::Upgrading | State::Authenticating | State::Joined) {
                return bytes.len();
            }
            let reader = Reader { slot: slot as u32, client: self.first_client + slot as u32, state, standing };
            let digest = self.intake.digest(&self.shared, reader, &bytes[at..]);
            at += digest.taken;
            if digest.joined {
                self.joined(slot);
            }
            self.heartbeats_answered(slot, digest.heartbeats);
            match digest.effect {
                None => return at,
                Some(Effect::SendAuth) => self.send_auth(slot),
                Some(Effect::Pong(payload)) => self.send(slot, opcode::PONG, &payload),
                Some(Effect::End(reason)) => self.end(slot, &reason),
            }
        }
    }

    pub(super) fn send(&mut self, slot: usize, opcode: u8, payload: &[u8]) {
        match self.shared.scenario.transport {
            Transport::Tcp => self.write(slot, payload),
            Transport::Websocket => {
                self.mask = self.mask.wrapping_add(0x9e37_79b9);
                let mut frame = Vec::with_capacity(payload.len() + 14);
                websocket::put_frame(true, opcode, payload, self.mask.to_be_bytes(), &mut frame);
                self.write(slot, &frame);
            }
        }
    }

    /// Clients send little: one whose socket does not take it at once has a server that stopped reading.
    pub(super) fn write(&mut self, slot: usize, bytes: &[u8]) {
        let Some(stream) = &mut self.clients[slot].stream else { return };
        match stream.write(bytes) {
            Ok(count) if count == bytes.len() => {}
            Ok(_) => self.end(slot, "the server does not read: send buffer full"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.end(slot, "the server does not read: send buffer full");
            }
            Err(error) => self.end(slot, &format!("write: {error}")),
        }
    }

    /// Microseconds since the thread's start.
    pub(super) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// What a well-behaved server never makes a client count.
pub(super) fn faults(tally: &Tally, owed: Counts, astray: Counts) -> u64 {
    let of = |counts: Counts| counts.duplicates + counts.order_faults;
    of(owed) + of(astray) + tally.misrouted + tally.heartbeats_unasked
}
