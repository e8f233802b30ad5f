//! Bytes out: what a socket takes now, and what it is owed because it would not.
//!
//! Most clients read as fast as we send, so a send goes straight to the socket and nothing is kept. When a
//! socket takes less, the rest stands in a debt: handles on the shared blocks, not copies. A debt is bounded
//! in bytes and in age; past the bound the client is closed and what it was owed is counted as dropped.
//!
//! Control packets (heartbeat replies, pongs) never wait behind data: they go out right after the piece that
//! is partly sent, because a stream can only be joined between two packets.
//!
//! A client whose lane has nothing left is owed what it is due in the same way; its turn comes with the lane's (`lanes`)
//! instead of with its socket, except for control, which no lane holds back.

use std::os::fd::AsRawFd;

use bytes::Bytes;
use wire::goim::{HEADER_BYTES, Header};
use wire::websocket::Opcode;
use wire::websocket::frame::put_frame;

use super::Shard;
use super::conn::{Conn, NONE, Phase};
use super::debt::{Debt, Owed};
use super::reason::CloseReason;
use super::send::{Outcome, Outgoing, Piece, RING_ENTRIES, offer};
use crate::block::{Block, View};

impl Shard {
    /// Sends `block` to the connections in `slots`, or owes it. No slot may stand there twice.
    pub(crate) fn deliver(&mut self, slots: &[u32], block: Block) {
        self.gather(slots, block);
        self.send_gathered();
    }

    /// Puts sends of `block` to the connections in `slots` into the slice, to go with those of other blocks. No slot may
    /// stand twice in a slice.
    pub(crate) fn gather(&mut self, slots: &[u32], block: Block) {
        let number = self.pieces.blocks.len() as u32;
        let lanes_are_on = self.lanes.are_on();
        let mut is_sent = false;
        for slot in slots {
            let Some(conn) = self.connections.get(*slot).filter(|conn| conn.phase == Phase::Joined) else { continue };
            let view = view_of(conn);
            if conn.debt != NONE {
                self.delivered(*slot, &block, view, 0);
            } else if lanes_are_on && self.lanes.hold_back(conn.lane) {
                self.wait_for_lane(*slot);
                self.delivered(*slot, &block, view, 0);
            } else if let Some(socket) = &conn.socket {
                if lanes_are_on {
                    self.lanes.spend(conn.lane, block.view(view).map_or(0, <[u8]>::len));
                }
                is_sent = true;
                let (socket, piece) = (socket.as_raw_fd(), Piece::Block(number, view));
                self.outgoing.push(Outgoing { slot: *slot, socket, piece, outcome: Outcome::Broken });
            }
        }
        if is_sent {
            self.pieces.blocks.push(block);
        }
        if self.outgoing.len() >= RING_ENTRIES as usize {
            self.send_gathered();
        }
    }

    /// Sends what was gathered.
    pub(crate) fn send_gathered(&mut self) {
        if self.outgoing.is_empty() {
            return;
        }
        let mut slice = std::mem::take(&mut self.outgoing);
        let mut pieces = std::mem::take(&mut self.pieces);
        match self.outlet.run(&pieces, &mut slice) {
            Ok(calls) => self.counters.send_calls_total.add(calls),
            Err(error) => self.broken = Some(error),
        }
        self.counters.sends_total.add(slice.len() as u64);
        for Outgoing { slot, piece, outcome, .. } in slice.drain(..) {
            match piece {
                Piece::Block(number, view) => self.block_sent(slot, &pieces.blocks[number as usize], view, outcome),
                Piece::Answer(..) => self.control_sent(slot, pieces.bytes(piece), outcome),
            }
        }
        pieces.clear();
        (self.outgoing, self.pieces) = (slice, pieces);
    }

    fn block_sent(&mut self, slot: u32, block: &Block, view: View, outcome: Outcome) {
        match outcome {
            Outcome::Taken(sent) => self.delivered(slot, block, view, sent),
            Outcome::NoMemory => {
                self.delivered(slot, block, view, 0);
                self.try_again(slot);
            }
            Outcome::Broken => self.close_later(slot, CloseReason::PeerReset),
        }
    }

    /// Counts a block as delivered, and owes what the socket did not take of it.
    fn delivered(&mut self, slot: u32, block: &Block, view: View, sent: usize) {
        let Some(whole) = block.view(view).map(<[u8]>::len) else { return };
        self.counters.delivered_packets_total.add(u64::from(block.count()));
        self.counters.delivered_bytes_total.add(whole as u64);
        if sent < whole
            && let Some(rest) = block.rest(view, sent)
        {
            // What the socket did not take was not spent; who waits for the lane spent nothing.
            if let Some(conn) = self.connections.get(slot).filter(|conn| conn.debt == NONE) {
                self.lanes.refund(conn.lane, whole, sent);
            }
            let owed = Owed { bytes: rest, packets: block.count(), since: self.now, control: false };
            self.owe(slot, owed, sent > 0);
        }
    }

