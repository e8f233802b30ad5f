//! What one client is owed: handles on the shared blocks, and control packets ahead of them.
//!
//! It does not send by itself, nor know of bounds (`egress`, `liveness`), nor whose turn in a lane it is (`lanes`).

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::AsFd;

use bytes::Bytes;

use super::clock::Tick;
use super::send::{Outcome, offer, offer_all};

/// Entries of a debt that are kept allocated for its next user.
const KEPT_ENTRIES: usize = 64;

/// Entries that go with one call.
const ENTRIES_PER_SEND: usize = 64;

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
    /// Whether it is the lane that lets the client wait, and who waits before and after it.
    pub(crate) turn: LaneTurn,
}

/// A place in the row of those who wait for their lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LaneTurn {
    /// In no row.
    #[default]
    None,
    /// Between the debts with these indexes, `NONE` at the ends.
    Between(u32, u32),
}

impl LaneTurn {
    /// The same place, with another neighbour after it.
    pub(crate) fn with_after(self, after: u32) -> Self {
        match self {
            Self::Between(before, _) => Self::Between(before, after),
            Self::None => Self::None,
        }
    }

    /// The same place, with another neighbour before it.
    pub(crate) fn with_before(self, before: u32) -> Self {
        match self {
            Self::Between(_, after) => Self::Between(before, after),
            Self::None => Self::None,
        }
    }
}

/// A part of what is owed.
pub(crate) struct Owed {
    /// Never empty.
    pub(crate) bytes: Bytes,
    /// Packets that end in it, for the count of what is lost with it; 0 for control.
    pub(crate) packets: u32,
    pub(crate) since: Tick,
    pub(crate) control: bool,
}

const _: () = assert!(size_of::<Owed>() == 48, "what each message costs for a client that waits");

impl Debt {
    /// When the oldest entry came.
    pub(crate) fn since(&self) -> Option<Tick> {
        self.queue.front().map(|owed| owed.since)
    }

    /// Bytes of all entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_paid(&self) -> bool {
        self.queue.is_empty()
    }

    /// Part of the first entry is in the kernel.
    pub(crate) fn is_split(&self) -> bool {
        self.split
    }

    /// It is the lane that lets the client wait, not its socket.
    pub(crate) fn waits_for_lane(&self) -> bool {
        self.turn != LaneTurn::None
    }

    /// Control waits, which no lane holds back.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent_entries() > 0
    }

    /// Control, and what is under way before it.
    fn urgent_entries(&self) -> usize {
        match self.queue.front() {
            Some(first) if self.split && (self.control > 0 || first.control) => self.control + 1,
            _ => self.control,
        }
    }

    pub(crate) fn push(&mut self, owed: Owed) {
        self.bytes += owed.bytes.len();
        if !owed.control {
            self.queue.push_back(owed);
            return;
        }
        self.queue.insert(usize::from(self.split) + self.control, owed);
        self.control += 1;
    }

    /// Part of the only entry went before it came to be owed.
    pub(crate) fn begin_split(&mut self) {
        self.split = true;
        self.control = 0;
    }

    /// Hands entries to the socket with one call: control if any waits, else as many as `most_bytes` allow, and one at
    /// least. Gives what became of it, and how many bytes it was.
    pub(crate) fn offer(&self, socket: impl AsFd, most_bytes: usize) -> (Outcome, usize) {
        let urgent = self.urgent_entries();
        let mut pieces = [IoSlice::new(&[]); ENTRIES_PER_SEND];
        let (mut count, mut bytes) = (0, 0);
        for (owed, piece) in self.queue.iter().zip(&mut pieces) {
            let fits = if urgent > 0 { count < urgent } else { bytes + owed.bytes.len() <= most_bytes };
            if count > 0 && !fits {
                break;
            }
            *piece = IoSlice::new(&owed.bytes);
            count += 1;
            bytes += owed.bytes.len();
        }
        let outcome = match &pieces[..count] {
            [one] => offer(socket, one),
            several => offer_all(socket, several),
        };
        (outcome, bytes)
    }

    /// Takes `sent` bytes off the front.
    pub(crate) fn settle(&mut self, sent: usize) {
        self.bytes -= sent;
        let mut sent = sent;
        while sent > 0
            && let Some(first) = self.queue.front_mut()
        {
            if first.control && !self.split {
                self.control -= 1;
            }
            self.split = sent < first.bytes.len();
            if self.split {
                return bytes::Buf::advance(&mut first.bytes, sent);
            }
            sent -= first.bytes.len();
            self.queue.pop_front();
        }
    }

    pub(crate) fn packets(&self) -> u32 {
        self.queue.iter().map(|owed| owed.packets).sum()
    }

    pub(crate) fn cleared(mut self) -> Self {
        self.queue.clear();
        self.queue.shrink_to(KEPT_ENTRIES);
        Self { queue: self.queue, ..Self::default() }
    }
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
