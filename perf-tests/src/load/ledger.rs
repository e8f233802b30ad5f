//! What each client has heard, exactly: every number that is missing, came twice, or came late.
//!
//! A client that hears everything in order costs eight bytes. Only one with a hole in its numbers has more, in a side
//! map, until the hole is filled. No clock, no I/O.

use std::collections::HashMap;

/// Holes remembered per client. One with more has lost its stream; its further losses are counted but not remembered.
const MAX_HOLES_PER_CLIENT: usize = 64;

/// Holes remembered in all: 16 MiB of ranges.
const MAX_HOLES: usize = 1 << 20;

/// First number of a client that has heard nothing and was promised nothing.
const UNHEARD: u32 = u32::MAX;

/// From which number on a client is owed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// From 0: the client was in the room before the first message.
    Zero,
    /// From the first that it hears: somebody else publishes, and may have begun before.
    FirstHeard,
}

/// What a number was to the client that heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The one that was due.
    InOrder,
    /// A later one: those between are missing, for now.
    AfterGap,
    /// One that was missing: it came, but after a later one.
    Late,
    /// One that the client already had.
    Duplicate,
}

/// What a ledger has counted over all its clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different messages heard.
    pub received: u64,
    /// Times that a number was not the one due, but a later one.
    pub gaps: u64,
    /// Messages heard again.
    pub duplicates: u64,
    /// Messages heard after a later one.
    pub order_faults: u64,
    /// Missing numbers that were not remembered singly for want of room. A late one among them counts as a duplicate.
    pub unremembered: u64,
}

/// How a ledger stands to what was due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Messages owed to the clients.
    pub due: u64,
    /// Of these, never heard.
    pub missing: u64,
    /// Clients that miss at least one.
    pub incomplete_clients: u64,
    /// Clients of a room in which others heard something, who heard nothing.
    pub silent_clients: u64,
}

#[derive(Debug, Clone, Copy)]
struct Track {
    /// The lowest number owed. `UNHEARD` until the first one when anchored there.
    first: u32,
    /// The lowest number that neither came nor is a remembered hole. first <= next.
    next: u32,
}

/// Holes of one client: half-open ranges, ascending, none empty, none touching another.
#[derive(Debug, Default)]
struct Holes {
    ranges: Vec<(u32, u32)>,
    /// Missing numbers beyond what `ranges` may hold.
    unremembered: u32,
}

/// The books of the clients of one thread, by slot.
#[derive(Debug)]
pub struct Ledger {
    anchor: Anchor,
    tracks: Vec<Track>,
    holes: HashMap<u32, Holes>,
    /// Ranges in `holes`. At most [`MAX_HOLES`].
    remembered: usize,
    counts: Counts,
}

impl Ledger {
    /// Books for `clients` clients who have heard nothing.
    #[must_use]
    pub fn new(clients: usize, anchor: Anchor) -> Self {
        let first = if anchor == Anchor::Zero { 0 } else { UNHEARD };
        Self {
            anchor,
            tracks: vec![Track { first, next: first }; clients],
            holes: HashMap::new(),
            remembered: 0,
            counts: Counts::default(),
        }
    }

