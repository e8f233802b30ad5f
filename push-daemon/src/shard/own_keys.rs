//! Keys that clients brought themselves, both ways.
//!
//! A key that the edge makes names its place and stands nowhere. One that a client brings has to be looked up: by
//! key for a push, by slot when the client goes. When two clients of a shard bring the same key the later holds it;
//! the logic tier ends the earlier session.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// The side map. Bounded by the connections: each brings at most one key.
pub(crate) struct OwnKeys {
    by_slot: HashMap<u32, Box<str>>,
    /// The slot that holds a key; the key itself stands in `by_slot`.
    by_key: HashTable<u32>,
    hasher: RandomState,
}

impl OwnKeys {
    pub(crate) fn new() -> Self {
        Self { by_slot: HashMap::new(), by_key: HashTable::new(), hasher: RandomState::new() }
    }

    /// The connection in `slot`, which has none yet, brought `key`.
    pub(crate) fn insert(&mut self, slot: u32, key: Box<str>) {
        let hash = self.hasher.hash_one(&*key);
        if let Ok(held) = self.by_key.find_entry(hash, |other| self.by_slot[other] == key) {
            held.remove();
        }
        self.by_slot.insert(slot, key);
        let (by_slot, hasher) = (&self.by_slot, &self.hasher);
        self.by_key.insert_unique(hash, slot, |other| hasher.hash_one(&*by_slot[other]));
    }

    /// The connection in `slot` goes.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(key) = self.by_slot.remove(&slot) else { return };
        // A later client may hold the key by now.
        if let Ok(held) = self.by_key.find_entry(self.hasher.hash_one(&*key), |other| *other == slot) {
            held.remove();
        }
    }

    /// The slot that holds `key`.
    pub(crate) fn find(&self, key: &str) -> Option<u32> {
        self.by_key.find(self.hasher.hash_one(key), |slot| *self.by_slot[slot] == *key).copied()
    }

    /// The key that the connection in `slot` brought.
    pub(crate) fn of(&self, slot: u32) -> Option<&str> {
        self.by_slot.get(&slot).map(|key| &**key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_client_holds_a_key_and_the_earlier_ones_end_does_not_take_it() {
        let mut keys = OwnKeys::new();
        keys.insert(1, "ada".into());
        keys.insert(2, "ada".into());
        assert_eq!(keys.find("ada"), Some(2));
        assert_eq!(keys.of(1), Some("ada"));
        keys.remove(1);
        assert_eq!((keys.find("ada"), keys.of(1)), (Some(2), None));
        keys.remove(2);
        assert_eq!(keys.find("ada"), None);
    }

    #[test]
    fn many_keys_are_found_both_ways() {
        let mut keys = OwnKeys::new();
        for slot in 0..1_000 {
            keys.insert(slot, format!("key-{slot}").into());
        }
        for slot in (0..1_000).step_by(2) {
            keys.remove(slot);
        }
        for slot in 0..1_000 {
            let expected = (slot % 2 == 1).then_some(slot);
            assert_eq!(keys.find(&format!("key-{slot}")), expected);
        }
    }
}
