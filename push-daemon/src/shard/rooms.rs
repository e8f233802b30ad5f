//! Who is where: the rooms of one shard and their members.
//!
//! It does not send: `fanout` asks for the next members and does. What a room has to send is its `activity`.

use std::sync::Arc;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::activity::{Activity, MergeWindows, Served};
use super::conn::{NONE, Side};
use super::order::RoomRun;
use super::presence::{OwnPresence, RoomName};
use super::room_index::RoomIndex;
use crate::block::{Audience, Block};
use crate::format::{Format, Formats};
use crate::sys::prefetch;

/// Members that stand in the room itself. Rooms of a few have one or two on each shard.
const MEMBERS_IN_PLACE: usize = 4;

/// A room that has members on this shard: what a push to it reads. A short name and a few members are in the same cache
/// line, so that a small room costs no more than one.
#[repr(align(64))]
struct Room {
    name: CompactString,
    /// Slots. Invariant: `connections[members[i]].room_at == i`.
    members: SmallVec<[u32; MEMBERS_IN_PLACE]>,
    /// Index of what is under way for the room, or `NONE`.
    activity: u32,
    /// How long a message waits for others, in milliseconds; 0 sends it at once.
    merge_ms: u32,
    /// What its members take.
    formats: Formats,
    /// Its turn will come: it stands among the rounds, or a room that was here before it does.
    has_turn: bool,
}

const _: () = assert!(size_of::<Room>() == 64, "a room is one cache line");

/// What a push to a room does not read.
#[derive(Default)]
struct Counts {
    /// Members by the number of their format.
    by_format: [u32; Format::ALL.len()],
    /// People in the room over all edges as the tier last said, 0 before it did.
    online_everywhere: u32,
}

/// When a room that was idle is to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// In the next slice.
    Now,
    /// After its merge window of this many milliseconds; [`Rooms::close_window`] ends it.
    After(u32),
}

/// What a room has to send now.
pub(crate) enum Turn {
    /// This block, to the members that were named; then the room has another turn.
    Send(Block),
    /// This block, to the members that were named, and nothing more.
    SendLast(Block),
    /// What came since has to wait for its merge window of this many milliseconds; [`Rooms::close_window`] ends it.
    Wait(u32),
    /// Nothing more.
    Over,
}

/// The rooms of one shard.
pub(crate) struct Rooms {
    windows: MergeWindows,
    rooms: Vec<Room>,
    /// Of the rooms, by the same index.
    counts: Vec<Counts>,
    free: Vec<u32>,
    by_name: RoomIndex,
    activities: Side<Activity>,
    presence: OwnPresence,
    /// Bytes in all backlogs together; the loop takes no orders while they are over its bound.
    backlog_bytes: usize,
}

impl Rooms {
    /// No rooms; new ones get their merge window from `windows` and are told to `presence`.
    pub(crate) fn new(windows: MergeWindows, presence: OwnPresence) -> Self {
        Self {
            windows,
            rooms: Vec::new(),
            counts: Vec::new(),
            free: Vec::new(),
            by_name: RoomIndex::new(),
            activities: Side::new(),
            presence,
            backlog_bytes: 0,
        }
    }

    /// Rooms with members.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// The name of a room.
    pub(crate) fn name(&self, room: u32) -> &str {
        &self.rooms[room as usize].name
    }

    /// People in a room: over all edges if the tier has said, else those of this shard.
    pub(crate) fn online(&self, room: u32) -> u32 {
        let here = self.rooms[room as usize].members.len() as u32;
        self.counts[room as usize].online_everywhere.max(here)
    }

    /// Adds `slot` to the room `name`, which comes to be when it is new here. Gives the room and the position.
    pub(crate) fn join(&mut self, name: &str, slot: u32, format: Format) -> (u32, u32) {
        let hash = self.presence.hash(name);
        let room = self.find(name, hash).unwrap_or_else(|| self.create(name, hash));
        let entry = &mut self.rooms[room as usize];
        entry.members.push(slot);
        entry.formats = entry.formats.with(format);
        self.counts[room as usize].by_format[format as usize] += 1;
        (room, entry.members.len() as u32 - 1)
    }

    /// Takes the member at position `at` out. `moved` hears of each member whose position changed.
    /// A room without members is gone, with whatever it had to send.
    pub(crate) fn leave(&mut self, room: u32, at: u32, format: Format, mut moved: impl FnMut(u32, u32)) {
        let entry = &mut self.rooms[room as usize];
        let by_format = &mut self.counts[room as usize].by_format;
        by_format[format as usize] -= 1;
        if by_format[format as usize] == 0 {
            entry.formats = entry.formats.without(format);
        }
        let members = &mut entry.members;
        let last = members.len() as u32 - 1;
        let mut fill = |hole: u32, with: u32| {
            if hole != with {
                members.swap(hole as usize, with as usize);
                moved(members[hole as usize], hole);
            }
            with
        };
        let hole = match self.activities.get_mut(entry.activity) {
            Some(activity) => activity.leave(at, &mut fill),
            None => at,
        };
        fill(hole, last);
        entry.members.pop();
        if entry.members.is_empty() {
            self.remove(room);
        }
    }

