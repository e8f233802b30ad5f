//! What each client has heard, exactly: every number that is missing, came twice, or came late.
//!
//! A client that hears everything in order costs eight bytes. Only one with a hole in its numbers has more, in a side
//! map, until the hole is filled. A client that goes and comes back is another one to the books: what it had heard is
//! settled when it goes. No clock, no I/O.
//!
//! Layout: [`Ledger`] the books · `terms` what they count

mod terms;

use std::collections::HashMap;

pub use terms::{Anchor, Balance, Counts, Standing, Verdict};

/// Holes remembered per client. One with more has lost its stream; its further losses are counted but not remembered.
const MAX_HOLES_PER_CLIENT: usize = 64;

/// Holes remembered in all: 16 MiB of ranges.
const MAX_HOLES: usize = 1 << 20;

/// First number of a client that has heard nothing and was promised nothing.
const UNHEARD: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Track {
    /// The lowest number owed. `UNHEARD` until the first one when anchored there.
    first: u32,
    /// The lowest number that neither came nor is a remembered hole. first <= next. While `first` is `UNHEARD`: the number
    /// from which on the client is owed at the latest, `UNHEARD` when there is none.
    next: u32,
}

impl Track {
    fn new(anchor: Anchor) -> Self {
        match anchor {
            Anchor::Zero => Self { first: 0, next: 0 },
            Anchor::FirstHeard => Self { first: UNHEARD, next: UNHEARD },
            Anchor::AtMost(number) => Self { first: UNHEARD, next: number },
        }
    }

    /// The lowest number that is known to be owed; `UNHEARD` when none is.
    fn owed_from(self) -> u32 {
        if self.first == UNHEARD { self.next } else { self.first }
    }
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
    tracks: Vec<Track>,
    holes: HashMap<u32, Holes>,
    /// Ranges in `holes`. At most [`MAX_HOLES`].
    remembered: usize,
    /// By [`Standing`].
    counts: [Counts; 2],
}

impl Ledger {
    /// Books for `clients` clients who have heard nothing.
    #[must_use]
    pub fn new(clients: usize, anchor: Anchor) -> Self {
        Self {
            tracks: vec![Track::new(anchor); clients],
            holes: HashMap::new(),
            remembered: 0,
            counts: Default::default(),
        }
    }

    /// Begins the client's books anew, and forgets what it has heard.
    pub fn anchor(&mut self, slot: u32, anchor: Anchor) {
        self.tracks[slot as usize] = Track::new(anchor);
        if let Some(holes) = self.holes.remove(&slot) {
            self.remembered -= holes.ranges.len();
        }
    }

    /// Enters that the client at `slot` heard `number`, which is below `u32::MAX`.
    pub fn enter(&mut self, slot: u32, number: u32, standing: Standing) -> Verdict {
        let counts = standing as usize;
        let track = &mut self.tracks[slot as usize];
        if track.first == UNHEARD {
            let first = number.min(track.next);
            *track = Track { first, next: first };
        }
        let (first, next) = (track.first, track.next);
        let verdict = if number == next {
            track.next += 1;
            Verdict::InOrder
        } else if number > next {
            track.next = number + 1;
            self.open_hole(slot, next, number, counts);
            Verdict::AfterGap
        } else if number < first {
            // Only when anchored at the first heard: that was not the first sent.
            track.first = number;
            self.open_hole_below(slot, number + 1, first, counts);
            Verdict::Late
        } else if self.fill(slot, number, counts) {
            Verdict::Late
        } else {
            Verdict::Duplicate
        };
        let counts = &mut self.counts[counts];
        match verdict {
            Verdict::InOrder => counts.received += 1,
            Verdict::AfterGap => {
                counts.received += 1;
                counts.gaps += 1;
            }
            Verdict::Late => {
                counts.received += 1;
                counts.order_faults += 1;
            }
            Verdict::Duplicate => counts.duplicates += 1,
        }
        verdict
    }

