//! Which shards may have members of a room, so that a push wakes those and no others.
//!
//! A room's name picks one of a fixed number of buckets. A bucket has a bit for each shard, which the shard sets when the
//! first room of that bucket comes to be in it, before anybody hears that he is in the room, and takes back when the
//! last one goes. So a shard with members is never left out; rooms of one bucket share its bits, and now and then a
//! shard hears of a room that it has not.
//!
//! Shards write bits of their own, the hub reads: nobody waits for anybody.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;

use compact_str::CompactString;

/// Buckets for each connection that a shard may hold. If all of a shard's clients are in rooms of their own, which is the
/// worst, it hears of at most four in ten rooms that it has not.
const BUCKETS_PER_CONNECTION: usize = 2;

/// Fewest buckets.
const MIN_BUCKETS: usize = 1 << 10;

/// Bits of a word: as short as can be, so that an edge of few shards does not pay for many.
const WORD_BITS: usize = 8;

/// The name of a room, and its hash, which is made once for all shards of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomName {
    /// In place up to 24 bytes: then a look at it is no look elsewhere.
    name: CompactString,
    hash: u64,
}

/// What all shards and the hub share.
#[derive(Clone)]
pub struct Presence {
    shared: Arc<Shared>,
}

struct Shared {
    hasher: RandomState,
    /// A power of two.
    buckets: usize,
    /// Words of one bucket.
    width: usize,
    /// `width` words for each bucket. Bounded by the number of shards.
    words: Box<[AtomicU8]>,
}

/// One shard's side.
pub(crate) struct OwnPresence {
    shared: Arc<Shared>,
    shard: usize,
    /// Rooms of this shard by bucket. At its greatest number a count stays: then the bit is never taken back.
    counts: Box<[u8]>,
}

impl Presence {
    /// Nobody is anywhere, on `shards` shards of `capacity` connections each.
    #[must_use]
    pub fn new(shards: usize, capacity: u32) -> Self {
        let buckets = (BUCKETS_PER_CONNECTION * capacity as usize).next_power_of_two().max(MIN_BUCKETS);
        let width = shards.div_ceil(WORD_BITS).max(1);
        let words = (0..buckets * width).map(|_| AtomicU8::new(0)).collect();
        Self { shared: Arc::new(Shared { hasher: RandomState::new(), buckets, width, words }) }
    }

    /// The side of the shard with this number, of which there is one.
    pub(crate) fn of_shard(&self, shard: u16) -> OwnPresence {
        let counts = vec![0; self.shared.buckets].into();
        OwnPresence { shared: Arc::clone(&self.shared), shard: usize::from(shard), counts }
    }

    /// A room's name as the shards of this edge know it.
    #[must_use]
    pub fn name(&self, room: impl Into<CompactString>) -> RoomName {
        let name = room.into();
        RoomName { hash: self.shared.hash(&name), name }
    }

    /// Appends to `shards` the numbers of those that may have members of `room`.
    pub fn shards(&self, room: &RoomName, shards: &mut Vec<usize>) {
        let first = self.shared.bucket(room.hash) * self.shared.width;
        for (index, word) in self.shared.words[first..first + self.shared.width].iter().enumerate() {
            let mut bits = word.load(SeqCst);
            while bits != 0 {
                shards.push(index * WORD_BITS + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

impl RoomName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Its hash on this edge, in this run.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

impl Shared {
    fn hash(&self, room: &str) -> u64 {
        self.hasher.hash_one(room)
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets - 1)
    }
}

impl OwnPresence {
    /// The hash of a room's name, as in its [`RoomName`].
    pub(crate) fn hash(&self, room: &str) -> u64 {
        self.shared.hash(room)
    }

    /// The room with this hash came to be in this shard.
    pub(crate) fn enter(&mut self, hash: u64) {
        let bucket = self.shared.bucket(hash);
        let count = &mut self.counts[bucket];
        *count = count.saturating_add(1);
        if *count == 1 {
            self.word(bucket).fetch_or(self.bit(), SeqCst);
        }
    }

    /// The room with this hash is gone from this shard.
    pub(crate) fn leave(&mut self, hash: u64) {
        let bucket = self.shared.bucket(hash);
        let count = &mut self.counts[bucket];
        if *count == u8::MAX {
            return;
        }
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.word(bucket).fetch_and(!self.bit(), SeqCst);
        }
    }

    fn word(&self, bucket: usize) -> &AtomicU8 {
        &self.shared.words[bucket * self.shared.width + self.shard / WORD_BITS]
    }

    fn bit(&self) -> u8 {
        1 << (self.shard % WORD_BITS)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn shards(presence: &Presence, room: &str) -> Vec<usize> {
        let mut shards = Vec::new();
        presence.shards(&presence.name(room), &mut shards);
        shards
    }

    #[test]
    fn shards_come_and_go_with_their_rooms() {
        let presence = Presence::new(130, 100);
        let (mut first, mut last) = (presence.of_shard(0), presence.of_shard(129));
        assert!(shards(&presence, "live://1").is_empty());
        let room = presence.name("live://1").hash();
        first.enter(room);
        last.enter(room);
        assert_eq!(shards(&presence, "live://1"), [0, 129]);
        first.leave(room);
        assert_eq!(shards(&presence, "live://1"), [129]);
        last.leave(room);
        assert!(shards(&presence, "live://1").is_empty());
    }

    #[test]
    fn a_count_at_its_greatest_number_leaves_the_bit() {
        let presence = Presence::new(1, 100);
        let mut shard = presence.of_shard(0);
        // Rooms of one bucket: one name does as well as many.
        let room = shard.hash("live://1");
        (0..u32::from(u8::MAX) + 5).for_each(|_| shard.enter(room));
        (0..u32::from(u8::MAX) + 5).for_each(|_| shard.leave(room));
        assert_eq!(shards(&presence, "live://1"), [0]);
    }

    proptest! {
        #[test]
        fn a_shard_with_the_room_is_never_left_out(
            steps in prop::collection::vec((0_u16..70, 0_u8..20, any::<bool>()), 0..200),
        ) {
            let presence = Presence::new(70, 100);
            let mut own: Vec<OwnPresence> = (0..70).map(|shard| presence.of_shard(shard)).collect();
            let mut here = BTreeMap::<(u16, u8), bool>::new();
            for (shard, room, enters) in steps {
                let is_here = here.entry((shard, room)).or_default();
                if *is_here != enters {
                    let side = &mut own[usize::from(shard)];
                    let hash = side.hash(&format!("live://{room}"));
                    if enters { side.enter(hash) } else { side.leave(hash) }
                    *is_here = enters;
                }
            }
            for ((shard, room), is_here) in here {
                let told = shards(&presence, &format!("live://{room}"));
                prop_assert!(!is_here || told.contains(&usize::from(shard)));
            }
        }
    }
}
