//! The data plane allocates nothing per message and nothing per idle connection.
//!
//! One test, because all of it counts what the same threads do. The count begins after a warm-up in which everything has
//! happened once: buffers that are kept have been made by then.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod counting;
mod edge_in_process;

use counting::Heap;
use edge_in_process::{Client, Edge, eventually};
use push_daemon::lanes::{Lane, LanePlan};
use wire::goim::op;
use wire::trunk::batch::Target;
use wire::trunk::{All, Keys, Mids};

/// The room of everybody but the idle.
const ROOM: u32 = 1;

/// Of the name of every thread of the data plane.
const SHARDS: &str = "shard-";

/// The name of the thread that hub and lines run on.
const TRUNK: &str = "trunk";

/// Broadcasts of one measurement.
const BROADCASTS: usize = 40;

/// Messages of a burst.
const BURST: usize = 200;

/// What blocks of all sizes need once, on both shards: how long merged blocks become is up to the moment, so that no
/// warm-up can have seen all of them.
const ONCE: i64 = 120;

/// Bytes a second that a burst waits for.
const SLOW: u64 = 8_000_000;

/// What the trunk may allocate for one push: the frame, its decoding, the order for each shard.
const PER_PUSH: i64 = 24;

/// An edge with members of one room, and others who sit in other rooms.
struct House {
    edge: Edge,
    /// In `ROOM`.
    members: Vec<Client>,
    /// In other rooms.
    idle: Vec<Client>,
    send: &'static str,
}

fn allocated(threads: &str, work: impl FnOnce()) -> i64 {
    let before = Heap::of_threads(threads);
    work();
    (Heap::of_threads(threads) - before).allocations
}

fn room(number: u32) -> Target {
    Target::Room(format!("live://{number}"))
}

/// Pushes `count` times and has `hearers` hear each before the next.
fn push(edge: &Edge, target: &Target, count: usize, hearers: &mut [&mut Client]) {
    for number in 0..count {
        let body = format!("message {number:04} {}", "x".repeat(number % 4 * 300));
        edge.tier.push(std::slice::from_ref(target), &[body.as_bytes()]);
        for client in &mut *hearers {
            assert_eq!(client.next(1), [(1000, body.clone().into_bytes())]);
        }
    }
}

impl House {
    fn with(send: &'static str) -> Self {
        let edge = Edge::start(&format!("shard.count = 2\nshard.send = \"{send}\"\n"));
        let join = |mid: i64, room| edge.join(mid % 2 == 0, mid, room);
        let members = (1..=120).map(|mid| join(mid, ROOM)).collect();
        let idle = (1_001..=1_120).map(|mid| join(mid, 1_000 + mid as u32 % 10)).collect();
        Self { edge, members, idle, send }
    }

    /// Ways to reach the members; by name.
    fn targets(&self) -> [(&'static str, Target); 3] {
        let keys = (1..=120).map(|mid| self.edge.tier.key_of(mid)).collect();
        [
            ("the room", room(ROOM)),
            ("their user ids", Target::Mids(Mids { mids: (1..=120).collect() })),
            ("their keys", Target::Keys(Keys { keys })),
        ]
    }

    fn push_to_members(&mut self, target: &Target, count: usize) {
        push(&self.edge, target, count, &mut self.members.iter_mut().collect::<Vec<_>>());
    }

    fn push_to_all(&mut self, count: usize) {
        let mut all: Vec<_> = self.members.iter_mut().chain(&mut self.idle).collect();
        push(&self.edge, &Target::All(All { speed: 0 }), count, &mut all);
    }

    /// Everybody is in a lane of this rate from now on.
    fn pace(&self, rate: u64) {
        let lane = Lane { id: 1, name: "everybody".to_owned(), rate, burst: 0 };
        let prefixes = [("127.0.0.0/8".parse().unwrap(), 1)];
        self.edge.set_lanes(LanePlan::new(vec![lane], &prefixes).unwrap());
        let everybody = (self.members.len() + self.idle.len()) as u64;
        eventually("everybody is in the lane", || {
            self.edge
                .appliance
                .lanes()
                .first()
                .filter(|lane| (lane.rate, lane.connections) == (rate, everybody))
                .map(drop)
        });
    }

    fn delayed(&self) -> u64 {
        self.edge.appliance.lanes()[0].delayed_total
    }

    /// Many at once, so that some merge.
    fn burst(&mut self) {
        for number in 0..BURST {
            self.edge.tier.push(&[room(ROOM)], &[format!("burst {number}").as_bytes()]);
        }
        for client in &mut self.members {
            assert_eq!(client.next(BURST).len(), BURST);
        }
    }

    fn heartbeats(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.idle.iter_mut().for_each(|client| client.send(op::HEARTBEAT, b""));
            for client in &mut self.idle {
                assert_eq!(client.next(1)[0].0, op::HEARTBEAT_REPLY);
            }
        }
    }