    /// The counts of all clients of a standing.
    #[must_use]
    pub fn counts(&self, standing: Standing) -> Counts {
        self.counts[standing as usize]
    }

    /// The counts of both standings, which begin anew.
    pub fn take_counts(&mut self) -> [Counts; 2] {
        std::mem::take(&mut self.counts)
    }

    /// One past the highest number that the client has heard; `None` when it heard nothing.
    #[must_use]
    pub fn end_of(&self, slot: u32) -> Option<u32> {
        let track = self.tracks[slot as usize];
        (track.first != UNHEARD && track.next > track.first).then_some(track.next)
    }

    /// Adds the client at `slot` to `balance`, when its stream's numbers ended before `end`.
    pub fn settle(&self, slot: u32, end: u32, balance: &mut Balance) {
        let track = self.tracks[slot as usize];
        let from = track.owed_from();
        // From whom nothing is known but that others heard something: how much it was owed is not known either, but at
        // least one, or it would not be silent.
        let unknown = from == UNHEARD;
        let silent = self.end_of(slot).is_none() && end > if unknown { 0 } else { from };
        balance.silent_clients += u64::from(silent);
        let (due, missing) = if unknown {
            (u32::from(silent), u32::from(silent))
        } else {
            (end.saturating_sub(from), self.holes_below(slot, end) + end.saturating_sub(track.next))
        };
        balance.due += u64::from(due);
        balance.missing += u64::from(missing);
        balance.incomplete_clients += u64::from(missing > 0);
    }

    /// Adds the client at `slot` to `balance`, when it goes of its own will: it was owed what it heard the end of. What
    /// had been begun below `begun` and was not heard may have been under way to it.
    pub fn leave(&self, slot: u32, begun: u32, balance: &mut Balance) {
        let track = self.tracks[slot as usize];
        if track.next != UNHEARD {
            balance.in_doubt += u64::from(begun.saturating_sub(track.next));
        }
        if let Some(end) = self.end_of(slot) {
            self.settle(slot, end, balance);
        }
    }

    fn holes_below(&self, slot: u32, end: u32) -> u32 {
        self.holes.get(&slot).map_or(0, |holes| {
            let ranges = holes.ranges.iter().map(|&(from, to)| to.min(end).saturating_sub(from));
            ranges.sum::<u32>() + holes.unremembered
        })
    }

    fn open_hole(&mut self, slot: u32, from: u32, to: u32, counts: usize) {
        let holes = self.holes.entry(slot).or_default();
        if holes.ranges.len() < MAX_HOLES_PER_CLIENT && self.remembered < MAX_HOLES {
            holes.ranges.push((from, to));
            self.remembered += 1;
        } else {
            holes.unremembered += to - from;
            self.counts[counts].unremembered += u64::from(to - from);
        }
    }

    fn open_hole_below(&mut self, slot: u32, from: u32, to: u32, counts: usize) {
        if from == to {
            return;
        }
        self.open_hole(slot, from, to, counts);
        if let Some(holes) = self.holes.get_mut(&slot) {
            holes.ranges.sort_unstable();
        }
    }

    /// Takes `number` out of the client's holes; false when it is in none.
    fn fill(&mut self, slot: u32, number: u32, counts: usize) -> bool {
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
                    self.counts[counts].unremembered += u64::from(to - (number + 1));
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
        let verdicts = numbers.iter().map(|&number| ledger.enter(0, number, Standing::Owed)).collect();
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
        let all = Balance { due: 5, missing: 5, incomplete_clients: 1, silent_clients: 1, in_doubt: 0 };
        assert_eq!(balance(&silent, 5), all);
        assert_eq!(balance(&silent, 0), Balance::default());
        let silent = heard(Anchor::FirstHeard, &[]).0;
        assert_eq!(balance(&silent, 5), Balance { due: 1, missing: 1, ..all });
    }

