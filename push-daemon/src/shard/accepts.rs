//! Sets of operations that connections accept, each kept once.
//!
//! Viewers of one application accept the same few operations, so a connection holds the number of a set
//! instead of a list. A push by key, by mid or to all reaches only connections whose set has its operation
//! (goim: `internal/comet/channel.go`, `NeedPush`).

use std::collections::HashMap;

/// The set of connections that accept nothing. It is always there.
pub(crate) const NOTHING: u32 = 0;

struct Entry {
    /// Ascending, no duplicates.
    operations: Box<[i32]>,
    /// Connections that hold this number.
    users: u32,
}

/// The sets of one shard. Bounded by the number of its connections: a set without users is forgotten.
pub(crate) struct AcceptSets {
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_operations: HashMap<Box<[i32]>, u32>,
}

impl AcceptSets {
    pub(crate) fn new() -> Self {
        let nothing = Entry { operations: Box::default(), users: 0 };
        Self { entries: vec![nothing], free: Vec::new(), by_operations: HashMap::from([(Box::default(), NOTHING)]) }
    }

    /// The set of `operations`, one user more.
    pub(crate) fn acquire(&mut self, mut operations: Vec<i32>) -> u32 {
        operations.sort_unstable();
        operations.dedup();
        let id = match self.by_operations.get(operations.as_slice()) {
            Some(id) => *id,
            None => self.create(operations.into_boxed_slice()),
        };
        self.entries[id as usize].users += 1;
        id
    }

    /// One user of the set less.
    pub(crate) fn release(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        entry.users -= 1;
        if entry.users == 0 && id != NOTHING {
            self.by_operations.remove(&entry.operations);
            entry.operations = Box::default();
            self.free.push(id);
        }
    }

    /// The operations of a set, ascending.
    pub(crate) fn operations(&self, id: u32) -> &[i32] {
        &self.entries[id as usize].operations
    }

    pub(crate) fn accepts(&self, id: u32, operation: i32) -> bool {
        self.operations(id).binary_search(&operation).is_ok()
    }

    fn create(&mut self, operations: Box<[i32]>) -> u32 {
        let entry = Entry { operations: operations.clone(), users: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.by_operations.insert(operations, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one_and_go_with_their_last_user() {
        let mut sets = AcceptSets::new();
        let first = sets.acquire(vec![1001, 1000, 1001]);
        let second = sets.acquire(vec![1000, 1001]);
        assert_eq!(first, second);
        assert!(sets.accepts(first, 1000) && sets.accepts(first, 1001) && !sets.accepts(first, 1002));
        sets.release(first);
        assert!(sets.accepts(second, 1000), "still has a user");
        sets.release(second);
        let other = sets.acquire(vec![7]);
        assert_eq!(other, first, "the number is used again");
        assert!(!sets.accepts(other, 1000));
    }

    #[test]
    fn nothing_is_accepted_by_the_empty_set() {
        let mut sets = AcceptSets::new();
        let id = sets.acquire(Vec::new());
        assert_eq!(id, NOTHING);
        assert!(!sets.accepts(id, 1000));
        sets.release(id);
        assert_eq!(sets.acquire(Vec::new()), NOTHING);
    }
}