    /// Enters that the client at `slot` heard `number`, which is below `u32::MAX`.
    pub fn enter(&mut self, slot: u32, number: u32) -> Verdict {
        let track = &mut self.tracks[slot as usize];
        if track.first == UNHEARD {
            *track = Track { first: number, next: number };
        }
        let (first, next) = (track.first, track.next);
        let verdict = if number == next {
            track.next += 1;
            Verdict::InOrder
        } else if number > next {
            track.next = number + 1;
            self.open_hole(slot, next, number);
            Verdict::AfterGap
        } else if number < first {
            // Only when anchored at the first heard: that was not the first sent.
            track.first = number;
            self.open_hole_below(slot, number + 1, first);
            Verdict::Late
        } else if self.fill(slot, number) {
            Verdict::Late
        } else {
            Verdict::Duplicate
        };
        match verdict {
            Verdict::InOrder => self.counts.received += 1,
            Verdict::AfterGap => {
                self.counts.received += 1;
                self.counts.gaps += 1;
            }
            Verdict::Late => {
                self.counts.received += 1;
                self.counts.order_faults += 1;
            }
            Verdict::Duplicate => self.counts.duplicates += 1,
        }
        verdict
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// One past the highest number that the client has heard; `None` when it heard nothing.
    #[must_use]
    pub fn end_of(&self, slot: u32) -> Option<u32> {
        let track = self.tracks[slot as usize];
        (track.first != UNHEARD && track.next > track.first).then_some(track.next)
    }

    /// Adds the client at `slot` to `balance`, when its room's numbers ended before `end`.
    pub fn settle(&self, slot: u32, end: u32, balance: &mut Balance) {
        let track = self.tracks[slot as usize];
        let silent = end > 0 && self.end_of(slot).is_none();
        balance.silent_clients += u64::from(silent);
        let (due, missing) = if track.first == UNHEARD {
            // How much it was owed is not known; at least one, or it would not be silent.
            (u32::from(silent), u32::from(silent))
        } else {
            let holes = self.holes.get(&slot);
            let inside: u32 = holes.map_or(0, |holes| {
                let ranges = holes.ranges.iter().map(|&(from, to)| to.min(end).saturating_sub(from));
                ranges.sum::<u32>() + holes.unremembered
            });
            (end.saturating_sub(track.first), inside + end.saturating_sub(track.next))
        };
        balance.due += u64::from(due);
        balance.missing += u64::from(missing);
        balance.incomplete_clients += u64::from(missing > 0);
    }

    fn open_hole(&mut self, slot: u32, from: u32, to: u32) {
        let holes = self.holes.entry(slot).or_default();
        if holes.ranges.len() < MAX_HOLES_PER_CLIENT && self.remembered < MAX_HOLES {
            holes.ranges.push((from, to));
            self.remembered += 1;
        } else {
            holes.unremembered += to - from;
            self.counts.unremembered += u64::from(to - from);
        }
    }

    fn open_hole_below(&mut self, slot: u32, from: u32, to: u32) {
        debug_assert_eq!(self.anchor, Anchor::FirstHeard);
        if from == to {
            return;
        }
        self.open_hole(slot, from, to);
        if let Some(holes) = self.holes.get_mut(&slot) {
            holes.ranges.sort_unstable();
        }
    }

    /// Takes `number` out of the client's holes; false when it is in none.
    fn fill(&mut self, slot: u32, number: u32) -> bool {
        let Some(holes) = self.holes.get_mut(&slot) else { return false };
        let Some(at) = holes.ranges.iter().position(|&(from, to)| (from..to).contains(&number)) else { return false };
        let (from, to) = holes.ranges[at];
        match (from == number, number + 1 == to) {
            (true, true) => {
                holes.ranges.remove(at);
                self.remembered -= 1;
            }
            (true, false) => holes.ranges[at] = (number + 1, to),
            (false, true) => holes.ranges[at] = (from, number),
            (false, false) => {
                holes.ranges[at] = (from, number);
                if holes.ranges.len() < MAX_HOLES_PER_CLIENT && self.remembered < MAX_HOLES {
                    holes.ranges.insert(at + 1, (number + 1, to));
                    self.remembered += 1;
                } else {
                    holes.unremembered += to - (number + 1);
                    self.counts.unremembered += u64::from(to - (number + 1));
                }
            }
        }
        if holes.ranges.is_empty() && holes.unremembered == 0 {
            self.holes.remove(&slot);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn heard(anchor: Anchor, numbers: &[u32]) -> (Ledger, Vec<Verdict>) {
        let mut ledger = Ledger::new(1, anchor);
        let verdicts = numbers.iter().map(|&number| ledger.enter(0, number)).collect();
        (ledger, verdicts)
    }

    fn balance(ledger: &Ledger, end: u32) -> Balance {
        let mut balance = Balance::default();
        ledger.settle(0, end, &mut balance);
        balance
    }

    #[test]
    fn verdicts() {
        use Verdict::{AfterGap, Duplicate, InOrder, Late};
        let rows: [(&str, &[u32], &[Verdict]); 5] = [
            ("all in order", &[0, 1, 2], &[InOrder, InOrder, InOrder]),
            ("one missing", &[0, 2], &[InOrder, AfterGap]),
            ("one twice", &[0, 0, 1], &[InOrder, Duplicate, InOrder]),
            ("two swapped", &[1, 0, 2], &[AfterGap, Late, InOrder]),
            ("late, and again", &[0, 5, 2, 2, 4], &[InOrder, AfterGap, Late, Duplicate, Late]),
        ];
        for (name, numbers, verdicts) in rows {
            assert_eq!(heard(Anchor::Zero, numbers).1, verdicts, "{name}");
        }
    }

    #[test]
    fn a_silent_client_is_owed_what_its_room_heard() {
        let silent = heard(Anchor::Zero, &[]).0;
        let all = Balance { due: 5, missing: 5, incomplete_clients: 1, silent_clients: 1 };
        assert_eq!(balance(&silent, 5), all);
        assert_eq!(balance(&silent, 0), Balance::default());
        let silent = heard(Anchor::FirstHeard, &[]).0;
        assert_eq!(balance(&silent, 5), Balance { due: 1, missing: 1, ..all });
    }

    #[test]
    fn holes_beyond_the_bound_are_still_missing() {
        let numbers: Vec<u32> = (0..200).map(|n| n * 2).collect();
        let (ledger, _) = heard(Anchor::Zero, &numbers);
        assert_eq!(balance(&ledger, 399), Balance { due: 399, missing: 199, incomplete_clients: 1, silent_clients: 0 });
        assert!(ledger.counts().unremembered > 0);
    }

    proptest! {
        /// Against the plain way to say it: a set of all numbers heard.
        #[test]
        fn it_agrees_with_a_set(numbers in proptest::collection::vec(0u32..40, 0..80), anchored_at_zero: bool) {
            let anchor = if anchored_at_zero { Anchor::Zero } else { Anchor::FirstHeard };
            let (ledger, verdicts) = heard(anchor, &numbers);
            let mut set = BTreeSet::new();
            for (number, verdict) in numbers.iter().zip(verdicts) {
                let above = set.last().is_some_and(|last| last > number);
                match verdict {
                    Verdict::Duplicate => prop_assert!(!set.insert(*number)),
                    Verdict::Late => prop_assert!(set.insert(*number) && above),
                    Verdict::InOrder | Verdict::AfterGap => prop_assert!(set.insert(*number) && !above),
                }
            }
            let end = 40;
            let first = if anchored_at_zero { 0 } else { set.first().copied().unwrap_or(end) };
            let balance = balance(&ledger, end);
            prop_assert_eq!(ledger.counts().received, set.len() as u64);
            prop_assert_eq!(ledger.counts().duplicates, (numbers.len() - set.len()) as u64);
            if !set.is_empty() {
                prop_assert_eq!(balance.due, u64::from(end - first));
                prop_assert_eq!(balance.due - balance.missing, set.len() as u64);
            }
        }
    }
}
