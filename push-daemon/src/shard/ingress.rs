//! Bytes in: from the socket through the shard's one scratch buffer to whole packets.
//!
//! An idle connection has no buffer. What is read lies in the scratch; only the tail of a packet that is not
//! whole is kept, in a side entry that goes back to its pool when the packet has come.
//!
//! It does not decide who may enter, and it never waits: what has to be asked upstream goes to the news desk.

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use wire::auth::AuthBody;
use wire::goim::{HEADER_BYTES, Header, MAX_BODY_BYTES, Packet, Packets, parse};
use wire::trunk::Dialect;
use wire::websocket::frame::{put_close, put_frame};
use wire::websocket::handshake::{self, MAX_HEAD_BYTES};
use wire::websocket::{CloseCode, Event, Fragments, Limits, MessageKind, Opcode};

use super::Shard;
use super::clock::Tick;
use super::conn::{NONE, Phase};
use super::news::News;
use super::reason::CloseReason;
use crate::format::Format;

/// The path of the WebSocket endpoint.
const WEBSOCKET_PATH: &str = "/sub";

/// What a WebSocket client may send in one message: a few packets of the greatest length.
const MESSAGE_LIMITS: Limits = Limits { message_bytes: 4 * (HEADER_BYTES + MAX_BODY_BYTES), fragments: 64 };

/// The most that is kept of a client that is not whole: a message and its frame header, or a request head.
pub(crate) const MAX_KEPT_BYTES: usize = 4 * (HEADER_BYTES + MAX_BODY_BYTES) + 14;
const _: () = assert!(MAX_KEPT_BYTES >= MAX_HEAD_BYTES);

/// One buffer for all connections of a shard: what was kept, and what is read behind it.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// Reads of one connection in one turn; the rest waits, so that a fast sender does not starve the others.
const READS_PER_TURN: usize = 4;

/// A side entry that grew beyond this gives its memory back.
const KEPT_CAPACITY_BYTES: usize = 4 * 1024;

/// What is unfinished of a client's input.
#[derive(Default)]
pub(crate) struct Input {
    pub(crate) slot: u32,
    /// The start of a packet, a frame or a request that is not whole. At most [`MAX_KEPT_BYTES`].
    tail: Vec<u8>,
    /// When the tail's first byte came.
    since: Tick,
    /// A WebSocket message of which some fragments came.
    fragments: Fragments,
    /// Packets that came in one message behind the auth packet, until it is answered.
    behind_auth: Vec<u8>,
    /// Cookie header of the upgrade, until auth.
    cookie: String,
    /// Of the auth packet that admission is being asked about.
    auth_header: Option<Header>,
}

impl Input {
    /// Since when a packet has been unfinished.
    pub(crate) fn unfinished_since(&self) -> Option<Tick> {
        (!self.tail.is_empty() || !self.fragments.is_empty()).then_some(self.since)
    }

    fn is_needless(&self) -> bool {
        self.tail.is_empty() && self.fragments.is_empty() && self.cookie.is_empty() && self.auth_header.is_none()
    }

    fn cleared(mut self) -> Self {
        self.tail.clear();
        self.tail.shrink_to(KEPT_CAPACITY_BYTES);
        Self { tail: self.tail, ..Self::default() }
    }
}

/// What to do with a connection after a part of its input was read.
pub(crate) enum Flow {
    /// Take the next packet.
    Next,
    /// Leave the rest for later: admission is being asked.
    Hold,
    /// The connection has ended.
    Ended,
}

