//! Merging: records of a partition, in order, become one frame for the trunk.
//!
//! A stretch is everything behind `previous` up to `last`. In its frame the packets of a room stand together, rooms in
//! order of their first message. What is for keys, mids or all only joins the batch directly before it of that kind:
//! one connection may be meant by several such targets, and it shall see them in order.
//!
//! No I/O and no clock: when to cut is the caller's business, and two callers may cut at different places. An arbiter
//! that takes what is behind its own position from each frame gets every packet once, in order, from any mix of them.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use wire::goim::{HEADER_BYTES, Header};
use wire::trunk::{self, Batch, Push, TierFrame, tier_frame};

use crate::bus::{Entry, Record, Target};

/// The version that pushed packets carry.
const PUSH_VERSION: i16 = 1;

/// Bytes that a packet costs beside itself: its offset, and its share of lengths and tags.
const PACKET_OVERHEAD_BYTES: usize = 16;

/// Where a stretch ends at the latest.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Packets of one frame.
    pub packets: usize,
    /// Bytes of one frame, roughly. A single larger record still makes a frame of its own.
    pub bytes: usize,
}

/// A stretch as it goes over the lines: encoded once, shared by all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The position before the stretch.
    pub previous: u64,
    /// The last position in it.
    pub last: u64,
    /// How many packets it holds.
    pub packets: usize,
    /// The `TierFrame`, length first.
    pub bytes: Bytes,
}

/// A stretch that is being put together.
#[derive(Debug)]
pub struct Merge {
    partition: u32,
    limits: Limits,
    previous: u64,
    /// `previous` + the number of packets: a stretch has no holes.
    last: u64,
    batches: Vec<Open>,
    /// Room to its place in `batches`.
    rooms: HashMap<String, usize>,
    /// Place of the last batch that is not for a room.
    direct: Option<usize>,
    bytes: usize,
}

#[derive(Debug)]
struct Open {
    target: Target,
    offsets: Vec<u64>,
    packets: BytesMut,
}

impl Merge {
    /// An empty stretch behind `previous`.
    #[must_use]
    pub fn new(partition: u32, previous: u64, limits: Limits) -> Self {
        Self {
            partition,
            limits,
            previous,
            last: previous,
            batches: Vec::new(),
            rooms: HashMap::new(),
            direct: None,
            bytes: 0,
        }
    }

    /// Takes the next record. `false`: it does not fit, or is not the next one; cut first.
    pub fn offer(&mut self, entry: &Entry) -> bool {
        let cost = cost_bytes(&entry.record);
        let packets = (self.last - self.previous) as usize;
        let full = packets >= self.limits.packets || self.bytes + cost > self.limits.bytes;
        if entry.offset != self.last + 1 || (full && packets > 0) {
            return false;
        }
        let place = self.place(&entry.record.target);
        let batch = &mut self.batches[place];
        batch.offsets.push(entry.offset);
        let header = Header { version: PUSH_VERSION, operation: entry.record.operation, sequence: 0 };
        header.put_packet(&entry.record.body, &mut batch.packets);
        self.bytes += cost;
        self.last = entry.offset;
        true
    }

    /// The stretch as a message; `None` when nothing was taken.
    #[must_use]
    pub fn cut(self) -> Option<Push> {
        if self.last == self.previous {
            return None;
        }
        let batches = self.batches.into_iter().map(|open| Batch {
            target: Some(open.target),
            offsets: open.offsets,
            packets: open.packets.freeze(),
        });
        Some(Push { partition: self.partition, previous: self.previous, last: self.last, batches: batches.collect() })
    }

    fn place(&mut self, target: &Target) -> usize {
        let next = self.batches.len();
        let place = match target {
            Target::Room(room) => match self.rooms.get(room) {
                Some(place) => *place,
                None => {
                    self.rooms.insert(room.clone(), next);
                    next
                }
            },
            direct => match self.direct {
                Some(place) if self.batches[place].target == *direct => place,
                _ => {
                    self.direct = Some(next);
                    next
                }
            },
        };
        if place == next {
            self.batches.push(Open { target: target.clone(), offsets: Vec::new(), packets: BytesMut::new() });
        }
        place
    }
}

/// `push` as it goes over the lines.
#[must_use]
pub fn encode(push: Push) -> Frame {
    let (previous, last) = (push.previous, push.last);
    let packets = push.batches.iter().map(|batch| batch.offsets.len()).sum();
    let bytes = trunk::encode(&TierFrame { body: Some(tier_frame::Body::Push(push)) });
    Frame { previous, last, packets, bytes }
}

/// What a record adds to a frame when it starts a batch of its own; less when it joins one.
fn cost_bytes(record: &Record) -> usize {
    let target = match &record.target {
        Target::Room(room) => room.len(),
        Target::Keys(keys) => keys.keys.iter().map(|key| key.len() + 3).sum(),
        // A varint of 64 bits has at most ten bytes.
        Target::Mids(mids) => mids.mids.len() * 10,
        Target::All(_) => 8,
    };
    PACKET_OVERHEAD_BYTES + HEADER_BYTES + target + record.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Origin;
    use wire::room::RoomId;

    const WIDE: Limits = Limits { packets: 100, bytes: 1 << 20 };

    fn room(offset: u64, name: &str) -> Entry {
        let room = RoomId::new("live", name).expect("a valid room");
        Entry { offset, record: Record::room(&room, 1000, Bytes::from(offset.to_string()), Origin::Publisher) }
    }

    fn keys(offset: u64, keys: &[&str]) -> Entry {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Entry { offset, record: Record::keys(keys, 1000, Bytes::new()) }
    }

    fn offsets(previous: u64, entries: &[Entry], limits: Limits) -> Vec<Vec<u64>> {
        let mut merge = Merge::new(0, previous, limits);
        for entry in entries {
            if !merge.offer(entry) {
                break;
            }
        }
        merge.cut().map_or(Vec::new(), |push| push.batches.into_iter().map(|batch| batch.offsets).collect())
    }

    #[test]
    fn rooms_gather_in_order_of_first_appearance() {
        let entries = [room(5, "b"), room(6, "a"), room(7, "b"), room(8, "a"), room(9, "c")];
        assert_eq!(offsets(4, &entries, WIDE), [vec![5, 7], vec![6, 8], vec![9]]);
    }

    #[test]
    fn direct_targets_that_may_meet_in_a_connection_keep_their_order() {
        let entries =
            [keys(1, &["a"]), keys(2, &["a"]), room(3, "r"), keys(4, &["a"]), keys(5, &["a", "b"]), keys(6, &["a"])];
        assert_eq!(offsets(0, &entries, WIDE), [vec![1, 2, 4], vec![3], vec![5], vec![6]]);
    }

    #[test]
    fn a_stretch_ends_at_its_limits_but_never_empty() {
        let entries = [room(1, "a"), room(2, "a"), room(3, "a")];
        assert_eq!(offsets(0, &entries, Limits { packets: 2, ..WIDE }), [vec![1, 2]]);
        assert_eq!(offsets(0, &entries, Limits { bytes: 1, ..WIDE }), [vec![1]]);
    }

    #[test]
    fn a_hole_ends_a_stretch() {
        assert_eq!(offsets(0, &[room(1, "a"), room(3, "a")], WIDE), [vec![1]]);
        assert!(offsets(0, &[room(2, "a")], WIDE).is_empty());
    }
}