    /// Answers the connection in `slot` with a packet of our own making, ahead of data that it is owed. The answer goes with
    /// those of others, at the next [`Self::send_gathered`].
    pub(crate) fn reply(&mut self, slot: u32, header: Header, body: &[u8]) {
        self.clear_slice_for(slot);
        let mut answers = std::mem::take(&mut self.pieces.answers);
        let at = answers.len();
        self.put_reply(slot, header, body, &mut answers);
        let piece = Piece::Answer(at as u32, (answers.len() - at) as u32);
        self.pieces.answers = answers;
        let Some(conn) = self.connections.get(slot) else { return };
        match &conn.socket {
            Some(socket) if conn.debt == NONE => {
                self.outgoing.push(Outgoing { slot, socket: socket.as_raw_fd(), piece, outcome: Outcome::Broken });
            }
            // Behind what it owes already, and no part of the slice.
            _ => {
                let bytes = self.pieces.answers.split_off(at);
                self.control_sent(slot, &bytes, Outcome::Taken(0));
            }
        }
    }

    /// Sends what was gathered if the connection in `slot` is in it, or if it is as much as a submission takes. Answers are
    /// gathered client by client, so it would stand last.
    fn clear_slice_for(&mut self, slot: u32) {
        let full = self.outgoing.len() >= RING_ENTRIES as usize;
        if full || self.outgoing.last().is_some_and(|outgoing| outgoing.slot == slot) {
            self.send_gathered();
        }
    }

