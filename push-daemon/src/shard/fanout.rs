//! One block to many: rounds over rooms and over everybody, in slices between two polls.
//!
//! A round is one walk over a room's members, or over all connections, with one block. Rounds that are under
//! way take turns, a slice each, so that neither a room of a million nor a thousand small rooms keep the others,
//! or the heartbeats, waiting.
//!
//! It does not build what a client gets (`block`) nor deal with sockets that are full (`egress`).

use std::collections::VecDeque;
use std::sync::Arc;

use wire::key::Place;

use super::Shard;
use super::clock::Tick;
use super::order::{Delivery, OperationRun, RoomRun};
use super::rooms::{Begin, Turn};
use crate::block::{Audience, Block, Run};

/// Passing over a connection that does not accept the operation costs about this part of a send.
const SCANS_PER_SEND: usize = 32;

/// A round that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// Over the members of the room with this index.
    Room(u32),
    /// Over all connections.
    Everyone,
}

/// Rooms whose merge window is open, all of one length, so that the first to open is the first to close. There are as
/// many of these as the settings name lengths.
pub(crate) struct Windows {
    length_ms: u32,
    open: VecDeque<(Tick, u32)>,
}

/// Packets for all connections: those under way, and those that wait for their turn.
#[derive(Default)]
pub(crate) struct Everyone {
    walk: Option<Walk>,
    waiting: VecDeque<(u32, OperationRun)>,
    /// Bytes of those that wait.
    pub(crate) backlog_bytes: usize,
    /// What the next walk carries, while its block is put together; kept for its memory.
    merging: Vec<Run>,
}

struct Walk {
    block: Block,
    operation: i32,
    next: u32,
    /// Slots from here on were taken since the walk began.
    end: u32,
    /// Connections per second; 0 for no bound.
    speed: u32,
    began: Tick,
    served: u64,
}

impl Walk {
    /// How many more connections may be served by `now`. A pace is kept as long as what waits behind it has room:
    /// `crowded` says that it has not, and then goes before the pace, so that a slow broadcast never stops the shard.
    fn allowance(&self, now: Tick, crowded: bool) -> u64 {
        if self.speed == 0 || crowded {
            return u64::MAX;
        }
        // One second's share at once would be a burst, so the first slice waits for its milliseconds too.
        (u64::from(now.since(self.began)) * u64::from(self.speed) / 1000).saturating_sub(self.served)
    }
}

impl Shard {
    /// Starts on packets for a room that the trunk brought.
    pub(crate) fn begin_in_room(&mut self, run: Arc<RoomRun>) {
        match self.rooms.push(run) {
            Some((room, Begin::Now)) => {
                // The other orders of this turn come first: time enough to have them from memory.
                self.rooms.first_members(room).iter().for_each(|slot| self.connections.prefetch(*slot));
                self.rounds.push_back(Round::Room(room));
            }
            Some((room, Begin::After(window_ms))) => self.open_window(room, window_ms),
            None => {}
        }
    }

    /// Starts on a delivery that the trunk brought.
    pub(crate) fn begin(&mut self, delivery: &Delivery) {
        match delivery {
            Delivery::All(speed, runs) => {
                let idle = self.everyone.walk.is_none() && self.everyone.waiting.is_empty();
                for run in runs.iter() {
                    self.everyone.backlog_bytes += run.run.packets.len();
                    self.everyone.waiting.push_back((*speed, run.clone()));
                }
                if idle {
                    self.rounds.push_back(Round::Everyone);
                }
            }
            Delivery::Mids(mids, runs) => self.deliver_to(runs, |shard, slots| {
                for mid in mids {
                    shard.mids.find(&shard.connections, *mid, slots);
                }
            }),
            Delivery::OwnKeys(keys, runs) => self.deliver_to(runs, |shard, slots| {
                slots.extend(keys.iter().filter_map(|key| shard.own_keys.find(key)));
            }),
        }
    }

    /// Delivers to the connections that are still at these places.
    pub(crate) fn deliver_to_places(&mut self, places: &[Place], runs: &[OperationRun]) {
        self.deliver_to(runs, |shard, slots| slots.extend(places.iter().filter_map(|place| shard.slot_of(place))));
    }

    /// Delivers each run to those of the connections that `find` gives which accept its operation.
    fn deliver_to(&mut self, runs: &[OperationRun], find: impl FnOnce(&Self, &mut Vec<u32>)) {
        let mut slots = std::mem::take(&mut self.named);
        let mut due = std::mem::take(&mut self.due);
        find(self, &mut slots);
        // A publisher may name a client twice.
        slots.sort_unstable();
        slots.dedup();
        let formats = slots.iter().map(|slot| self.connections[*slot].manner.format).collect();
        for run in runs {
            due.extend(
                slots.iter().filter(|slot| self.accepts.accepts(self.connections[**slot].accepts, run.operation)),
            );
            if !due.is_empty() {
                let audience = Audience { formats, receivers: due.len() };
                let block = self.blocks.build(std::iter::once(&run.run), audience);
                self.deliver(&due, block);
                due.clear();
            }
        }
        slots.clear();
        (self.named, self.due) = (slots, due);
    }

