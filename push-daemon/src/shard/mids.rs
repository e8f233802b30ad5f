//! The connections of each user on this shard.
//!
//! An index of slots by user id, without the ids: those stand in the connections, and so does the rest of a
//! user's list. User 0 is nobody in particular and is not indexed.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::conn::{Connections, NONE};

/// Heads of the lists, by user id.
pub(crate) struct Mids {
    heads: HashTable<u32>,
    hasher: RandomState,
}

impl Mids {
    pub(crate) fn new() -> Self {
        Self { heads: HashTable::new(), hasher: RandomState::new() }
    }

    /// Puts `slot`, whose `mid` is set, before its user's other connections.
    pub(crate) fn insert(&mut self, connections: &mut Connections, slot: u32) {
        let mid = connections[slot].mid;
        if mid == 0 {
            return;
        }
        let hash = self.hasher.hash_one(mid);
        match self.heads.find_mut(hash, |head| connections[*head].mid == mid) {
            Some(head) => {
                connections[slot].mid_next = *head;
                connections[*head].mid_previous = slot;
                *head = slot;
            }
            None => {
                let hasher = &self.hasher;
                self.heads.insert_unique(hash, slot, |head| hasher.hash_one(connections[*head].mid));
            }
        }
    }

    /// Takes `slot` out of its user's list.
    pub(crate) fn remove(&mut self, connections: &mut Connections, slot: u32) {
        let conn = &mut connections[slot];
        let mid = conn.mid;
        if mid == 0 {
            return;
        }
        let next = std::mem::replace(&mut conn.mid_next, NONE);
        let previous = std::mem::replace(&mut conn.mid_previous, NONE);
        if next != NONE {
            connections[next].mid_previous = previous;
        }
        if previous != NONE {
            connections[previous].mid_next = next;
            return;
        }
        let hash = self.hasher.hash_one(mid);
        if let Ok(mut head) = self.heads.find_entry(hash, |head| *head == slot) {
            if next == NONE {
                head.remove();
            } else {
                *head.get_mut() = next;
            }
        }
    }

    /// Appends the slots of a user's connections to `found`.
    pub(crate) fn find(&self, connections: &Connections, mid: i64, found: &mut Vec<u32>) {
        if mid == 0 {
            return;
        }
        let hash = self.hasher.hash_one(mid);
        let mut slot = self.heads.find(hash, |head| connections[*head].mid == mid).copied().unwrap_or(NONE);
        while slot != NONE {
            found.push(slot);
            slot = connections[slot].mid_next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::clock::Tick;
    use super::super::conn::Manner;
    use super::*;

    proptest! {
        #[test]
        fn the_index_agrees_with_a_plain_map(steps in prop::collection::vec((any::<bool>(), 0_i64..4), 1..60)) {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut connections = Connections::with_capacity(64);
            let mut mids = Mids::new();
            let mut model = BTreeMap::<i64, BTreeSet<u32>>::new();
            for (comes, mid) in steps {
                if comes {
                    let manner = Manner::new(false);
                    let slot = connections.insert(socket.try_clone().unwrap().into(), manner, Tick(0)).unwrap();
                    connections[slot].mid = mid;
                    mids.insert(&mut connections, slot);
                    if mid != 0 {
                        model.entry(mid).or_default().insert(slot);
                    }
                } else if let Some(slot) = model.get_mut(&mid).and_then(BTreeSet::pop_first) {
                    mids.remove(&mut connections, slot);
                    connections.remove(slot);
                }
                for mid in 0..4 {
                    let mut found = Vec::new();
                    mids.find(&connections, mid, &mut found);
                    found.sort_unstable();
                    let expected: Vec<u32> = model.get(&mid).into_iter().flatten().copied().collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