    #[test]
    fn holes_beyond_the_bound_are_still_missing() {
        let numbers: Vec<u32> = (0..200).map(|n| n * 2).collect();
        let (ledger, _) = heard(Anchor::Zero, &numbers);
        assert_eq!(
            balance(&ledger, 399),
            Balance { due: 399, missing: 199, incomplete_clients: 1, ..Balance::default() }
        );
        assert!(ledger.counts(Standing::Owed).unremembered > 0);
    }

    #[test]
    fn a_client_that_came_in_the_middle_is_owed_from_then_on() {
        // Its grant was read when the requests below 5 had begun; the numbers end at 8.
        for (name, numbers, due, missing, silent) in [
            ("it heard what followed", &[5, 6, 7][..], 3, 0, 0),
            ("one that was under way came as well, and all since", &[4, 5, 6, 7], 4, 0, 0),
            ("the first one that was certain did not come", &[6, 7], 3, 1, 0),
            ("one came early, the next did not", &[3, 5, 6, 7], 5, 1, 0),
            ("nothing came", &[], 3, 3, 1),
        ] {
            let (ledger, _) = heard(Anchor::AtMost(5), numbers);
            let incomplete_clients = u64::from(missing > 0);
            let expected = Balance { due, missing, incomplete_clients, silent_clients: silent, in_doubt: 0 };
            assert_eq!(balance(&ledger, 8), expected, "{name}");
        }
        let (ledger, _) = heard(Anchor::AtMost(8), &[]);
        assert_eq!(balance(&ledger, 8), Balance::default(), "it came behind the last message");
    }

    #[test]
    fn a_client_that_goes_is_owed_what_it_heard_the_end_of() {
        for (name, anchor, numbers, due, missing, in_doubt) in [
            ("two were under way", Anchor::Zero, &[0, 1, 2][..], 3, 0, 2),
            ("a hole stays a hole", Anchor::Zero, &[0, 2], 3, 1, 2),
            ("nothing came yet", Anchor::Zero, &[], 0, 0, 5),
            ("it had just come", Anchor::AtMost(4), &[], 0, 0, 1),
            ("it had just come, and heard one", Anchor::AtMost(4), &[3], 1, 0, 1),
            ("somebody else publishes", Anchor::FirstHeard, &[], 0, 0, 0),
        ] {
            let (ledger, _) = heard(anchor, numbers);
            let mut balance = Balance::default();
            ledger.leave(0, 5, &mut balance);
            assert_eq!((balance.due, balance.missing, balance.in_doubt), (due, missing, in_doubt), "{name}");
            assert_eq!(balance.silent_clients, 0, "{name}");
        }
    }

    #[test]
    fn an_anchor_forgets_what_was_before() {
        let (mut ledger, _) = heard(Anchor::Zero, &[0, 5, 9]);
        ledger.anchor(0, Anchor::AtMost(2));
        assert_eq!(ledger.enter(0, 2, Standing::Owed), Verdict::InOrder);
        assert_eq!(balance(&ledger, 3), Balance { due: 1, ..Balance::default() });
        assert_eq!(ledger.remembered, 0);
    }

    #[test]
    fn who_is_astray_is_counted_apart() {
        let mut ledger = Ledger::new(2, Anchor::Zero);
        ledger.enter(0, 0, Standing::Owed);
        for number in [0, 3, 3] {
            ledger.enter(1, number, Standing::Astray);
        }
        assert_eq!(ledger.counts(Standing::Owed), Counts { received: 1, ..Counts::default() });
        let apart = Counts { received: 2, gaps: 1, duplicates: 1, ..Counts::default() };
        assert_eq!(ledger.counts(Standing::Astray), apart);
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
            prop_assert_eq!(ledger.counts(Standing::Owed).received, set.len() as u64);
            prop_assert_eq!(ledger.counts(Standing::Owed).duplicates, (numbers.len() - set.len()) as u64);
            if !set.is_empty() {
                prop_assert_eq!(balance.due, u64::from(end - first));
                prop_assert_eq!(balance.due - balance.missing, set.len() as u64);
            }
        }
    }
}