impl Shard {
    /// Reads what the socket has. True when there may be more.
    pub(crate) fn read(&mut self, slot: u32) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let more = self.read_into(slot, &mut scratch);
        self.scratch = scratch;
        more
    }

    fn read_into(&mut self, slot: u32, scratch: &mut [u8]) -> bool {
        let generation = self.connections[slot].generation;
        for _ in 0..READS_PER_TURN {
            let Some(conn) = self.connections.get_exact(slot, generation) else { return false };
            let Some(socket) = &conn.socket else { return false };
            let lingering = conn.phase == Phase::Lingering;
            let kept = self.inputs.get(conn.input).map_or(0, |input| input.tail.len());
            let (head, space) = scratch.split_at_mut(kept);
            let received = match recv(socket, &mut *space, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    self.part(slot, CloseReason::PeerClosed, None);
                    return false;
                }
                Ok((_, received)) => received,
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => continue,
                Err(_) => {
                    self.part(slot, CloseReason::PeerReset, None);
                    return false;
                }
            };
            if lingering {
                continue;
            }
            let drained = received < space.len();
            if let Some(input) = self.inputs.get(conn.input) {
                head.copy_from_slice(&input.tail);
            }
            self.consume(slot, &mut scratch[..kept + received], kept > 0);
            if drained {
                // A short read has emptied the socket; the next byte makes a new event (epoll(7)).
                return false;
            }
        }
        true
    }

    /// Takes up what a client sent while admission was asked.
    pub(crate) fn read_kept(&mut self, slot: u32) {
        let index = self.connections[slot].input;
        let Some(input) = self.inputs.get_mut(index) else { return };
        input.cookie = String::new();
        let behind_auth = std::mem::take(&mut input.behind_auth);
        let mut tail = std::mem::take(&mut input.tail);
        if input.is_needless() {
            self.forget_input(slot);
        }
        match self.packets(slot, &behind_auth) {
            Ok(Flow::Ended) => {}
            Ok(_) => self.consume(slot, &mut tail, true),
            Err(reason) => self.part(slot, reason, None),
        }
    }

    /// Takes whole packets from the start of `bytes` and keeps the rest.
    fn consume(&mut self, slot: u32, bytes: &mut [u8], was_kept: bool) {
        let mut at = 0;
        while at < bytes.len() {
            // Its answers would only add to what it does not read.
            if self.owes_too_much(slot) {
                return;
            }
            let rest = &mut bytes[at..];
            let step = match self.connections[slot].phase {
                Phase::Upgrading => self.read_upgrade(slot, rest),
                Phase::Authenticating => Ok((0, Flow::Hold)),
                Phase::Free | Phase::Lingering => return,
                Phase::Unauthenticated | Phase::Joined => {
                    if self.connections[slot].manner.websocket {
                        self.read_frame(slot, rest, was_kept && at == 0)
                    } else {
                        self.read_packet(slot, rest)
                    }
                }
            };
            match step {
                Ok((consumed, flow)) => {
                    at += consumed;
                    match flow {
                        Flow::Next if consumed > 0 => {}
                        Flow::Next | Flow::Hold => break,
                        Flow::Ended => return,
                    }
                }
                Err(reason) => return self.part(slot, reason, None),
            }
        }
        self.keep(slot, &bytes[at..], was_kept && at == 0);
    }

    /// Keeps what is not whole. `same` says that it begins with what was kept before. The time of a message in
    /// fragments runs from its first one: each of them may be whole and in time, and the message never end.
    fn keep(&mut self, slot: u32, rest: &[u8], same: bool) {
        if rest.len() > MAX_KEPT_BYTES {
            return self.part(slot, CloseReason::InputWhileAuthenticating, None);
        }
        if rest.is_empty() && self.connections[slot].input == NONE {
            return;
        }
        let now = self.now;
        let input = self.input(slot);
        if !same && input.fragments.is_empty() {
            input.since = now;
        }
        input.tail.clear();
        input.tail.extend_from_slice(rest);
        if input.is_needless() {
            self.forget_input(slot);
        }
    }

    fn read_packet(&mut self, slot: u32, bytes: &[u8]) -> Result<(usize, Flow), CloseReason> {
        match parse(bytes, MAX_BODY_BYTES)? {
            None => Ok((0, Flow::Next)),
            Some(packet) => Ok((packet.wire_bytes(), self.packet(slot, packet)?)),
        }
    }

    fn read_upgrade(&mut self, slot: u32, bytes: &[u8]) -> Result<(usize, Flow), CloseReason> {
        let refusal = match handshake::parse(bytes) {
            Ok(None) => return Ok((0, Flow::Next)),
            Ok(Some(upgrade)) if upgrade.path == WEBSOCKET_PATH => {
                let mut response = Vec::with_capacity(256);
                handshake::put_accept(upgrade.key, None, &mut response);
                self.send_control(slot, &response);
                self.connections[slot].phase = Phase::Unauthenticated;
                if !upgrade.cookie.is_empty() {
                    self.input(slot).cookie = upgrade.cookie.into_owned();
                }
                return Ok((upgrade.consumed, Flow::Next));
            }
            Ok(Some(_)) => (handshake::NOT_FOUND, CloseReason::UnknownPath),
            Err(error) => (error.response(), CloseReason::BadHandshake),
        };
        self.send_control(slot, refusal.0);
        Err(refusal.1)
    }

    /// Takes one frame. `was_kept` says that its first bytes were there before.
    fn read_frame(&mut self, slot: u32, bytes: &mut [u8], was_kept: bool) -> Result<(usize, Flow), CloseReason> {
        let index = self.connections[slot].input;
        let mut fragments =
            self.inputs.get_mut(index).map(|input| std::mem::take(&mut input.fragments)).unwrap_or_default();
        let began_before = was_kept || !fragments.is_empty();
        let Some((event, consumed)) = wire::websocket::next(bytes, &mut fragments, &MESSAGE_LIMITS)? else {
            self.keep_fragments(slot, fragments, began_before);
            return Ok((0, Flow::Next));
        };
        let flow = match event {
            Event::Message { kind: MessageKind::Text, .. } => return Err(CloseReason::WebSocketText),
            Event::Message { kind: MessageKind::Binary, data } => self.packets(slot, data)?,
            Event::Part => Flow::Next,
            Event::Ping(payload) => {
                let mut pong = std::mem::take(&mut self.reply_buffer);
                pong.clear();
                put_frame(Opcode::Pong, payload, &mut pong);
                self.send_control(slot, &pong);
                self.reply_buffer = pong;
                Flow::Next
            }
            Event::Pong(_) => Flow::Next,
            Event::Close { .. } => {
                let mut close = Vec::with_capacity(8);
                put_close(CloseCode::NORMAL, "", &mut close);
                self.send_control(slot, &close);
                self.part(slot, CloseReason::PeerClosed, None);
                return Ok((consumed, Flow::Ended));
            }
        };
        self.keep_fragments(slot, fragments, began_before);
        Ok((consumed, flow))
    }

    fn keep_fragments(&mut self, slot: u32, fragments: Fragments, began_before: bool) {
        if !fragments.is_empty() && self.connections[slot].phase != Phase::Lingering {
            let now = self.now;
            let input = self.input(slot);
            if !began_before {
                input.since = now;
            }
            input.fragments = fragments;
        }
    }

    /// The packets of one WebSocket message, which has to hold whole ones.
    fn packets(&mut self, slot: u32, message: &[u8]) -> Result<Flow, CloseReason> {
        let mut packets = Packets::new(message, MAX_BODY_BYTES);
        while let Some(packet) = packets.next() {
            match self.packet(slot, packet?)? {
                Flow::Next => {}
                Flow::Hold => {
                    self.input(slot).behind_auth = packets.rest().to_vec();
                    return Ok(Flow::Hold);
                }
                Flow::Ended => return Ok(Flow::Ended),
            }
        }
        if packets.rest().is_empty() { Ok(Flow::Next) } else { Err(CloseReason::TruncatedPacket) }
    }

    fn packet(&mut self, slot: u32, packet: Packet<'_>) -> Result<Flow, CloseReason> {
        self.counters.client_packets_total.add(1);
        self.connections[slot].heard = self.now;
        match self.connections[slot].phase {
            Phase::Joined => self.request(slot, packet),
            Phase::Unauthenticated => self.auth(slot, packet),
            _ => Ok(Flow::Hold),
        }
    }

    fn auth(&mut self, slot: u32, packet: Packet<'_>) -> Result<Flow, CloseReason> {
        if packet.header.operation != wire::goim::op::AUTH {
            return Err(CloseReason::PacketBeforeAuth);
        }
        let input = self.input(slot);
        input.auth_header = Some(packet.header);
        let cookie = std::mem::take(&mut input.cookie);
        let body = match AuthBody::parse(packet.body, &self.bilibili_room_type) {
            Ok(body) => body,
            Err(error) => {
                self.refuse_auth(slot, CloseReason::BadAuthBody.code(), &error.to_string(), CloseReason::BadAuthBody);
                return Ok(Flow::Ended);
            }
        };
        let platform = self.platforms.number(&body.platform);
        let conn = &mut self.connections[slot];
        conn.platform = platform;
        conn.manner.format = match (body.dialect, body.protover) {
            (Dialect::Goim, _) => Format::Goim,
            (Dialect::Bilibili, 3..) => Format::Brotli,
            (Dialect::Bilibili, 2) => Format::Zlib,
            (Dialect::Bilibili, _) => Format::Bilibili,
        };
        let news = News::Auth { place: self.place(slot), body, cookie, address: self.address(slot) };
        if !self.news.tell(news) {
            let why = CloseReason::AuthUnavailable;
            self.refuse_auth(slot, why.code(), why.words(), why);
            return Ok(Flow::Ended);
        }
        self.connections[slot].phase = Phase::Authenticating;
        self.asking += 1;
        Ok(Flow::Hold)
    }

    /// Hands a client's message to the trunk.
    pub(crate) fn tell_message(&mut self, slot: u32, header: Header, room: Box<str>, body: &[u8]) -> bool {
        let (place, mid) = (self.place(slot), self.connections[slot].mid);
        self.news.tell(News::Message { place, header, mid, room, body: Bytes::copy_from_slice(body) })
    }

    /// The header of the auth packet that is being answered.
    pub(crate) fn take_auth_header(&mut self, slot: u32) -> Header {
        let index = self.connections[slot].input;
        let header = self.inputs.get_mut(index).and_then(|input| input.auth_header.take());
        header.unwrap_or(Header { version: 1, operation: wire::goim::op::AUTH, sequence: 0 })
    }

    /// Drops what is unfinished of the connection's input.
    pub(crate) fn forget_input(&mut self, slot: u32) {
        let index = std::mem::replace(&mut self.connections[slot].input, NONE);
        self.inputs.give_back(index, Input::cleared);
    }

    /// The side entry of the connection, which comes to be when there is none.
    fn input(&mut self, slot: u32) -> &mut Input {
        let conn = &mut self.connections[slot];
        if conn.input == NONE {
            conn.input = self.inputs.take();
        }
        let input = self.inputs.get_mut(conn.input).expect("the index was taken above or is held by the connection");
        input.slot = slot;
        input
    }
}
