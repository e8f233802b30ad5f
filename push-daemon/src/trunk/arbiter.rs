//! Takes the first copy of each trunk message, drops the second, notices a gap.
//!
//! The bus position is the sequence number: one position per partition, the same on every line. A frame
//! covers the stretch behind `previous` up to `last`; two tiers may cut stretches differently, so what is new
//! in a frame is always the part behind our own position.
//!
//! A pure state machine: no line, no clock, no shard.

use std::collections::BTreeMap;

use bytes::Bytes;
use wire::goim::Packets;
use wire::trunk::{Batch, Position, Push};

/// Partitions that an edge follows; a bus with more is misconfigured or not ours.
const MAX_PARTITIONS: usize = 4_096;

/// What has been taken of each partition.
#[derive(Debug, Default)]
pub struct Arbiter {
    bus: u64,
    positions: BTreeMap<u32, u64>,
}

/// What a frame turned out to be.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// New, in part or whole: deliver these batches.
    Take(Vec<Batch>),
    /// Nothing in it is new.
    Duplicate,
    /// Something before it is missing: it has to be replayed from our position.
    Gap {
        /// Where the gap begins: the last position that we have.
        have: u64,
        /// Where it ends: the position before the frame.
        due: u64,
    },
    /// Not a frame that a tier of ours would send; the line that brought it cannot be trusted.
    Malformed(&'static str),
}

impl Arbiter {
    /// The bus whose positions these are; 0 before the first welcome.
    #[must_use]
    pub fn bus(&self) -> u64 {
        self.bus
    }

    /// Where a line has to go on.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        self.positions.iter().map(|(partition, offset)| Position { partition: *partition, offset: *offset }).collect()
    }

    /// A line was welcomed. Positions of a bus that we follow already stay; those of a new one replace them.
    /// True when that was another bus than before: what was published between is lost to us.
    pub fn welcome(&mut self, bus: u64, positions: &[Position]) -> bool {
        let replaced = self.bus != 0 && self.bus != bus;
        if self.bus != bus {
            self.positions.clear();
            self.bus = bus;
        }
        for position in positions.iter().take(MAX_PARTITIONS) {
            self.positions.entry(position.partition).or_insert(position.offset);
        }
        replaced
    }

    /// The bus no longer has what is up to and with `last`: go on behind it. Gives how many positions were lost.
    pub fn skip(&mut self, partition: u32, last: u64) -> u64 {
        let Some(position) = self.positions.get_mut(&partition) else { return 0 };
        let lost = last.saturating_sub(*position);
        *position += lost;
        lost
    }

    /// Judges a frame and takes what is new in it.
    pub fn take(&mut self, push: Push) -> Verdict {
        let Some(position) = self.positions.get_mut(&push.partition) else {
            return Verdict::Malformed("it names a partition that the welcome did not");
        };
        if push.last < push.previous {
            return Verdict::Malformed("its stretch ends before it begins");
        }
        if push.last <= *position {
            return Verdict::Duplicate;
        }
        if push.previous > *position {
            return Verdict::Gap { have: *position, due: push.previous };
        }
        let mut batches = Vec::with_capacity(push.batches.len());
        for batch in push.batches {
            match tail(batch, *position) {
                Ok(Some(batch)) => batches.push(batch),
                Ok(None) => {}
                Err(what) => return Verdict::Malformed(what),
            }
        }
        *position = push.last;
        Verdict::Take(batches)
    }
}