    /// Appends a packet of our own making as the connection in `slot` reads it.
    fn put_reply(&self, slot: u32, header: Header, body: &[u8], buffer: &mut Vec<u8>) {
        let Some(conn) = self.connections.get(slot) else { return };
        if conn.manner.websocket {
            let mut packet = [0; HEADER_BYTES + MAX_REPLY_BODY_BYTES];
            let body = &body[..body.len().min(MAX_REPLY_BODY_BYTES)];
            packet[..HEADER_BYTES].copy_from_slice(&header.encode(body.len()));
            packet[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(body);
            put_frame(Opcode::Binary, &packet[..HEADER_BYTES + body.len()], buffer);
        } else {
            header.put_packet(body, buffer);
        }
    }

    /// Sends bytes that are whole on the stream, ahead of data that the connection is owed.
    pub(crate) fn send_control(&mut self, slot: u32, bytes: &[u8]) {
        self.clear_slice_for(slot);
        let Some(conn) = self.connections.get(slot) else { return };
        let outcome = match &conn.socket {
            Some(socket) if conn.debt == NONE => offer(socket, bytes),
            _ => Outcome::Taken(0),
        };
        self.control_sent(slot, bytes, outcome);
    }

    /// Owes what the socket did not take of a control packet.
    fn control_sent(&mut self, slot: u32, bytes: &[u8], outcome: Outcome) {
        let sent = match outcome {
            Outcome::Taken(sent) => sent,
            Outcome::NoMemory => 0,
            Outcome::Broken => return self.close_later(slot, CloseReason::PeerReset),
        };
        if sent > 0 && self.lanes.are_on() {
            self.lanes.spend_on_control(self.connections[slot].lane, sent);
        }
        if sent < bytes.len() {
            let rest = Bytes::copy_from_slice(&bytes[sent..]);
            self.owe(slot, Owed { bytes: rest, packets: 0, since: self.now, control: true }, sent > 0);
            // Its socket makes no event: it was the lane that it waited for.
            if self.waits_for_lane(slot) && !self.pay_some(slot, false) {
                self.close_later(slot, CloseReason::PeerReset);
            }
        }
        if outcome == Outcome::NoMemory {
            self.try_again(slot);
        }
    }

    /// Whether the connection in `slot` owes more than it may, and is closed at the end of this turn.
    pub(crate) fn owes_too_much(&self, slot: u32) -> bool {
        let debt = self.connections.get(slot).and_then(|conn| self.debts.get(conn.debt));
        debt.is_some_and(|debt| debt.bytes() > self.limits.debt_bytes.count())
    }

    /// Whether it is the lane that lets the connection in `slot` wait.
    fn waits_for_lane(&self, slot: u32) -> bool {
        let debt = self.connections.get(slot).and_then(|conn| self.debts.get(conn.debt));
        debt.is_some_and(Debt::waits_for_lane)
    }

    /// The socket takes bytes again: pays what it can of the debt.
    pub(crate) fn pay(&mut self, slot: u32) {
        if !self.pay_some(slot, false) {
            // At once: the send has taken the socket's error, and a read would now find an ordinary end of stream.
            self.part(slot, CloseReason::PeerReset, None);
        }
    }

    /// It is the turn of the connection in `slot`, which waits no longer: pays what its lane allows, and has it wait again
    /// for the rest.
    pub(crate) fn pay_in_turn(&mut self, slot: u32) {
        if !self.pay_some(slot, true) {
            self.part(slot, CloseReason::PeerReset, None);
        }
    }

    /// False when the connection is broken.
    fn pay_some(&mut self, slot: u32, in_turn: bool) -> bool {
        let Some(conn) = self.connections.get(slot) else { return true };
        let (index, lane) = (conn.debt, conn.lane);
        let (Some(debt), Some(socket)) = (self.debts.get_mut(index), &conn.socket) else { return true };
        let before = debt.bytes();
        debt.no_event_comes = false;
        let (mut broken, mut waits) = (false, false);
        while !debt.is_paid() {
            // Who waits is among those for whom the lane holds back.
            let most_bytes = if debt.is_urgent() { usize::MAX } else { self.lanes.allowance(lane, in_turn) };
            if most_bytes == 0 {
                waits = true;
                break;
            }
            match debt.offer(socket, most_bytes) {
                (Outcome::Taken(sent), offered) => {
                    debt.settle(sent);
                    self.lanes.spend(lane, sent);
                    if sent < offered {
                        break;
                    }
                }
                (Outcome::NoMemory, _) => {
                    debt.no_event_comes = true;
                    break;
                }
                (Outcome::Broken, _) => {
                    broken = true;
                    break;
                }
            }
            if in_turn && !debt.is_urgent() {
                waits = !debt.is_paid();
                break;
            }
        }
        self.owed_bytes -= before - debt.bytes();
        if broken {
            return false;
        }
        if debt.is_paid() {
            self.lanes.leave(lane, index, &mut self.debts);
            self.debts.give_back(index, Debt::cleared);
            self.connections[slot].debt = NONE;
        } else if waits {
            self.lanes.enter(lane, index, &mut self.debts);
        }
        true
    }

    /// Has the connection in `slot`, which owes nothing yet, wait for its lane.
    fn wait_for_lane(&mut self, slot: u32) {
        let index = self.debts.take();
        let conn = &mut self.connections[slot];
        conn.debt = index;
        if let Some(debt) = self.debts.get_mut(index) {
            debt.slot = slot;
        }
        self.lanes.enter(conn.lane, index, &mut self.debts);
    }

    /// Has the next tick pay, because no event will.
    fn try_again(&mut self, slot: u32) {
        self.counters.sends_without_memory_total.add(1);
        let index = self.connections[slot].debt;
        if let Some(debt) = self.debts.get_mut(index) {
            debt.no_event_comes = true;
        }
    }

    /// Forgets what the connection is owed and counts it as dropped.
    pub(crate) fn forgive(&mut self, slot: u32) {
        let conn = &mut self.connections[slot];
        let index = std::mem::replace(&mut conn.debt, NONE);
        self.lanes.leave(conn.lane, index, &mut self.debts);
        if let Some(debt) = self.debts.get(index) {
            self.counters.dropped_packets_total.add(u64::from(debt.packets()));
            self.owed_bytes -= debt.bytes();
            self.debts.give_back(index, Debt::cleared);
        }
    }

    /// The same if all of it waits for the lane, so that a goodbye may take its place.
    pub(crate) fn forgive_what_waits(&mut self, slot: u32) {
        let debt = self.debts.get(self.connections[slot].debt);
        if debt.is_some_and(|debt| debt.waits_for_lane() && !debt.is_split()) {
            self.forgive(slot);
        }
    }

    fn owe(&mut self, slot: u32, owed: Owed, split: bool) {
        let conn = &mut self.connections[slot];
        if conn.debt == NONE {
            conn.debt = self.debts.take();
        }
        let Some(debt) = self.debts.get_mut(conn.debt) else { return };
        debt.slot = slot;
        self.owed_bytes += owed.bytes.len();
        debt.push(owed);
        if split {
            debt.begin_split();
        }
        if debt.bytes() > self.limits.debt_bytes.count() {
            let lane = debt.waits_for_lane();
            self.close_later(slot, if lane { CloseReason::LaneBytes } else { CloseReason::DebtBytes });
        }
    }
}

/// Longest body of a reply: a code and a reason.
const MAX_REPLY_BODY_BYTES: usize = 1024;

/// What this connection is sent of a block.
pub(crate) fn view_of(conn: &Conn) -> View {
    View { format: conn.manner.format, websocket: conn.manner.websocket }
}
