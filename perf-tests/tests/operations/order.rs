//! A room's order, and that nothing is missing, at speed and past a client that reads slowly.

use std::thread;
use std::time::Duration;

use crate::edge_rig::{Client, EVERY_PATH, PUSH, Rig};

const PUSHES: usize = 2_000;

/// Numbers of the pushes that a client heard, read with a pause of `pause` behind each.
fn listen(client: &mut Client, pause: Option<Duration>) -> Vec<usize> {
    (0..PUSHES)
        .map(|_| {
            if let Some(pause) = pause {
                // This is no wait for something: it is what makes the client slow.
                thread::sleep(pause);
            }
            let body = client.push().body;
            std::str::from_utf8(&body[..8]).unwrap().trim().parse().unwrap()
        })
        .collect()
}

#[test]
fn two_thousand_rapid_pushes_arrive_whole_and_in_order_on_every_path() {
    // What the slow ones leave unread is more than the default lets them owe.
    let rig = Rig::start("limits.debt_bytes = 67108864\nlimits.debt_age_ms = 600000", "");
    let mut fast = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 1));
    let mut slow = EVERY_PATH.map(|path| Client::slow_in_room(&rig.stack, path, 1));
    let expected: Vec<usize> = (0..PUSHES).collect();
    thread::scope(|scope| {
        let fast = fast.iter_mut().map(|client| scope.spawn(|| listen(client, None)));
        let slow = slow.iter_mut().map(|client| scope.spawn(|| listen(client, Some(Duration::from_millis(1)))));
        let listeners: Vec<_> = fast.chain(slow).collect();
        let mut body = vec![b'.'; 4_000];
        for number in 0..PUSHES {
            body[..8].copy_from_slice(format!("{number:8}").as_bytes());
            assert!(rig.publisher.push_room(PUSH, "live", "1", &body).unwrap().is_accepted());
        }
        for (number, listener) in listeners.into_iter().enumerate() {
            let heard = listener.join().unwrap();
            assert!(heard == expected, "{} ({number}): {:?}", EVERY_PATH[number % 4], first_difference(&heard));
        }
    });
    assert_eq!(rig.stat("/dropped_total"), 0);
    assert_eq!(rig.stat("/messages_delivered_total"), 8 * PUSHES as u64);
}

fn first_difference(heard: &[usize]) -> Option<(usize, usize)> {
    heard.iter().copied().enumerate().find(|(place, number)| place != number)
}
