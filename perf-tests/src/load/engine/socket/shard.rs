//! One thread's loop: connect at a pace, read what comes, say that everybody is alive.
//!
//! It does not read packets (`intake`) and does not know who publishes.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use wire::goim::op;

use super::intake::{Effect, Intake, MAX_BODY_BYTES, State, client_packet};
use super::{Harvest, Phase, ShardGauges, Shared, open};
use crate::load::broadcasts::Broadcasts;
use crate::load::engine::EngineError;
use crate::load::ledger::{Anchor, Ledger};
use crate::load::scenario::Transport;
use crate::websocket::{self, opcode};

/// The longest that the loop sleeps, so that it sees a new phase.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Handshakes of one thread under way at once: below any usual listen backlog, so that a run does not test SYN retries.
const MAX_OPEN_HANDSHAKES: usize = 512;

/// Connects begun in one turn of the loop, and heartbeats sent in one: what has come is read in between.
const MAX_PER_TURN: usize = 256;

/// Events taken in one turn.
const MAX_EVENTS: usize = 1024;

/// A client that has not begun, or is gone, has no socket.
struct Client {
    stream: Option<TcpStream>,
    state: State,
    /// Whether `tails` holds the beginning of something.
    has_tail: bool,
    /// When it began to connect, in microseconds since the thread's start (71 minutes at most).
    begun_us: u32,
}

// In debug builds mio adds its own checks to a stream.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Client>() == 12);

/// One thread's clients.
pub(super) struct Shard {
    shared: Arc<Shared>,
    gauges: Arc<ShardGauges>,
    poll: Poll,
    first_client: u32,
    clients: Vec<Client>,
    ever_joined: Vec<bool>,
    /// By slot, the beginning of a packet or frame whose rest has not come. Each at most a header more than
    /// [`MAX_BODY_BYTES`].
    tails: HashMap<u32, Vec<u8>>,
    /// Where every read goes: a tail, then what the socket gives.
    scratch: Vec<u8>,
    intake: Intake,
    upgrade: Vec<u8>,
    started: Instant,
    /// The next slot to begin. Slots are begun in order.
    next_begin: usize,
    handshakes: usize,
    /// Heartbeats due since the clients were built, all slots in turn.
    heartbeats_turned: u64,
    failed: u64,
    closed: u64,
    mask: u32,
}

impl Shard {
    /// Made in the thread that runs it: the descriptor table becomes its own here.
    pub(super) fn new(shared: Arc<Shared>, gauges: Arc<ShardGauges>, clients: Range<u32>) -> Result<Self, EngineError> {
        crate::sys::unshare_descriptor_table()
            .map_err(EngineError::io("get a descriptor table of the thread's own"))?;
        let poll = Poll::new().map_err(EngineError::io("make a poll"))?;
        let count = clients.len();
        let anchor = if shared.scenario.publish.is_some() { Anchor::Zero } else { Anchor::FirstHeard };
        // One key for all: the proof that it gives is that the server read the request, not who sent it.
        let key = websocket::key(*b"perf-tests nonce");
        let host = shared.scenario.connect[0].to_string();
        let books = (Ledger::new(count, anchor), Broadcasts::new(shared.scenario.rooms as usize));
        let intake = Intake::new(shared.scenario.transport, websocket::accept_of(&key), books);
        let waiting = || Client { stream: None, state: State::Waiting, has_tail: false, begun_us: 0 };
        Ok(Self {
            upgrade: websocket::request(&host, "/sub", &key, "").into_bytes(),
            shared,
            gauges,
            poll,
            first_client: clients.start,
            clients: (0..count).map(|_| waiting()).collect(),
            ever_joined: vec![false; count],
            tails: HashMap::new(),
            // One whole frame or packet always fits behind nothing, so a full scratch always makes progress.
            scratch: vec![0; MAX_BODY_BYTES + 64],
            intake,
            started: Instant::now(),
            next_begin: 0,
            handshakes: 0,
            heartbeats_turned: 0,
            failed: 0,
            closed: 0,
            mask: 0,
        })
    }

