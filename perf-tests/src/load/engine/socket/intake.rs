//! From the bytes of a client's socket to packets, and from packets to the books.
//!
//! No I/O: it says how many bytes it took and what the client has to send or that it has to end.

use std::sync::atomic::{AtomicU32, Ordering};

use wire::goim::{self, Header, Packet, Packets, op};

use super::Shared;
use crate::load::broadcasts::Broadcasts;
use crate::load::engine::Tally;
use crate::load::ledger::{Ledger, Verdict};
use crate::load::scenario::Transport;
use crate::load::stamp::{Stamp, monotonic_ns};
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
    /// Gone.
    Ended,
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
    /// Auth was granted on the way, before `effect`.
    pub(super) joined: bool,
    /// What to do before the rest is read.
    pub(super) effect: Option<Effect>,
}

/// The books of a thread, and what is needed to read packets into them.
pub(super) struct Intake {
    transport: Transport,
    /// What the server has to answer to our upgrade's key.
    accept: String,
    pub(super) ledger: Ledger,
    pub(super) broadcasts: Broadcasts,
    pub(super) tally: Tally,
}

impl Intake {
    pub(super) fn new(transport: Transport, accept: String, books: (Ledger, Broadcasts)) -> Self {
        let (ledger, broadcasts) = books;
        Self { transport, accept, ledger, broadcasts, tally: Tally::default() }
    }

    /// Reads what client `slot`, who is in `room`, has got. With an [`Effect`] that does not end the client, the caller
    /// acts on it and calls again with what is not taken.
    pub(super) fn digest(&mut self, shared: &Shared, slot: u32, room: u32, state: State, bytes: &[u8]) -> Digest {
        if state == State::Upgrading {
            let (taken, effect) = match websocket::parse_response(bytes, &self.accept) {
                Ok(Some(end)) => (end, Some(Effect::SendAuth)),
                Ok(None) => (0, None),
                Err(error) => (bytes.len(), Some(Effect::End(error.to_string()))),
            };
            return Digest { taken, joined: false, effect };
        }
        let mut context = Context { shared, slot, room, state, now_ns: monotonic_ns() };
        let (taken, effect) = match self.transport {
            Transport::Tcp => self.packets(&mut context, bytes),
            Transport::Websocket => self.frames(&mut context, bytes),
        };
        Digest { taken, joined: context.state != state, effect }
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
            op::AUTH_REPLY if context.state == State::Authenticating => match refusal(packet.body) {
                None => {
                    context.state = State::Joined;
                    None
                }
                Some(reason) => Some(Effect::End(format!("refused: {reason}"))),
            },
            op::HEARTBEAT_REPLY => {
                self.tally.heartbeats_answered += 1;
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

    fn message(&mut self, context: &Context<'_>, body: &[u8]) {
        let Some(stamp) = Stamp::read(body).filter(|stamp| is_of_run(&context.shared.run, stamp.run)) else {
            self.tally.foreign += 1;
            return;
        };
        if stamp.room != context.room || stamp.number >= u64::from(u32::MAX) {
            self.tally.misrouted += 1;
            return;
        }
        let number = stamp.number as u32;
        if self.ledger.enter(context.slot, number) != Verdict::Duplicate {
            self.broadcasts.note(context.room, number, stamp.sent_ns, context.now_ns);
            let delay_us = context.now_ns.saturating_sub(stamp.sent_ns) / 1000;
            self.tally.delay_us.saturating_record(delay_us.max(1));
        }
    }
}

struct Context<'a> {
    shared: &'a Shared,
    slot: u32,
    room: u32,
    /// Becomes `Joined` with the grant.
    state: State,
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
