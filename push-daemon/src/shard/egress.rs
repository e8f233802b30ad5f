//! Bytes out: what a socket takes now, and what it is owed because it would not.
//!
//! Most clients read as fast as we send, so a send goes straight to the socket and nothing is kept. When a
//! socket takes less, the rest stands in a debt: handles on the shared blocks, not copies. A debt is bounded
//! in bytes and in age; past the bound the client is closed and what it was owed is counted as dropped.
//!
//! Control packets (heartbeat replies, pongs) never wait behind data: they go out right after the piece that
//! is partly sent, because a stream can only be joined between two packets.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use bytes::Bytes;
use wire::goim::{HEADER_BYTES, Header};
use wire::websocket::Opcode;
use wire::websocket::frame::put_frame;

use super::Shard;
use super::clock::Tick;
use super::conn::{Conn, NONE, Phase};
use super::reason::CloseReason;
use super::send::{Outcome, Outgoing, Piece, RING_ENTRIES, offer};
use crate::block::{Block, View};

/// Entries of a debt that are kept allocated for its next user.
const KEPT_ENTRIES: usize = 64;

/// What one client is owed.
#[derive(Default)]
pub(crate) struct Debt {
    /// The connection that owes the reading.
    pub(crate) slot: u32,
    queue: VecDeque<Owed>,
    /// Sum of the entries' bytes, at most `limits.debt_bytes` and one entry.
    bytes: usize,
    /// Part of the first entry is in the kernel: nothing may go before its rest.
    split: bool,
    /// The kernel was short of memory, which passes without an event: the next tick tries again.
    pub(crate) no_event_comes: bool,
    /// Control entries that wait, the split one not counted. Invariant: they stand in one row at the front, behind the
    /// split one; so a client that asks and never reads makes no search longer.
    control: usize,
}

struct Owed {
    /// Never empty.
    bytes: Bytes,
    /// Packets that end in it, for the count of what is lost with it; 0 for control.
    packets: u32,
    since: Tick,
    control: bool,
}

impl Debt {
    /// When the oldest entry came.
    pub(crate) fn since(&self) -> Option<Tick> {
        self.queue.front().map(|owed| owed.since)
    }

    fn push(&mut self, owed: Owed) {
        self.bytes += owed.bytes.len();
        if !owed.control {
            self.queue.push_back(owed);
            return;
        }
        self.queue.insert(usize::from(self.split) + self.control, owed);
        self.control += 1;
    }

    /// Part of the only entry went before it came to be owed.
    fn begin_split(&mut self) {
        self.split = true;
        self.control = 0;
    }

    /// Takes `sent` bytes off the first entry.
    fn settle(&mut self, sent: usize) {
        self.bytes -= sent;
        let Some(first) = self.queue.front_mut() else { return };
        if sent == 0 {
            return;
        }
        if first.control && !self.split {
            self.control -= 1;
        }
        self.split = sent < first.bytes.len();
        if self.split {
            bytes::Buf::advance(&mut first.bytes, sent);
        } else {
            self.queue.pop_front();
        }
    }

    fn packets(&self) -> u32 {
        self.queue.iter().map(|owed| owed.packets).sum()
    }