    /// Runs until told to stop, then closes everything in the table that it was opened in.
    pub(super) fn run(mut self) -> Result<Harvest, EngineError> {
        let mut events = Events::with_capacity(MAX_EVENTS);
        let mut sealed = false;
        loop {
            match self.shared.phase() {
                Phase::Stop => break,
                Phase::Build => self.begin_some(),
                Phase::Run if !sealed => {
                    self.abandon_the_unjoined();
                    sealed = true;
                    self.publish_gauges();
                    self.gauges.sealed.store(true, Ordering::Release);
                }
                Phase::Run => {}
            }
            self.heartbeats();
            match self.poll.poll(&mut events, Some(self.sleep())) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.map_err(EngineError::io("wait for events"))?,
            }
            for event in &events {
                self.ready(event.token().0, event.is_writable());
            }
            self.publish_gauges();
        }
        for client in &mut self.clients {
            client.stream = None;
        }
        let mut tally = self.intake.tally;
        tally.counts = self.intake.ledger.counts();
        let Intake { ledger, broadcasts, .. } = self.intake;
        Ok(Harvest { tally, ledger, broadcasts, first_client: self.first_client, joined: self.ever_joined })
    }

    fn publish_gauges(&self) {
        let counts = self.intake.ledger.counts();
        let (gauges, tally) = (&self.gauges, &self.intake.tally);
        gauges.joined.store(tally.joined, Ordering::Relaxed);
        gauges.failed.store(self.failed, Ordering::Relaxed);
        gauges.closed.store(self.closed, Ordering::Relaxed);
        gauges.received.store(counts.received, Ordering::Relaxed);
        gauges.faults.store(counts.duplicates + counts.order_faults + tally.misrouted, Ordering::Relaxed);
    }

    /// Short while connects are due by pace, because nothing else wakes the loop for them.
    fn sleep(&self) -> Duration {
        let building = self.next_begin < self.clients.len() && self.handshakes < MAX_OPEN_HANDSHAKES;
        if building { Duration::from_millis(1) } else { LOOK_EVERY }
    }

    fn begin_some(&mut self) {
        let pace = self.shared.scenario.connects_per_second / self.shared.scenario.threads as f64;
        let allowed = match pace > 0.0 {
            true => (self.started.elapsed().as_secs_f64() * pace) as usize + 1,
            false => usize::MAX,
        };
        let mut begun = 0;
        while self.next_begin < self.clients.len().min(allowed)
            && self.handshakes < MAX_OPEN_HANDSHAKES
            && begun < MAX_PER_TURN
        {
            let slot = self.next_begin;
            self.next_begin += 1;
            begun += 1;
            if let Err(error) = self.begin(slot) {
                self.clients[slot].state = State::Ended;
                self.failed += 1;
                self.intake.tally.failed.add(&format!("connect: {error}"), 1);
            }
        }
    }

    fn begin(&mut self, slot: usize) -> io::Result<()> {
        let mut stream = open::begin(&self.shared.scenario, self.first_client + slot as u32)?;
        self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        let begun_us = self.started.elapsed().as_micros() as u32;
        self.clients[slot] = Client { stream: Some(stream), state: State::Connecting, has_tail: false, begun_us };
        self.handshakes += 1;
        Ok(())
    }

    fn ready(&mut self, slot: usize, writable: bool) {
        if self.clients[slot].state == State::Connecting && writable {
            let Some(stream) = &self.clients[slot].stream else { return };
            match stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return self.end(slot, &format!("connect: {error}")),
            }
            self.greet(slot);
        }
        self.read(slot);
    }

    fn greet(&mut self, slot: usize) {
        match self.shared.scenario.transport {
            Transport::Tcp => self.send_auth(slot),
            Transport::Websocket => {
                self.clients[slot].state = State::Upgrading;
                let upgrade = std::mem::take(&mut self.upgrade);
                self.write(slot, &upgrade);
                self.upgrade = upgrade;
            }
        }
    }

    fn send_auth(&mut self, slot: usize) {
        self.clients[slot].state = State::Authenticating;
        let body = self.shared.scenario.auth_of(self.first_client + slot as u32).to_body();
        self.send(slot, opcode::BINARY, &client_packet(op::AUTH, &body));
    }

    /// Reads until the socket has no more. With edge-triggered events a read that gives less than was asked for is as
    /// good as `WouldBlock` (epoll(7)).
    fn read(&mut self, slot: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut filled = 0;
        if self.clients[slot].has_tail {
            let tail = self.tails.remove(&(slot as u32)).unwrap_or_default();
            scratch[..tail.len()].copy_from_slice(&tail);
            filled = tail.len();
            self.clients[slot].has_tail = false;
        }
        while let Some(stream) = &mut self.clients[slot].stream {
            let asked = scratch.len() - filled;
            match stream.read(&mut scratch[filled..]) {
                Ok(0) => self.end(slot, if filled == 0 { "end of stream" } else { "end of stream within a packet" }),
                Ok(count) => {
                    self.intake.tally.bytes_received += count as u64;
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

    fn digest(&mut self, slot: usize, bytes: &[u8]) -> usize {
        let room = self.shared.scenario.room_of(self.first_client + slot as u32);
        let mut at = 0;
        loop {
            let state = self.clients[slot].state;
            if state == State::Ended {
                return bytes.len();
            }
            let digest = self.intake.digest(&self.shared, slot as u32, room, state, &bytes[at..]);
            at += digest.taken;
            if digest.joined {
                self.joined(slot, room);
            }
            match digest.effect {
                None => return at,
                Some(Effect::SendAuth) => self.send_auth(slot),
                Some(Effect::Pong(payload)) => self.send(slot, opcode::PONG, &payload),
                Some(Effect::End(reason)) => self.end(slot, &reason),
            }
        }
    }

    fn joined(&mut self, slot: usize, room: u32) {
        let client = &mut self.clients[slot];
        client.state = State::Joined;
        let now_us = self.started.elapsed().as_micros() as u32;
        self.intake.tally.join_us.saturating_record(u64::from(now_us.wrapping_sub(client.begun_us)).max(1));
        self.handshakes -= 1;
        self.intake.tally.joined += 1;
        self.ever_joined[slot] = true;
        self.shared.members[room as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// The clients' heartbeats are spread evenly over the interval, in slot order.
    fn heartbeats(&mut self) {
        let interval = self.shared.scenario.heartbeat;
        if interval.is_zero() || self.clients.is_empty() {
            return;
        }
        let count = self.clients.len() as u64;
        let due = (self.started.elapsed().as_secs_f64() / interval.as_secs_f64() * count as f64) as u64;
        let packet = client_packet(op::HEARTBEAT, b"");
        for _ in 0..MAX_PER_TURN {
            if self.heartbeats_turned >= due {
                return;
            }
            let slot = (self.heartbeats_turned % count) as usize;
            self.heartbeats_turned += 1;
            if self.clients[slot].state == State::Joined {
                self.intake.tally.heartbeats_sent += 1;
                self.send(slot, opcode::BINARY, &packet);
            }
        }
    }

    fn abandon_the_unjoined(&mut self) {
        for slot in 0..self.clients.len() {
            let state = self.clients[slot].state;
            match state {
                State::Joined | State::Ended => {}
                State::Waiting => {
                    self.clients[slot].state = State::Ended;
                    self.failed += 1;
                    self.intake.tally.failed.add("not begun in time", 1);
                }
                _ => self.end(slot, &format!("not joined in time: still {state:?}")),
            }
        }
        self.next_begin = self.clients.len();
    }

    fn send(&mut self, slot: usize, opcode: u8, payload: &[u8]) {
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
    fn write(&mut self, slot: usize, bytes: &[u8]) {
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

    fn end(&mut self, slot: usize, reason: &str) {
        let client = &mut self.clients[slot];
        let was = std::mem::replace(&mut client.state, State::Ended);
        client.stream = None;
        if client.has_tail {
            self.tails.remove(&(slot as u32));
            client.has_tail = false;
        }
        match was {
            State::Ended | State::Waiting => {}
            State::Joined => {
                self.closed += 1;
                self.intake.tally.closed.add(reason, 1);
            }
            State::Connecting | State::Upgrading | State::Authenticating => {
                self.handshakes -= 1;
                self.failed += 1;
                self.intake.tally.failed.add(reason, 1);
            }
        }
    }
}