    /// Has the place of a room fetched, of which [`Self::prefetch`] is asked next.
    pub(crate) fn prefetch_place(&self, room: &RoomName) {
        self.by_name.prefetch(room.hash());
    }

    /// Has a room fetched to which something will be pushed.
    pub(crate) fn prefetch(&self, room: &RoomName) {
        if let Some(room) = self.by_name.likely(room.hash()) {
            prefetch(&self.rooms[room as usize]);
        }
    }

    /// Puts a run behind what its room still has to send, if the room is here. Says which that is and when it is to be
    /// served, if nothing was under way.
    pub(crate) fn push(&mut self, of_room: Arc<RoomRun>) -> Option<(u32, Begin)> {
        let room = self.find(of_room.room.as_str(), of_room.room.hash())?;
        let entry = &mut self.rooms[room as usize];
        let idle = entry.activity == NONE;
        if idle {
            entry.activity = self.activities.take();
        }
        self.backlog_bytes += of_room.run.packets.len();
        self.activities.get_mut(entry.activity)?.push(of_room, entry.merge_ms);
        match (idle, entry.merge_ms) {
            (false, _) => None,
            (true, 0) => entry.take_turn().then_some((room, Begin::Now)),
            (true, window) => Some((room, Begin::After(window))),
        }
    }

    /// The first members of a room: all of them if they are a few.
    pub(crate) fn first_members(&self, room: u32) -> &[u32] {
        let members = &self.rooms[room as usize].members;
        &members[..members.len().min(MEMBERS_IN_PLACE)]
    }

    /// The room's merge window is over: what has come goes. True when the room is to be served.
    pub(crate) fn close_window(&mut self, room: u32) -> bool {
        let Some(entry) = self.rooms.get_mut(room as usize) else { return false };
        self.activities.get_mut(entry.activity).is_some_and(Activity::close_window) && entry.take_turn()
    }

    /// What the room has to send, and in `due` up to `most` members that are due it, whose turn this call is. Starts a
    /// round from the backlog, at most `block_bytes` of it, when none is under way.
    pub(crate) fn next_turn(
        &mut self,
        room: u32,
        most: usize,
        block_bytes: usize,
        build: impl FnOnce(&[Arc<RoomRun>], Audience) -> Block,
        due: &mut Vec<u32>,
    ) -> Turn {
        let Some(entry) = self.rooms.get_mut(room as usize) else { return Turn::Over };
        entry.has_turn = false;
        let Some(activity) = self.activities.get_mut(entry.activity) else { return Turn::Over };
        let audience = Audience { formats: entry.formats, receivers: entry.members.len() };
        let turn = match activity.serve(&entry.members, most, block_bytes, |runs| build(runs, audience), due) {
            Served::Send { block, taken_bytes, goes_on } => {
                self.backlog_bytes -= taken_bytes;
                entry.has_turn = goes_on;
                if goes_on { Turn::Send(block) } else { Turn::SendLast(block) }
            }
            Served::Wait => Turn::Wait(entry.merge_ms),
            Served::Over => Turn::Over,
        };
        if matches!(turn, Turn::SendLast(_) | Turn::Over) {
            self.activities.give_back(entry.activity, Activity::cleared);
            entry.activity = NONE;
        }
        turn
    }

    /// The tier's count of people in a room.
    pub(crate) fn set_online(&mut self, room: &RoomName, online: u32) {
        if let Some(room) = self.find(room.as_str(), room.hash()) {
            self.counts[room as usize].online_everywhere = online;
        }
    }

    fn find(&self, name: &str, hash: u64) -> Option<u32> {
        self.by_name.find(hash, |room| self.rooms[room as usize].name == name)
    }

    fn create(&mut self, name: &str, hash: u64) -> u32 {
        self.presence.enter(hash);
        let room = Room {
            name: name.into(),
            members: SmallVec::new(),
            activity: NONE,
            merge_ms: self.windows.of(name),
            formats: Formats::default(),
            has_turn: false,
        };
        let index = match self.free.pop() {
            Some(index) => {
                let entry = &mut self.rooms[index as usize];
                *entry = Room { has_turn: entry.has_turn, ..room };
                self.counts[index as usize] = Counts::default();
                index
            }
            None => {
                self.rooms.push(room);
                self.counts.push(Counts::default());
                self.rooms.len() as u32 - 1
            }
        };
        self.by_name.insert(hash, index);
        index
    }

    fn remove(&mut self, index: u32) {
        let room = &mut self.rooms[index as usize];
        let hash = self.presence.hash(&room.name);
        self.by_name.remove(hash, index);
        self.presence.leave(hash);
        room.name = CompactString::default();
        room.members = SmallVec::new();
        let activity = std::mem::replace(&mut room.activity, NONE);
        let unsent = &mut self.backlog_bytes;
        self.activities.give_back(activity, |activity| {
            *unsent -= activity.backlog_bytes();
            activity.cleared()
        });
        self.free.push(index);
    }
}

impl Room {
    /// False when its turn comes anyway: with two in a slice, a member would stand in it twice.
    fn take_turn(&mut self) -> bool {
        !std::mem::replace(&mut self.has_turn, true)
    }
}

#[cfg(test)]
mod tests;
