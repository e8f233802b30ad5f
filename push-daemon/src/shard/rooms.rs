//! Who is where: the rooms of one shard and their members.
//!
//! It does not send: `fanout` asks for the next members and does. What a room has to send is its `activity`.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::activity::{Activity, MergeWindows, Served};
use super::conn::{NONE, Side};
use super::presence::OwnPresence;
use crate::block::{Block, Run};
use crate::format::{Format, Formats};

/// A room that has members on this shard.
pub(crate) struct Room {
    pub(crate) name: Box<str>,
    /// Slots. Invariant: `connections[members[i]].room_at == i`.
    members: Vec<u32>,
    /// Members by the number of their format.
    by_format: [u32; Format::ALL.len()],
    /// People in the room over all edges as the tier last said, 0 before it did.
    pub(crate) online_everywhere: u32,
    /// Index of what is under way for the room, or `NONE`.
    activity: u32,
    /// How long a message waits for others, in milliseconds; 0 sends it at once.
    merge_ms: u32,
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
    /// This block, to the members that were named.
    Send(Block),
    /// What came since has to wait for its merge window of this many milliseconds; [`Rooms::close_window`] ends it.
    Wait(u32),
    /// Nothing more.
    Over,
}

/// The rooms of one shard.
pub(crate) struct Rooms {
    windows: MergeWindows,
    rooms: Vec<Room>,
    free: Vec<u32>,
    by_name: HashTable<u32>,
    hasher: RandomState,
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
            free: Vec::new(),
            by_name: HashTable::new(),
            hasher: RandomState::new(),
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

    pub(crate) fn get(&self, room: u32) -> &Room {
        &self.rooms[room as usize]
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.by_name.find(hash, |room| &*self.rooms[*room as usize].name == name).copied()
    }

    /// Adds `slot` to the room `name`, which comes to be when it is new here. Gives the room and the position.
    pub(crate) fn join(&mut self, name: &str, slot: u32, format: Format) -> (u32, u32) {
        let room = self.find(name).unwrap_or_else(|| self.create(name));
        let entry = &mut self.rooms[room as usize];
        entry.members.push(slot);
        entry.by_format[format as usize] += 1;
        (room, entry.members.len() as u32 - 1)
    }

    /// Takes the member at position `at` out. `moved` hears of each member whose position changed.
    /// A room without members is gone, with whatever it had to send.
    pub(crate) fn leave(&mut self, room: u32, at: u32, format: Format, mut moved: impl FnMut(u32, u32)) {
        let entry = &mut self.rooms[room as usize];
        entry.by_format[format as usize] -= 1;
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

    /// Puts `run` behind what the room still has to send. Says when the room is to be served if nothing was under way.
    pub(crate) fn push(&mut self, room: u32, run: Run) -> Option<Begin> {
        let entry = &mut self.rooms[room as usize];
        let idle = entry.activity == NONE;
        if idle {
            entry.activity = self.activities.take();
        }
        self.backlog_bytes += run.packets.len();
        self.activities.get_mut(entry.activity)?.push(run, entry.merge_ms);
        match (idle, entry.merge_ms) {
            (false, _) => None,
            (true, 0) => Some(Begin::Now),
            (true, window) => Some(Begin::After(window)),
        }
    }

    /// The room's merge window is over: what has come goes. False when the room has nothing (any more).
    pub(crate) fn close_window(&mut self, room: u32) -> bool {
        let Some(entry) = self.rooms.get(room as usize) else { return false };
        self.activities.get_mut(entry.activity).is_some_and(Activity::close_window)
    }

    /// What the room has to send, and in `due` up to `most` members that are due it, whose turn this call is. Starts a
    /// round from the backlog, at most `block_bytes` of it, when none is under way.
    pub(crate) fn next_turn(
        &mut self,
        room: u32,
        most: usize,
        block_bytes: usize,
        build: impl FnOnce(&[Run], Formats) -> Block,
        due: &mut Vec<u32>,
    ) -> Turn {
        let Some(entry) = self.rooms.get_mut(room as usize) else { return Turn::Over };
        let Some(activity) = self.activities.get_mut(entry.activity) else { return Turn::Over };
        let by_format = &entry.by_format;
        let build = |runs: &[Run]| {
            build(runs, Format::ALL.into_iter().filter(|format| by_format[*format as usize] > 0).collect())
        };
        match activity.serve(&entry.members, most, block_bytes, build, due) {
            Served::Send { block, taken_bytes } => {
                self.backlog_bytes -= taken_bytes;
                Turn::Send(block)
            }
            Served::Wait => Turn::Wait(entry.merge_ms),
            Served::Over => {
                self.activities.give_back(entry.activity, Activity::cleared);
                entry.activity = NONE;
                Turn::Over
            }
        }
    }

    /// The tier's count of people in a room.
    pub(crate) fn set_online(&mut self, name: &str, online: u32) {
        if let Some(room) = self.find(name) {
            self.rooms[room as usize].online_everywhere = online;
        }
    }

    fn create(&mut self, name: &str) -> u32 {
        self.presence.enter(name);
        let room = Room {
            name: name.into(),
            members: Vec::new(),
            by_format: [0; Format::ALL.len()],
            online_everywhere: 0,
            activity: NONE,
            merge_ms: self.windows.of(name),
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.rooms[index as usize] = room;
                index
            }
            None => {
                self.rooms.push(room);
                self.rooms.len() as u32 - 1
            }
        };
        let (rooms, hasher) = (&self.rooms, &self.hasher);
        self.by_name.insert_unique(hasher.hash_one(name), index, |room| hasher.hash_one(&*rooms[*room as usize].name));
        index
    }

