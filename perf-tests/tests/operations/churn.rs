//! Coming, moving and going at full speed while pushes fly: nobody is lost, served twice, or left behind.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::edge_rig::{Client, EVERY_PATH, Path, Rig, eventually};

const ROOMS: u64 = 5;
const MOVERS: usize = 8;
const ROUNDS: usize = 40;

/// Comes, moves, and goes in one of three manners, again and again. Whatever it hears is for a room that it has been in.
fn move_about(rig: &Rig, mover: usize, path: Path) {
    for round in 0..ROUNDS {
        let first = (mover + round) as u64 % ROOMS;
        let mut client = Client::in_room(&rig.stack, path, 100 + first);
        for step in 1..4 {
            client.change_room(&format!("live://{}", 100 + (first + step) % ROOMS)).unwrap();
        }
        client.heartbeat();
        match round % 3 {
            0 => drop(client),
            1 => client.abort(),
            _ => {
                client.finish_sending();
                client.until_the_end();
            }
        }
    }
}

/// Numbers of the pushes to a room, as one who stays hears them.
fn listen(client: &mut Client, last: &str) -> Vec<u32> {
    let mut heard = Vec::new();
    loop {
        match client.hears() {
            text if text == last => return heard,
            text => heard.push(text.parse().unwrap()),
        }
    }
}

#[test]
fn who_stays_hears_everything_once_and_in_order_while_others_come_and_go() {
    let rig = Rig::start("shard.slice_sends = 1\nshard.turn_sends = 2", "");
    let mut stayers: Vec<(u64, Client)> = (0..ROOMS)
        .flat_map(|room| EVERY_PATH.map(|path| (100 + room, Client::in_room(&rig.stack, path, 100 + room))))
        .collect();
    let movers_are_done = AtomicBool::new(false);
    let pushes = thread::scope(|scope| {
        let movers: Vec<_> = (0..MOVERS)
            .map(|mover| {
                scope.spawn({
                    let rig = &rig;
                    move || move_about(rig, mover, EVERY_PATH[mover % 4])
                })
            })
            .collect();
        let publisher = scope.spawn(|| {
            let mut pushes = 0_u32;
            while !movers_are_done.load(Relaxed) {
                for room in 0..ROOMS {
                    rig.push(&(100 + room).to_string(), &pushes.to_string());
                }
                pushes += 1;
            }
            pushes
        });
        let outcomes: Vec<_> = movers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        movers_are_done.store(true, Relaxed);
        let pushes = publisher.join().unwrap();
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        pushes
    });
    for room in 0..ROOMS {
        rig.push(&(100 + room).to_string(), "the last");
    }
    for (room, client) in &mut stayers {
        assert_eq!(listen(client, "the last"), (0..pushes).collect::<Vec<_>>(), "room {room}");
    }
    // Both sides agree on who is left.
    rig.await_stat("/connections", |connections| connections == stayers.len() as u64);
    assert_eq!(rig.stat("/joined"), stayers.len() as u64);
    assert_eq!(rig.stat("/owed_bytes"), 0);
    eventually("the tier's count of who is left", || {
        let total = rig.publisher.get("/goim/online/total", &[]).unwrap().data.unwrap();
        (total["conn_count"] == stayers.len()).then_some(())
    });
    for (_, client) in &mut stayers {
        eventually("four in each room", || (client.heartbeat() == 4).then_some(()));
    }
    drop(stayers);
    rig.await_stat("/rooms", |rooms| rooms == 0);
}
