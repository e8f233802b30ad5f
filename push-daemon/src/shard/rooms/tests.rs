//! Rooms, their members and their turns, without a shard around them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::block::{BlockPool, Run};
use crate::shard::presence::Presence;

struct World {
    presence: Presence,
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
        let presence = Presence::new(1, 100);
        let rooms = Rooms::new(windows, presence.of_shard(0));
        Self { presence, rooms, pool: BlockPool::new(), at: BTreeMap::new() }
    }

    fn join(&mut self, slot: u32) -> u32 {
        self.join_room("live://1", slot)
    }

    fn join_room(&mut self, name: &str, slot: u32) -> u32 {
        let (room, at) = self.rooms.join(name, slot, Format::Goim);
        self.at.insert(slot, at);
        room
    }

    /// Says when the room is to be served.
    fn push(&mut self, body: &str) -> Option<Begin> {
        self.push_to("live://1", body)
    }

    fn push_to(&mut self, name: &str, body: &str) -> Option<Begin> {
        let mut packets = Vec::new();
        wire::goim::Header { version: 1, operation: 1000, sequence: 0 }.put_packet(body.as_bytes(), &mut packets);
        let run = Run { packets: packets.into(), count: 1, compressed: crate::compress::Compressed::default() };
        let room = self.presence.name(name);
        self.rooms.push(Arc::new(RoomRun { room, run })).map(|(_, begin)| begin)
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
        let build = |runs: &[Arc<RoomRun>], to| pool.build(runs.iter().map(|of_room| &of_room.run), to);
        match self.rooms.next_turn(room, most, 1 << 20, build, &mut due) {
            Turn::Send(block) | Turn::SendLast(block) => Some((block.count(), due)),
            Turn::Wait(_) | Turn::Over => None,
        }
    }
}

#[test]
fn what_comes_during_a_round_rides_in_the_next_block() {
    let mut world = World::new();
    let room = world.join(0);
    world.join(1);
    assert_eq!(world.push("a"), Some(Begin::Now), "idle before");
    assert_eq!(world.slice(room, 1), Some((1, vec![0])));
    assert_eq!((world.push("b"), world.push("c")), (None, None));
    assert_eq!(world.slice(room, 9), Some((1, vec![1])));
    assert_eq!(world.slice(room, 9), Some((2, vec![0, 1])), "b and c in one block");
    assert_eq!(world.rooms.backlog_bytes(), 0);
    assert_eq!(world.slice(room, 9), None);
    assert_eq!(world.push("d"), Some(Begin::Now), "idle again");
}

#[test]
fn what_comes_within_a_merge_window_goes_together() {
    let mut world = World::with_window(100);
    let room = world.join(0);
    assert_eq!(world.push("a"), Some(Begin::After(100)));
    assert_eq!(world.push("b"), None);
    assert_eq!(world.slice(room, 9), None, "the window is open");
    assert!(world.rooms.close_window(room));
    assert_eq!(world.slice(room, 9), Some((2, vec![0])));
    world.push("c");
    let over = |_: &[Arc<RoomRun>], _: Audience| unreachable!("nothing is ready");
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
    world.push("a");
    world.leave(room, 0);
    assert_eq!((world.rooms.len(), world.rooms.backlog_bytes()), (0, 0));
    assert_eq!(world.push("b"), None);
    assert_eq!(world.slice(room, 9), None);
}

#[test]
fn a_room_in_the_place_of_one_that_went_has_the_turn_of_that_one_and_no_second() {
    let mut world = World::new();
    let room = world.join(0);
    assert_eq!(world.push("a"), Some(Begin::Now));
    world.leave(room, 0);
    assert_eq!(world.join_room("live://2", 1), room);
    assert_eq!(world.push_to("live://2", "b"), None);
    assert_eq!(world.slice(room, 9), Some((1, vec![1])));
    assert_eq!(world.push_to("live://2", "c"), Some(Begin::Now));
}

#[test]
fn a_long_name_and_many_members_are_as_good_as_a_few() {
    let mut world = World::new();
    let name = "live://".repeat(20);
    let rooms: BTreeSet<u32> = (0..50).map(|slot| world.join_room(&name, slot)).collect();
    assert_eq!(rooms.len(), 1);
    let room = rooms.into_iter().next().unwrap();
    assert_eq!((world.rooms.name(room), world.rooms.online(room)), (&*name, 50));
    assert_eq!(world.push_to(&name, "a"), Some(Begin::Now));
    assert_eq!(world.slice(room, 99), Some((1, (0..50).collect())));
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
        world.push("a");
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
                prop_assert_eq!(world.rooms.rooms[room as usize].members[*at as usize], *slot);
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
