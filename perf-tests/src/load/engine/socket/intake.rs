//! From the bytes of a client's socket to packets, and from packets to the books.
//!
//! No I/O: it says how many bytes it took and what the client has to send or that it has to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wire::goim::{self, Header, Packet, Packets, op};

use super::Shared;
use crate::load::engine::{Books, Tally};
use crate::load::ledger::{Anchor, Ledger, Standing, Verdict};
use crate::load::scenario::{Scenario, Transport};
use crate::load::stamp::{Stamp, monotonic_ns};
use crate::load::target::{Streams, Target};
use crate::websocket::{self, opcode};

/// The longest body, or WebSocket payload, that a client takes. A server that sends more is cut off, with a reason.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// Not begun.
    Waiting,
    /// The TCP handshake is under way.
    Connecting,
    /// The WebSocket upgrade is under way.
    Upgrading,
    /// The auth packet is under way.
    Authenticating,
    /// In its room.
    Joined,
    /// It has said goodbye, and reads on until the server closes.
    Leaving,
    /// Without a connection, and going to come back.
    Away,
    /// Gone.
    Ended,
}

/// A client, to the books.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    pub(super) slot: u32,
    pub(super) client: u32,
    pub(super) state: State,
    /// `None` when what it hears belongs to no phase.
    pub(super) standing: Option<Standing>,
}

/// What the bytes ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The upgrade was granted: send the auth packet.
    SendAuth,
    /// A ping with this payload wants its pong.
    Pong(Vec<u8>),
    /// The client ends, and why.
    End(String),
}

/// What came of some bytes.
pub(super) struct Digest {
    /// Bytes done with; the rest is the beginning of something.
    pub(super) taken: usize,
    /// Auth was granted on the way, before `effect`, and the client's books were opened.
    pub(super) joined: bool,
    /// Replies to heartbeats.
    pub(super) heartbeats: u32,
    /// What to do before the rest is read.
    pub(super) effect: Option<Effect>,
}

/// The books of a thread, and what is needed to read packets into them.
pub(super) struct Intake {
    transport: Transport,
    /// What the server has to answer to our upgrade's key.
    accept: String,
    pub(super) ledger: Ledger,
    pub(super) tally: Tally,
    books: Arc<Books>,
    pub(super) streams: Streams,
}

impl Intake {
    /// With books open for a publisher that is not ours.
    pub(super) fn new(scenario: &Scenario, accept: String, clients: usize) -> Self {
        let books = Books { run: scenario.run, phase: 0, target: Target::Rooms, numbers: None };
        Self {
            transport: scenario.transport,
            accept,
            ledger: Ledger::new(clients, Anchor::FirstHeard),
            tally: Tally::default(),
            books: Arc::new(books),
            streams: Streams::new(Target::Rooms, scenario.clients, scenario.rooms),
        }
    }

    /// From now on, other books. The clients' tracks are the caller's to anchor.
    pub(super) fn open(&mut self, books: Arc<Books>, scenario: &Scenario) {
        self.streams = Streams::new(books.target, scenario.clients, scenario.rooms);
        self.books = books;
    }

    /// From where on a client is owed messages that has been there before the first one.
    pub(super) fn anchor_from_the_start(&self) -> Anchor {
        if self.books.numbers.is_some() { Anchor::Zero } else { Anchor::FirstHeard }
    }

    /// One past the highest number that may have been sent to `client`; 0 when somebody else publishes.
    pub(super) fn begun(&self, client: u32) -> u32 {
        self.books.numbers.as_ref().map_or(0, |numbers| numbers.begun(self.streams.of_client(client)))
    }

    /// Reads what a client has got. With an [`Effect`] that does not end the client, the caller acts on it and calls again
    /// with what is not taken.
    pub(super) fn digest(&mut self, shared: &Shared, reader: Reader, bytes: &[u8]) -> Digest {
        if reader.state == State::Upgrading {
            let (taken, effect) = match websocket::parse_response(bytes, &self.accept) {
                Ok(Some(end)) => (end, Some(Effect::SendAuth)),
                Ok(None) => (0, None),
                Err(error) => (bytes.len(), Some(Effect::End(error.to_string()))),
            };
            return Digest { taken, joined: false, heartbeats: 0, effect };
        }
        let mut context = Context { shared, reader, heartbeats: 0, now_ns: monotonic_ns() };
        let (taken, effect) = match self.transport {
            Transport::Tcp => self.packets(&mut context, bytes),
            Transport::Websocket => self.frames(&mut context, bytes),
        };
        let joined = context.reader.state != reader.state;
        Digest { taken, joined, heartbeats: context.heartbeats, effect }
    }

