//! The tables of a shard without its sockets, for benchmarks: what a round and a sweep read, in the order in which they
//! read it, and nothing of what the kernel does then.
//!
//! Nothing in the daemon uses it; the tables, and what walks over them, are the daemon's own.

use std::sync::Arc;
use std::time::Instant;

use super::activity::MergeWindows;
use super::clock::Tick;
use super::conn::{Connections, Manner, NONE, Phase};
use super::counters::Counters;
use super::egress::view_of;
use super::lanes::Lanes;
use super::order::RoomRun;
use super::presence::{Presence, RoomName};
use super::rooms::{Rooms, Turn};
use crate::block::{BlockPool, Run};
use crate::format::Format;
use crate::lanes::{Lane, LaneOrder, LanePlan};

/// Members that a slice serves, as in the daemon's defaults.
const SLICE: usize = 256;

/// The longest block, as in the daemon's defaults.
const BLOCK_BYTES: usize = 64 << 10;

/// Silence after which a client is gone, as in the daemon's defaults.
const TIMEOUT_MS: u32 = 480_000;

/// In which order a room lists its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberOrder {
    /// As they stand in the slab: they came one after another.
    OfSlab,
    /// In any order: they have come and gone for a while.
    Shuffled,
}

/// Connections, and one room that all of them are in.
pub struct Tables {
    connections: Connections,
    rooms: Rooms,
    room: u32,
    name: RoomName,
    blocks: BlockPool,
    lanes: Lanes,
    due: Vec<u32>,
}

impl Tables {
    /// Tables with one room of `members`.
    #[must_use]
    pub fn with_room_of(members: u32, order: MemberOrder) -> Self {
        let mut connections = Connections::with_capacity(members);
        let presence = Presence::new(1, members);
        let name = presence.name("live://1");
        let mut rooms = Rooms::new(MergeWindows::default(), presence.of_shard(0));
        for _ in 0..members {
            let slot = connections.occupy(None, Manner::new(false), Tick(0));
            connections[slot].phase = Phase::Joined;
        }
        let mut slots: Vec<u32> = (0..members).collect();
        if order == MemberOrder::Shuffled {
            // Always the same, so that two runs compare.
            fastrand::Rng::with_seed(1).shuffle(&mut slots);
        }
        let mut room = NONE;
        for slot in slots {
            let (joined, at) = rooms.join(name.as_str(), slot, Format::Goim);
            (connections[slot].room, connections[slot].room_at) = (joined, at);
            room = joined;
        }
        let (blocks, lanes) = (BlockPool::new(), Lanes::off(Instant::now()));
        Self { connections, rooms, room, name, blocks, lanes, due: Vec::new() }
    }

    /// The same, with the members in as many lanes as there can be, each with a bound that is never reached.
    #[must_use]
    pub fn in_lanes(mut self) -> Self {
        let lane = |id: u8| Lane { id, name: format!("isp{id}"), rate: u64::MAX, burst: u64::MAX };
        // Numbers and names are right, and no prefix names another.
        let plan = LanePlan::new((1..=u8::MAX).map(lane).collect(), &[]).unwrap_or_default();
        let live = self.connections.live();
        self.lanes.set(LaneOrder::none().replaced(plan), live, &Counters::new());
        (0..live).for_each(|slot| self.connections[slot].lane = (slot % 256) as u8);
        self
    }

    /// One round with `run`: finds every member and what it would be sent. Gives how many there are.
    pub fn round(&mut self, run: &Run) -> u32 {
        self.rooms.push(Arc::new(RoomRun { room: self.name.clone(), run: run.clone() }));
        let mut found = 0;
        let lanes_are_on = self.lanes.are_on();
        loop {
            let blocks = &self.blocks;
            let build = |runs: &[Arc<RoomRun>], to| blocks.build(runs.iter().map(|of_room| &of_room.run), to);
            let turn = self.rooms.next_turn(self.room, SLICE, BLOCK_BYTES, build, &mut self.due);
            let (Turn::Send(block) | Turn::SendLast(block)) = turn else {
                self.lanes.end_turn();
                return found;
            };
            for slot in self.due.drain(..) {
                let Some(conn) = self.connections.get(slot).filter(|conn| conn.phase == Phase::Joined) else {
                    continue;
                };
                let Some(bytes) = block.view(view_of(conn)).filter(|_| conn.debt == NONE) else { continue };
                if lanes_are_on {
                    if self.lanes.hold_back(conn.lane) {
                        continue;
                    }
                    self.lanes.spend(conn.lane, bytes.len());
                }
                found += 1;
            }
        }
    }

    /// One pass over all for those who have been silent for too long. Gives how many have.
    #[must_use]
    pub fn silent(&self) -> u32 {
        let now = Tick(TIMEOUT_MS / 2);
        (0..self.connections.end()).map(|slot| u32::from(self.connections.is_silent(slot, now, TIMEOUT_MS))).sum()
    }
}
