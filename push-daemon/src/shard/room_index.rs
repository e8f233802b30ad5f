//! Rooms by the hash of their name: a table whose places can be fetched ahead.
//!
//! A push to a small room finds nothing of it in the caches, and each look at memory waits for the one before it: the
//! place, the room, its members. Orders come many at once, so their places are fetched together and then their rooms. A
//! library's table tells nobody where an entry would stand.
//!
//! It does not know names: whoever asks says whether a room with the right hash is the right one.

use crate::sys::prefetch;

/// Places of a table that has had a room.
const MIN_PLACES: usize = 16;

/// Nothing stands there.
const EMPTY: u64 = 0;

/// An open table with linear probing, in which a removal closes the gap.
pub(crate) struct RoomIndex {
    /// The upper half of a hash above the number of the room plus one. As many as a power of two, of which at most three
    /// quarters are taken, or none.
    places: Box<[u64]>,
    taken: usize,
}

impl RoomIndex {
    pub(crate) fn new() -> Self {
        Self { places: Box::default(), taken: 0 }
    }

    /// Rooms in it.
    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// The room of this hash that `is_it`.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.place_of(hash, is_it).map(|place| room_in(self.places[place]))
    }

    /// The first room of this hash, which is most likely the only one.
    pub(crate) fn likely(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// A room of this hash will be asked for soon.
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(home) = self.places.get(self.home(tag_of(hash))) {
            prefetch(home);
        }
    }

    /// Puts a room in that is not there yet.
    pub(crate) fn insert(&mut self, hash: u64, room: u32) {
        if (self.taken + 1) * 4 > self.places.len() * 3 {
            self.grow();
        }
        self.put(tag_of(hash) << 32 | (u64::from(room) + 1));
        self.taken += 1;
    }

    /// Takes a room out, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, room: u32) {
        let Some(mut gap) = self.place_of(hash, |other| other == room) else { return };
        self.taken -= 1;
        let mut at = self.next(gap);
        while self.places[at] != EMPTY {
            // What stands behind its home may move into the gap unless its home is behind that.
            let home = self.home(self.places[at] >> 32);
            if self.distance(home, at) >= self.distance(gap, at) {
                self.places[gap] = self.places[at];
                gap = at;
            }
            at = self.next(at);
        }
        self.places[gap] = EMPTY;
    }

    fn place_of(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        let tag = tag_of(hash);
        let mut at = self.home(tag);
        loop {
            // Without places there is none to begin with; else a quarter of them is empty.
            let place = *self.places.get(at)?;
            if place == EMPTY {
                return None;
            }
            if place >> 32 == tag && is_it(room_in(place)) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    fn grow(&mut self) {
        let places = vec![EMPTY; (self.places.len() * 2).max(MIN_PLACES)].into();
        let before = std::mem::replace(&mut self.places, places);
        before.into_iter().filter(|place| *place != EMPTY).for_each(|place| self.put(place));
    }

    fn put(&mut self, place: u64) {
        let mut at = self.home(place >> 32);
        while self.places[at] != EMPTY {
            at = self.next(at);
        }
        self.places[at] = place;
    }

    fn home(&self, tag: u64) -> usize {
        tag as usize & self.mask()
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }

    /// Steps from one place to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask()
    }

    fn mask(&self) -> usize {
        self.places.len().wrapping_sub(1)
    }
}

/// The half that says where a room stands. The other picks its bucket among the shards' (`presence`).
fn tag_of(hash: u64) -> u64 {
    hash >> 32
}

fn room_in(place: u64) -> u32 {
    (place as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_without_places_holds_nothing() {
        let mut index = RoomIndex::new();
        index.prefetch(u64::MAX);
        index.remove(7, 7);
        assert_eq!((index.find(7, |_| true), index.len()), (None, 0));
    }

    proptest! {
        /// Hashes of few values, so that rooms crowd around the same homes and share whole hashes.
        #[test]
        fn it_holds_what_a_plain_list_holds(
            steps in prop::collection::vec((any::<bool>(), 0_u32..60, 0_u64..12), 0..400),
        ) {
            let mut index = RoomIndex::new();
            let mut list = BTreeMap::<u32, u64>::new();
            for (comes, room, hash) in steps {
                let hash = (hash * 5) << 32;
                match list.get(&room).copied() {
                    None if comes => {
                        list.insert(room, hash);
                        index.insert(hash, room);
                    }
                    Some(of_old) if !comes => {
                        list.remove(&room);
                        index.remove(of_old, room);
                    }
                    _ => {}
                }
                prop_assert_eq!(index.len(), list.len());
                for (room, hash) in &list {
                    prop_assert_eq!(index.find(*hash, |other| other == *room), Some(*room));
                    prop_assert_eq!(index.likely(*hash).and_then(|likely| list.get(&likely)), Some(hash));
                }
                for room in (0..60).filter(|room| !list.contains_key(room)) {
                    prop_assert!((0..12).all(|hash| index.find((hash * 5) << 32, |other| other == room).is_none()));
                }
            }
        }
    }
}