    /// Serves the rounds under way, in turn, until `budget` connections were served or all have waited for time.
    ///
    /// Small rooms share a slice. A room has one turn in it, because a connection may stand in a slice once; and what
    /// goes to everybody has slices of its own.
    pub(crate) fn serve_rounds(&mut self, budget: usize) {
        let mut left = budget;
        let mut turns = self.rounds.len();
        let mut until_again = turns;
        while left > 0 && turns > 0 {
            let Some(round) = self.rounds.pop_front() else { break };
            if until_again == 0 || round == Round::Everyone {
                self.send_gathered();
                until_again = self.rounds.len() + 1;
            }
            until_again -= 1;
            let most = left.min(self.slice_sends);
            let (served, goes_on) = match round {
                Round::Room(room) => self.serve_room(room, most),
                Round::Everyone => self.serve_everyone(most),
            };
            if goes_on {
                self.rounds.push_back(round);
            }
            left -= served.min(left);
            // A round that served nobody has nothing to do before time passes.
            turns = if served > 0 { self.rounds.len() } else { turns - 1 };
        }
        self.send_gathered();
    }

    /// Whether a round could go on at once.
    pub(crate) fn rounds_are_due(&self) -> bool {
        self.rounds.iter().any(|round| match round {
            Round::Room(_) => true,
            Round::Everyone => {
                let crowded = self.everyone_is_crowded();
                self.everyone.walk.as_ref().is_none_or(|walk| walk.allowance(self.now, crowded) > 0)
            }
        })
    }

    /// Whether what waits for all connections takes half of what may wait in the shard.
    fn everyone_is_crowded(&self) -> bool {
        self.everyone.backlog_bytes > self.backlog_bytes / 2
    }

    fn serve_room(&mut self, room: u32, most: usize) -> (usize, bool) {
        let mut due = std::mem::take(&mut self.due);
        let blocks = &self.blocks;
        let build = |runs: &[Arc<RoomRun>], to| blocks.build(runs.iter().map(|of_room| &of_room.run), to);
        let turn = self.rooms.next_turn(room, most, self.block_bytes, build, &mut due);
        let served = due.len();
        let goes_on = matches!(turn, Turn::Send(_));
        match turn {
            Turn::Send(block) | Turn::SendLast(block) => self.gather(&due, block),
            Turn::Wait(window_ms) => self.open_window(room, window_ms),
            Turn::Over => {}
        }
        due.clear();
        self.due = due;
        (served, goes_on)
    }

    fn open_window(&mut self, room: u32, window_ms: u32) {
        let due = self.now.after(window_ms);
        match self.windows.iter_mut().find(|windows| windows.length_ms == window_ms) {
            Some(windows) => windows.open.push_back((due, room)),
            None => self.windows.push(Windows { length_ms: window_ms, open: [(due, room)].into() }),
        }
    }

    /// Puts rooms whose merge window is over among those that are served.
    pub(crate) fn close_windows(&mut self) {
        for windows in &mut self.windows {
            while let Some((_, room)) = windows.open.pop_front_if(|(due, _)| due.is_due(self.now)) {
                if self.rooms.close_window(room) {
                    self.rounds.push_back(Round::Room(room));
                }
            }
        }
    }

    /// Milliseconds until the next window is over.
    pub(crate) fn next_window_ms(&self) -> Option<u32> {
        self.windows.iter().filter_map(|windows| windows.open.front()).map(|(due, _)| due.since(self.now)).min()
    }

    fn serve_everyone(&mut self, most: usize) -> (usize, bool) {
        let mut walk = match self.everyone.walk.take() {
            Some(walk) => walk,
            None => match self.next_walk() {
                Some(walk) => walk,
                None => return (0, false),
            },
        };
        let allowed = walk.allowance(self.now, self.everyone_is_crowded());
        let mut served = 0;
        let mut due = std::mem::take(&mut self.due);
        let first = walk.next;
        let scan_end = walk.end.min(first.saturating_add((most * SCANS_PER_SEND) as u32));
        while walk.next < scan_end && served < most && (served as u64) < allowed {
            let slot = walk.next;
            walk.next += 1;
            let accepts = self.connections.get(slot).map(|conn| conn.accepts);
            if accepts.is_some_and(|accepts| self.accepts.accepts(accepts, walk.operation)) {
                due.push(slot);
                served += 1;
            }
        }
        self.deliver(&due, walk.block.clone());
        due.clear();
        self.due = due;
        walk.served += served as u64;
        let (walk_next, ended) = (walk.next, walk.next == walk.end);
        if !ended {
            self.everyone.walk = Some(walk);
        }
        let work = served + (walk_next - first) as usize / SCANS_PER_SEND;
        (work, !ended || !self.everyone.waiting.is_empty())
    }

    /// Puts neighbours of the same operation and speed into one block.
    fn next_walk(&mut self) -> Option<Walk> {
        let everyone = &mut self.everyone;
        let (speed, operation) = everyone.waiting.front().map(|(speed, run)| (*speed, run.operation))?;
        let mut bytes = 0;
        while let Some((_, next)) = everyone.waiting.pop_front_if(|(other_speed, next)| {
            (*other_speed, next.operation) == (speed, operation)
                && (bytes == 0 || bytes + next.run.packets.len() <= self.block_bytes)
        }) {
            bytes += next.run.packets.len();
            everyone.merging.push(next.run);
        }
        everyone.backlog_bytes -= bytes;
        let audience = Audience { formats: self.formats(), receivers: self.joined as usize };
        let block = self.blocks.build(self.everyone.merging.iter(), audience);
        self.everyone.merging.clear();
        Some(Walk { block, operation, next: 0, end: self.connections.end(), speed, began: self.now, served: 0 })
    }
}