/// The packets of `batch` behind `position`, if there are any.
fn tail(mut batch: Batch, position: u64) -> Result<Option<Batch>, &'static str> {
    if !batch.offsets.is_sorted_by(|a, b| a < b) {
        return Err("its offsets do not ascend");
    }
    let old = batch.offsets.partition_point(|offset| *offset <= position);
    let mut packets = Packets::new(&batch.packets, usize::MAX);
    let mut old_bytes = 0;
    for index in 0..batch.offsets.len() {
        match packets.next() {
            Some(Ok(packet)) if index < old => old_bytes += packet.wire_bytes(),
            Some(Ok(_)) => {}
            _ => return Err("it has fewer packets than offsets"),
        }
    }
    if !packets.rest().is_empty() {
        return Err("it has more packets than offsets");
    }
    batch.offsets.drain(..old);
    batch.packets = Bytes::slice(&batch.packets, old_bytes..);
    Ok((!batch.offsets.is_empty()).then_some(batch))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::goim::Header;
    use wire::trunk::batch::Target;

    use super::*;

    fn packets(bodies: impl Iterator<Item = u64>) -> Bytes {
        let mut out = Vec::new();
        for body in bodies {
            Header { version: 1, operation: 1000, sequence: 0 }.put_packet(&body.to_be_bytes(), &mut out);
        }
        out.into()
    }

    /// Offsets of a stretch, spread over rooms by their remainder, as a tier would group them.
    fn push(previous: u64, last: u64) -> Push {
        let rooms = 3;
        let batches = (0..rooms)
            .map(|room| {
                let offsets: Vec<u64> = (previous + 1..=last).filter(|offset| offset % rooms == room).collect();
                let packets = packets(offsets.iter().copied());
                Batch { offsets, packets, target: Some(Target::Room(format!("live://{room}"))) }
            })
            .filter(|batch| !batch.offsets.is_empty())
            .collect();
        Push { partition: 0, previous, last, batches }
    }

    fn following(position: u64) -> Arbiter {
        let mut arbiter = Arbiter::default();
        assert!(!arbiter.welcome(7, &[Position { partition: 0, offset: position }]));
        arbiter
    }

    fn bodies(batches: &[Batch]) -> Vec<u64> {
        let read = |packet: wire::goim::Packet<'_>| u64::from_be_bytes(packet.body.try_into().unwrap());
        batches.iter().flat_map(|batch| Packets::new(&batch.packets, 64).map(|p| read(p.unwrap()))).collect()
    }

    #[test]
    fn the_second_copy_is_dropped_and_the_tail_of_an_overlap_is_taken() {
        let mut arbiter = following(10);
        assert!(matches!(arbiter.take(push(10, 13)), Verdict::Take(_)));
        assert_eq!(arbiter.take(push(10, 13)), Verdict::Duplicate);
        assert_eq!(arbiter.take(push(8, 12)), Verdict::Duplicate);
        let Verdict::Take(batches) = arbiter.take(push(11, 15)) else { panic!("14 and 15 are new") };
        let mut new = bodies(&batches);
        new.sort_unstable();
        assert_eq!(new, [14, 15]);
        assert_eq!(arbiter.positions(), [Position { partition: 0, offset: 15 }]);
    }

    #[test]
    fn a_gap_is_noticed_and_moves_nothing() {
        let mut arbiter = following(10);
        assert_eq!(arbiter.take(push(12, 13)), Verdict::Gap { have: 10, due: 12 });
        assert!(matches!(arbiter.take(push(10, 13)), Verdict::Take(_)), "the replay fills it");
    }

    #[test]
    fn positions_of_a_known_bus_stay_and_those_of_a_new_one_replace_them() {
        let mut arbiter = following(10);
        assert!(!arbiter.welcome(7, &[Position { partition: 0, offset: 99 }, Position { partition: 1, offset: 5 }]));
        assert_eq!(arbiter.positions().iter().map(|p| p.offset).collect::<Vec<_>>(), [10, 5]);
        assert!(arbiter.welcome(8, &[Position { partition: 0, offset: 3 }]));
        assert_eq!((arbiter.bus(), arbiter.positions()), (8, vec![Position { partition: 0, offset: 3 }]));
    }

    #[test]
    fn what_the_bus_has_lost_is_skipped_and_counted() {
        let mut arbiter = following(10);
        assert_eq!(arbiter.skip(0, 14), 4);
        assert_eq!(arbiter.skip(0, 12), 0);
        assert!(matches!(arbiter.take(push(14, 15)), Verdict::Take(_)));
    }

    #[test]
    fn frames_that_no_tier_sends_are_refused() {
        let mut short = push(10, 13);
        short.batches[0].offsets.push(14);
        let mut long = push(10, 13);
        long.batches[0].offsets.pop();
        let mut disordered = push(10, 16);
        disordered.batches[0].offsets.reverse();
        let rows = [
            (Push { partition: 9, ..push(10, 13) }, "it names a partition that the welcome did not"),
            (Push { previous: 13, last: 10, ..push(10, 13) }, "its stretch ends before it begins"),
            (short, "it has fewer packets than offsets"),
            (long, "it has more packets than offsets"),
            (disordered, "its offsets do not ascend"),
        ];
        for (frame, what) in rows {
            assert_eq!(following(10).take(frame), Verdict::Malformed(what));
        }
    }

    proptest! {
        /// Two lines that cut the same bus at different moments and lose frames, each replayed on a gap: every
        /// offset is taken once, in order.
        #[test]
        fn two_lines_deliver_each_offset_once(
            events in prop::collection::vec((0_usize..2, 1_u64..6, any::<bool>()), 1..80)
        ) {
            let mut arbiter = following(0);
            let mut cursors = [0_u64; 2];
            let mut taken = Vec::new();
            for (line, length, lost) in events {
                let frame = push(cursors[line], cursors[line] + length);
                cursors[line] += length;
                if lost {
                    continue;
                }
                match arbiter.take(frame) {
                    Verdict::Take(batches) => {
                        let mut new = bodies(&batches);
                        new.sort_unstable();
                        taken.extend(new);
                    }
                    Verdict::Duplicate => {}
                    // The line starts again where we are.
                    Verdict::Gap { have, .. } => cursors[line] = have,
                    Verdict::Malformed(what) => prop_assert!(false, "{}", what),
                }
            }
            let expected: Vec<u64> = (1..=taken.len() as u64).collect();
            prop_assert_eq!(taken, expected);
        }
    }
}
