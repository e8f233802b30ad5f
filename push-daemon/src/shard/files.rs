//! Which sockets the ring holds by itself, so that a send need not look its socket up.
//!
//! The ring's table has a place for each slot of the slab. What stands there lives on when the shard closes its
//! socket, so a place is cleared in the turn in which its connection goes. Changes are gathered: one call carries many,
//! and passes over the places between them.
//!
//! It does not talk to the kernel (`ring` does), and knows nothing of connections but their slots.

use std::io;
use std::os::fd::RawFd;

use io_uring::register::SKIP_FILE;

/// In place of a descriptor: the place holds nothing (io_uring_register(2), IORING_REGISTER_FILES_UPDATE).
const CLEAR: RawFd = -1;

/// Changes that are made at once.
const BATCH: usize = 256;

/// Places that one call passes over rather than leave to another: each costs a few nanoseconds, a call hundreds.
const MAX_GAP: u32 = 64;

/// What the shard knows of the ring's table.
pub(crate) struct Files {
    /// A bit for each slot: its place holds the socket of the connection that is there now.
    held: Box<[u64]>,
    /// How many those are.
    count: u32,
    /// What is to be changed, in the order in which it came; of two changes to one place the last one counts. At most
    /// [`BATCH`]. Invariant: a place that is to get a socket is not held.
    changes: Vec<(u32, RawFd)>,
    /// Those of them that clear a place.
    clearing: usize,
    /// The descriptors of one call; kept for its memory.
    row: Vec<RawFd>,
}

impl Files {
    /// A table with a place for each of `slots`, all empty.
    pub(crate) fn new(slots: u32) -> Self {
        let words = (slots as usize).div_ceil(u64::BITS as usize);
        Self { held: vec![0; words].into(), count: 0, changes: Vec::with_capacity(BATCH), clearing: 0, row: Vec::new() }
    }

    /// Whether the place of `slot` holds the socket of the connection that is there.
    pub(crate) fn holds(&self, slot: u32) -> bool {
        let (word, bit) = at(slot);
        self.held.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Places that hold the socket of a connection that is there.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// A connection came to be in `slot`. True when changes are due.
    pub(crate) fn opened(&mut self, slot: u32, socket: RawFd) -> bool {
        self.changes.push((slot, socket));
        self.changes.len() >= BATCH
    }

    /// The connection in `slot` is about to close its socket. True when changes are due.
    pub(crate) fn closed(&mut self, slot: u32) -> bool {
        if self.holds(slot) {
            let (word, bit) = at(slot);
            self.held[word] &= !bit;
            self.count -= 1;
            self.changes.push((slot, CLEAR));
            self.clearing += 1;
        } else if let Some(index) = self.changes.iter().rposition(|change| change.0 == slot && change.1 != CLEAR) {
            self.changes.remove(index);
        }
        self.changes.len() >= BATCH
    }

    /// Whether a closed connection's socket is still held: that may not outlast the turn.
    pub(crate) fn must_clear(&self) -> bool {
        self.clearing > 0
    }

    /// Has `update` make all changes: it is given the first place and what from there on is to be in each.
    ///
    /// # Errors
    /// `update` failed, and what the table holds is not known any more.
    pub(crate) fn settle(&mut self, mut update: impl FnMut(u32, &[RawFd]) -> io::Result<usize>) -> io::Result<()> {
        // A stable sort: the last change to a place stays the last.
        self.changes.sort_by_key(|(slot, _)| *slot);
        for run in self.changes.chunk_by(|before, after| after.0 - before.0 <= MAX_GAP) {
            let Some((first, _)) = run.first().copied() else { continue };
            self.row.clear();
            for (slot, file) in run {
                // Shortened by the change before, if that was to the same place.
                self.row.resize((slot - first) as usize, SKIP_FILE);
                self.row.push(*file);
            }
            if update(first, &self.row)? != self.row.len() {
                return Err(io::Error::other("some sockets were not taken"));
            }
        }
        for (slot, file) in self.changes.drain(..) {
            if file != CLEAR {
                let (word, bit) = at(slot);
                self.held[word] |= bit;
                self.count += 1;
            }
        }
        self.clearing = 0;
        Ok(())
    }
}

/// The word of a slot, and its bit there.
fn at(slot: u32) -> (usize, u64) {
    ((slot / u64::BITS) as usize, 1 << (slot % u64::BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The kernel's side.
    #[derive(Default)]
    struct Table {
        files: BTreeMap<u32, RawFd>,
        calls: u32,
    }

    impl Table {
        fn settle(&mut self, files: &mut Files) {
            let settled = files.settle(|first, row| {
                self.calls += 1;
                for (place, file) in (first..).zip(row) {
                    match *file {
                        SKIP_FILE => None,
                        CLEAR => self.files.remove(&place),
                        file => self.files.insert(place, file),
                    };
                }
                Ok(row.len())
            });
            settled.expect("the table always takes them");
        }
    }

    #[test]
    fn neighbours_share_a_call_and_strangers_do_not() {
        let rows: [(&[u32], u32); 4] =
            [(&[], 0), (&[5, 4, 6], 1), (&[0, MAX_GAP], 1), (&[0, MAX_GAP + 1, 2 * MAX_GAP, 900], 3)];
        for (slots, calls) in rows {
            let (mut files, mut table) = (Files::new(1_000), Table::default());
            for slot in slots {
                assert!(!files.opened(*slot, *slot as RawFd + 10));
            }
            table.settle(&mut files);
            assert_eq!((table.calls, table.files.len()), (calls, slots.len()), "{slots:?}");
            assert!(slots.iter().all(|slot| files.holds(*slot)), "{slots:?}");
        }
    }

    #[test]
    fn a_table_that_does_not_take_them_is_an_error() {
        let mut files = Files::new(10);
        files.opened(1, 7);
        assert!(files.settle(|_, _| Ok(0)).is_err());
        assert!(!files.holds(1));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Open(u32),
        Close(u32),
        Settle,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u32..150).prop_map(Step::Open),
            3 => (0_u32..150).prop_map(Step::Close),
            2 => Just(Step::Settle),
        ]
    }

    proptest! {
        /// A place that is said to hold a socket holds that of its connection, and what was cleared is gone at the next
        /// settling.
        #[test]
        fn what_is_held_is_what_is_there(steps in prop::collection::vec(step(), 0..300)) {
            let (mut files, mut table) = (Files::new(150), Table::default());
            let mut there = BTreeMap::<u32, RawFd>::new();
            for (number, step) in (10..).zip(steps) {
                let due = match step {
                    Step::Open(slot) if there.contains_key(&slot) => false,
                    Step::Open(slot) => {
                        there.insert(slot, number);
                        files.opened(slot, number)
                    }
                    Step::Close(slot) => there.remove(&slot).is_some() && files.closed(slot),
                    Step::Settle => true,
                };
                if due {
                    table.settle(&mut files);
                    prop_assert!(!files.must_clear());
                    prop_assert_eq!(&table.files, &there);
                }
                prop_assert_eq!(files.count(), (0..150).filter(|slot| files.holds(*slot)).count() as u32);
                for slot in 0..150 {
                    prop_assert!(!files.holds(slot) || table.files.get(&slot) == there.get(&slot));
                }
            }
        }
    }
}