    fn frames(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> (usize, Option<Effect>) {
        let mut at = 0;
        loop {
            let frame = match websocket::parse(&bytes[at..], MAX_BODY_BYTES) {
                Ok(Some(frame)) => frame,
                Ok(None) => return (at, None),
                Err(error) => return (bytes.len(), Some(Effect::End(error.to_string()))),
            };
            at += frame.wire_bytes;
            let effect = match (frame.opcode, frame.fin) {
                (opcode::BINARY, true) => {
                    let (taken, effect) = self.packets(context, frame.payload);
                    let torn = taken < frame.payload.len() && effect.is_none();
                    if torn { Some(Effect::End("a message ends within a packet".to_owned())) } else { effect }
                }
                (opcode::PING, _) => Some(Effect::Pong(frame.payload.to_vec())),
                (opcode::PONG, _) => None,
                (opcode::CLOSE, _) => {
                    let (code, reason) = websocket::close_reason(frame.payload);
                    Some(Effect::End(format!("close frame {code} {reason}")))
                }
                // No server of ours fragments; a client that holds no buffer cannot put a message together.
                (opcode, fin) => Some(Effect::End(format!("a frame of opcode {opcode}, fin {fin}"))),
            };
            if effect.is_some() {
                return (at, effect);
            }
        }
    }

    fn packets(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> (usize, Option<Effect>) {
        let mut at = 0;
        loop {
            match goim::parse(&bytes[at..], MAX_BODY_BYTES) {
                Ok(Some(packet)) => {
                    at += packet.wire_bytes();
                    if let Some(effect) = self.packet(context, packet) {
                        return (at, Some(effect));
                    }
                }
                Ok(None) => return (at, None),
                Err(error) => return (bytes.len(), Some(Effect::End(error.to_string()))),
            }
        }
    }

    fn packet(&mut self, context: &mut Context<'_>, packet: Packet<'_>) -> Option<Effect> {
        match packet.header.operation {
            op::AUTH_REPLY if context.reader.state == State::Authenticating => match refusal(packet.body) {
                None => {
                    self.grant(context);
                    None
                }
                Some(reason) => Some(Effect::End(format!("refused: {reason}"))),
            },
            op::HEARTBEAT_REPLY => {
                context.heartbeats += 1;
                None
            }
            op::DISCONNECT_REPLY => {
                let reason = refusal(packet.body).unwrap_or_default();
                Some(Effect::End(format!("disconnected: {reason}")))
            }
            op::RAW => {
                let mut inner = Packets::new(packet.body, MAX_BODY_BYTES);
                let whole = inner.by_ref().try_for_each(|packet| {
                    self.message(context, packet.map_err(drop)?.body);
                    Ok::<(), ()>(())
                });
                let torn = whole.is_err() || !inner.rest().is_empty();
                torn.then(|| Effect::End("a batch that is no row of packets".to_owned()))
            }
            _ => {
                self.message(context, packet.body);
                None
            }
        }
    }

    /// Opens the books of a client before what follows its grant is read.
    fn grant(&mut self, context: &mut Context<'_>) {
        let reader = &mut context.reader;
        let anchor = match self.books.numbers {
            Some(_) => Anchor::AtMost(self.begun(reader.client)),
            None => Anchor::FirstHeard,
        };
        self.ledger.anchor(reader.slot, anchor);
        reader.state = State::Joined;
        reader.standing = Some(Standing::Owed);
    }

    fn message(&mut self, context: &Context<'_>, body: &[u8]) {
        let reader = &context.reader;
        let Some(stamp) = Stamp::read(body).filter(|stamp| is_of_run(&context.shared.run, stamp.run)) else {
            self.tally.foreign += 1;
            return;
        };
        let Some(standing) = reader.standing.filter(|_| stamp.phase == self.books.phase) else {
            self.tally.stragglers += 1;
            return;
        };
        if stamp.room != self.streams.of_client(reader.client) || stamp.number >= u64::from(u32::MAX) {
            self.tally.misrouted += 1;
            return;
        }
        let verdict = self.ledger.enter(reader.slot, stamp.number as u32, standing);
        if standing == Standing::Owed && verdict != Verdict::Duplicate {
            self.tally.broadcasts.note(stamp.room, stamp.number as u32, stamp.sent_ns, context.now_ns);
            let delay_us = context.now_ns.saturating_sub(stamp.sent_ns) / 1000;
            self.tally.delay_us.saturating_record(delay_us.max(1));
        }
    }
}

struct Context<'a> {
    shared: &'a Shared,
    /// Becomes `Joined`, and is owed something, with the grant.
    reader: Reader,
    heartbeats: u32,
    now_ns: u64,
}

/// The first run heard becomes the one that counts, when none was named.
fn is_of_run(run: &AtomicU32, heard: u32) -> bool {
    match run.load(Ordering::Relaxed) {
        0 => match run.compare_exchange(0, heard, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(other) => other == heard,
        },
        known => known == heard,
    }
}

/// `None` when a reply's body is a grant: empty, or JSON with code 0.
fn refusal(body: &[u8]) -> Option<String> {
    if body.is_empty() {
        return None;
    }
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Some(String::from_utf8_lossy(body).into_owned());
    };
    let code = json["code"].as_i64().unwrap_or(-1);
    let reason = ["reason", "message"].iter().find_map(|name| json[name].as_str()).unwrap_or_default();
    (code != 0).then(|| format!("{code} {reason}"))
}

/// An encoded packet of a client.
pub(super) fn client_packet(operation: i32, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(goim::HEADER_BYTES + body.len());
    Header { version: 1, operation, sequence: 1 }.put_packet(body, &mut packet);
    packet
}