    /// Everything once.
    fn warm_up(&mut self, targets: &[(&str, Target)]) {
        targets.iter().for_each(|(_, target)| self.push_to_members(target, 8));
        self.push_to_all(8);
        self.burst();
        self.heartbeats(2);
    }
}

fn shards_allocate_nothing(house: &mut House) {
    let (send, targets) = (house.send, house.targets());
    house.warm_up(&targets);
    for (name, target) in &targets {
        let allocations = allocated(SHARDS, || house.push_to_members(target, BROADCASTS));
        assert_eq!(allocations, 0, "{BROADCASTS} pushes to {name}, sends: {send}");
    }
    let allocations = allocated(SHARDS, || house.push_to_all(BROADCASTS));
    assert_eq!(allocations, 0, "{BROADCASTS} pushes to all, sends: {send}");
    let allocations = allocated(SHARDS, || house.heartbeats(5));
    assert_eq!(allocations, 0, "heartbeats of idle clients, sends: {send}");
    let allocations = allocated(SHARDS, || (0..20).for_each(|_| house.burst()));
    assert!(allocations <= ONCE, "{allocations} for {} messages in bursts, sends: {send}", 20 * BURST);
}

/// The same in a lane, whether it has enough for everybody or has them wait.
fn lanes_allocate_nothing(house: &mut House) {
    let (send, targets) = (house.send, house.targets());
    house.pace(1_000_000_000);
    house.warm_up(&targets);
    for (name, target) in &targets {
        let allocations = allocated(SHARDS, || house.push_to_members(target, BROADCASTS));
        assert_eq!(allocations, 0, "{BROADCASTS} pushes to {name} in a lane, sends: {send}");
    }
    house.pace(SLOW);
    (0..10).for_each(|_| house.burst());
    let delayed = house.delayed();
    let allocations = allocated(SHARDS, || (0..20).for_each(|_| house.burst()));
    assert!(house.delayed() > delayed, "they waited");
    assert!(allocations <= ONCE, "{allocations} for {} messages that wait for a lane, sends: {send}", 20 * BURST);
    house.edge.set_lanes(LanePlan::default());
}

/// What the trunk allocates for a push does not grow with the number of those who hear it.
fn the_hub_allocates_by_the_batch(house: &mut House) {
    let mut few: Vec<_> = (0..4).map(|number| house.edge.join(false, 2_000 + number, 2)).collect();
    let mut few: Vec<_> = few.iter_mut().collect();
    push(&house.edge, &room(2), 8, &mut few);
    let to_few = allocated(TRUNK, || push(&house.edge, &room(2), BROADCASTS, &mut few));
    let to_many = allocated(TRUNK, || house.push_to_members(&room(ROOM), BROADCASTS));
    for (allocations, hearers) in [(to_few, 4), (to_many, 120)] {
        let bound = PER_PUSH * BROADCASTS as i64;
        assert!(allocations > 0, "the trunk allocates for each frame: was it counted?");
        assert!(allocations <= bound, "{allocations} for {BROADCASTS} pushes to {hearers}: over {bound}");
    }
}

#[test]
fn the_data_plane_allocates_nothing_for_messages_and_idle_connections() {
    for send in ["plain", "auto"] {
        let mut house = House::with(send);
        shards_allocate_nothing(&mut house);
        lanes_allocate_nothing(&mut house);
        the_hub_allocates_by_the_batch(&mut house);
        house.edge.stop();
    }
}