    fn remove(&mut self, index: u32) {
        let hash = self.hasher.hash_one(&*self.rooms[index as usize].name);
        if let Ok(found) = self.by_name.find_entry(hash, |room| *room == index) {
            found.remove();
        }
        let room = &mut self.rooms[index as usize];
        self.presence.leave(&room.name);
        room.name = Box::default();
        room.members = Vec::new();
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
    /// Members on this shard.
    pub(crate) fn members(&self) -> u32 {
        self.members.len() as u32
    }

    /// People in the room: over all edges if the tier has said, else those of this shard.
    pub(crate) fn online(&self) -> u32 {
        self.online_everywhere.max(self.members())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::block::BlockPool;
    use crate::shard::presence::Presence;

    fn run(body: &str) -> Run {
        let mut packets = Vec::new();
        wire::goim::Header { version: 1, operation: 1000, sequence: 0 }.put_packet(body.as_bytes(), &mut packets);
        Run { packets: packets.into(), count: 1, compressed: crate::compress::Compressed::default() }
    }

    struct World {
        rooms: Rooms,
        pool: BlockPool,
        /// Position of each member, as connections would hold it.
        at: BTreeMap<u32, u32>,
    }

    impl World {
        fn new() -> Self {
            Self::with_window(0)
        }

        fn with_window(default_ms: u32) -> Self {
            let windows = MergeWindows { default_ms, ..MergeWindows::default() };
            let presence = Presence::new(1, 100).of_shard(0);
            Self { rooms: Rooms::new(windows, presence), pool: BlockPool::new(), at: BTreeMap::new() }
        }

        fn join(&mut self, slot: u32) -> u32 {
            let (room, at) = self.rooms.join("live://1", slot, Format::Goim);
            self.at.insert(slot, at);
            room
        }

        fn leave(&mut self, room: u32, slot: u32) {
            let at = self.at.remove(&slot).unwrap();
            let positions = &mut self.at;
            self.rooms.leave(room, at, Format::Goim, |slot, at| {
                positions.insert(slot, at);
            });
        }

        fn slice(&mut self, room: u32, most: usize) -> Option<(u32, Vec<u32>)> {
            let mut due = Vec::new();
            let pool = &self.pool;
            match self.rooms.next_turn(room, most, 1 << 20, |runs, b| pool.build(runs.iter(), b), &mut due) {
                Turn::Send(block) => Some((block.count(), due)),
                Turn::Wait(_) | Turn::Over => None,
            }
        }
    }

    #[test]
    fn what_comes_during_a_round_rides_in_the_next_block() {
        let mut world = World::new();
        let room = world.join(0);
        world.join(1);
        assert_eq!(world.rooms.push(room, run("a")), Some(Begin::Now), "idle before");
        assert_eq!(world.slice(room, 1), Some((1, vec![0])));
        assert_eq!((world.rooms.push(room, run("b")), world.rooms.push(room, run("c"))), (None, None));
        assert_eq!(world.slice(room, 9), Some((1, vec![1])));
        assert_eq!(world.slice(room, 9), Some((2, vec![0, 1])), "b and c in one block");
        assert_eq!(world.rooms.backlog_bytes(), 0);
        assert_eq!(world.slice(room, 9), None);
        assert_eq!(world.rooms.push(room, run("d")), Some(Begin::Now), "idle again");
    }

    #[test]
    fn what_comes_within_a_merge_window_goes_together() {
        let mut world = World::with_window(100);
        let room = world.join(0);
        assert_eq!(world.rooms.push(room, run("a")), Some(Begin::After(100)));
        assert_eq!(world.rooms.push(room, run("b")), None);
        assert_eq!(world.slice(room, 9), None, "the window is open");
        assert!(world.rooms.close_window(room));
        assert_eq!(world.slice(room, 9), Some((2, vec![0])));
        world.rooms.push(room, run("c"));
        let over = |_: &[Run], _: Formats| unreachable!("nothing is ready");
        assert!(matches!(world.rooms.next_turn(room, 9, 100, over, &mut Vec::new()), Turn::Wait(100)));
        assert!(world.rooms.close_window(room));
        assert_eq!(world.slice(room, 9), Some((1, vec![0])));
        assert_eq!(world.slice(room, 9), None);
        assert!(!world.rooms.close_window(room), "nothing is under way any more");
    }

    #[test]
    fn an_empty_room_is_gone_with_what_it_had_to_send() {
        let mut world = World::new();
        let room = world.join(0);
        world.rooms.push(room, run("a"));
        world.leave(room, 0);
        assert_eq!((world.rooms.len(), world.rooms.backlog_bytes()), (0, 0));
        assert_eq!(world.rooms.find("live://1"), None);
        assert_eq!(world.slice(room, 9), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join,
        Leave(prop::sample::Index),
        Slice(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Join),
            2 => any::<prop::sample::Index>().prop_map(Step::Leave),
            3 => (1_usize..5).prop_map(Step::Slice),
        ]
    }

    proptest! {
        /// Whoever was a member when the round began and stayed is served exactly once; who joined later is not.
        #[test]
        fn a_round_serves_each_member_once(start in 1_u32..20, steps in prop::collection::vec(step(), 0..60)) {
            let mut world = World::new();
            let mut room = 0;
            for slot in 0..start {
                room = world.join(slot);
            }
            // Keeps the room alive, so that its index stays.
            let anchor = 1_000;
            world.join(anchor);
            world.rooms.push(room, run("a"));
            let mut served = BTreeMap::<u32, u32>::new();
            let mut stayed: BTreeSet<u32> = (0..start).chain([anchor]).collect();
            let mut newcomers = BTreeSet::new();
            let mut fresh = 2_000;
            let mut begun = false;
            for step in steps {
                match step {
                    Step::Join => {
                        world.join(fresh);
                        if begun { newcomers.insert(fresh); } else { stayed.insert(fresh); }
                        fresh += 1;
                    }
                    Step::Leave(which) => {
                        let leavers: Vec<u32> = world.at.keys().copied().filter(|slot| *slot != anchor).collect();
                        if !leavers.is_empty() {
                            let slot = leavers[which.index(leavers.len())];
                            world.leave(room, slot);
                            stayed.remove(&slot);
                            newcomers.remove(&slot);
                        }
                    }
                    Step::Slice(most) => {
                        begun = true;
                        for slot in world.slice(room, most).map(|(_, due)| due).unwrap_or_default() {
                            *served.entry(slot).or_default() += 1;
                        }
                    }
                }
                for (slot, at) in &world.at {
                    prop_assert_eq!(world.rooms.get(room).members[*at as usize], *slot);
                }
            }
            while let Some((_, due)) = world.slice(room, 3) {
                for slot in due {
                    *served.entry(slot).or_default() += 1;
                }
            }
            prop_assert!(served.values().all(|times| *times == 1));
            for slot in &stayed {
                prop_assert_eq!(served.get(slot), Some(&1));
            }
            if begun {
                for slot in &newcomers {
                    prop_assert_eq!(served.get(slot), None);
                }
            }
        }
    }
}