    fn cleared(mut self) -> Self {
        self.queue.clear();
        self.queue.shrink_to(KEPT_ENTRIES);
        Self { queue: self.queue, ..Self::default() }
    }
}

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
        let mut is_sent = false;
        for slot in slots {
            let Some(conn) = self.connections.get(*slot).filter(|conn| conn.phase == Phase::Joined) else { continue };
            let view = view_of(conn);
            if conn.debt != NONE {
                self.delivered(*slot, &block, view, 0);
            } else if let Some(socket) = &conn.socket {
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
        if sent < bytes.len() {
            let rest = Bytes::copy_from_slice(&bytes[sent..]);
            self.owe(slot, Owed { bytes: rest, packets: 0, since: self.now, control: true }, sent > 0);
        }
        if outcome == Outcome::NoMemory {
            self.try_again(slot);
        }
    }

    /// Whether the connection in `slot` owes more than it may, and is closed at the end of this turn.
    pub(crate) fn owes_too_much(&self, slot: u32) -> bool {
        let debt = self.connections.get(slot).and_then(|conn| self.debts.get(conn.debt));
        debt.is_some_and(|debt| debt.bytes > self.limits.debt_bytes.count())
    }

    /// The socket takes bytes again: pays what it can of the debt.
    pub(crate) fn pay(&mut self, slot: u32) {
        let Some(conn) = self.connections.get(slot) else { return };
        let index = conn.debt;
        let Some(debt) = self.debts.get_mut(index) else { return };
        let Some(socket) = &conn.socket else { return };
        let before = debt.bytes;
        debt.no_event_comes = false;
        let mut broken = false;
        while let Some(first) = debt.queue.front() {
            match offer(socket, &first.bytes) {
                Outcome::Taken(0) => break,
                Outcome::Taken(sent) => {
                    let partly = sent < first.bytes.len();
                    debt.settle(sent);
                    if partly {
                        break;
                    }
                }
                Outcome::NoMemory => {
                    debt.no_event_comes = true;
                    break;
                }
                Outcome::Broken => {
                    broken = true;
                    break;
                }
            }
        }
        self.owed_bytes -= before - debt.bytes;
        let paid = debt.queue.is_empty();
        if broken {
            // At once: the send has taken the socket's error, and a read would now find an ordinary end of stream.
            self.part(slot, CloseReason::PeerReset, None);
        } else if paid {
            self.debts.give_back(index, Debt::cleared);
            self.connections[slot].debt = NONE;
        }
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
        let index = std::mem::replace(&mut self.connections[slot].debt, NONE);
        if let Some(debt) = self.debts.get(index) {
            self.counters.dropped_packets_total.add(u64::from(debt.packets()));
            self.owed_bytes -= debt.bytes;
            self.debts.give_back(index, Debt::cleared);
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
        if debt.bytes > self.limits.debt_bytes.count() {
            self.close_later(slot, CloseReason::DebtBytes);
        }
    }
}

/// Longest body of a reply: a code and a reason.
const MAX_REPLY_BODY_BYTES: usize = 1024;

/// What this connection is sent of a block.
pub(crate) fn view_of(conn: &Conn) -> View {
    View { format: conn.manner.format, websocket: conn.manner.websocket }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(text: &'static str, control: bool) -> Owed {
        Owed { bytes: Bytes::from_static(text.as_bytes()), packets: u32::from(!control), since: Tick(0), control }
    }

    fn order(debt: &Debt) -> Vec<&str> {
        debt.queue.iter().map(|owed| std::str::from_utf8(&owed.bytes).unwrap()).collect()
    }

    #[test]
    fn control_goes_behind_the_piece_under_way_and_before_all_other_data() {
        let mut debt = Debt::default();
        debt.push(owed("block 1", false));
        debt.settle(3);
        debt.push(owed("block 2", false));
        debt.push(owed("pong", true));
        debt.push(owed("heartbeat", true));
        assert_eq!(order(&debt), ["ck 1", "pong", "heartbeat", "block 2"]);
        debt.settle(4);
        debt.push(owed("third", true));
        assert_eq!(order(&debt), ["pong", "heartbeat", "third", "block 2"]);
        assert_eq!(debt.packets(), 1);
        assert_eq!(debt.bytes, "pongheartbeatthirdblock 2".len());
        debt.settle(2);
        debt.push(owed("fourth", true));
        assert_eq!(order(&debt), ["ng", "heartbeat", "third", "fourth", "block 2"]);
        for bytes in ["ng", "heartbeat", "third", "fourth"] {
            debt.settle(bytes.len());
        }
        debt.push(owed("fifth", true));
        assert_eq!(order(&debt), ["fifth", "block 2"]);
    }

    #[test]
    fn control_goes_first_when_nothing_is_under_way() {
        let mut debt = Debt::default();
        debt.push(owed("block", false));
        debt.push(owed("pong", true));
        assert_eq!(order(&debt), ["pong", "block"]);
        debt.settle(0);
        assert!(!debt.split, "a socket that takes nothing splits nothing");
    }

    #[test]
    fn control_that_was_partly_sent_at_once_keeps_its_place() {
        let mut debt = Debt::default();
        debt.push(owed("ng", true));
        debt.begin_split();
        debt.push(owed("block", false));
        debt.push(owed("heartbeat", true));
        assert_eq!(order(&debt), ["ng", "heartbeat", "block"]);
        debt.settle(2);
        debt.push(owed("second", true));
        assert_eq!(order(&debt), ["heartbeat", "second", "block"]);
    }
}
