//! Heartbeats with the count of people online, and moves from room to room.

use perf_tests::probe::ProbeError;
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Rig, eventually};

/// Waits until every one of `clients` is told `online`.
fn all_see(clients: &mut [Client], online: u32) {
    for client in clients {
        eventually(&format!("{online} people online"), || (client.heartbeat() == online).then_some(()));
    }
}

#[test]
fn a_heartbeat_tells_how_many_are_in_the_room_over_all_shards() {
    let rig = Rig::start("", "sessions.counts_interval_ms = 50");
    // Several of each path, so that both shards have some of each room.
    let mut first: Vec<Client> = Vec::new();
    let mut second: Vec<Client> = Vec::new();
    for _ in 0..3 {
        first.extend(EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 1)));
        second.extend(EVERY_PATH[..2].iter().map(|path| Client::in_room(&rig.stack, *path, 2)));
    }
    all_see(&mut first, 12);
    all_see(&mut second, 6);
    // Moves, orderly ends and resets all count.
    second[0].change_room("live://1").unwrap();
    first.push(second.remove(0));
    all_see(&mut first, 13);
    all_see(&mut second, 5);
    drop(first.drain(..4));
    first.remove(0).abort();
    second.pop().unwrap().change_room("").unwrap();
    all_see(&mut first, 8);
    all_see(&mut second, 4);
}

#[test]
fn a_heartbeat_reply_has_the_version_of_the_dialect_and_the_sequence_of_its_request() {
    let rig = Rig::start("", "");
    for path in EVERY_PATH {
        let mut client = Client::join(&rig.stack, path.over, &path.request(0, 100));
        let reply = client.ask(3, op::HEARTBEAT, -5, b"ignored");
        let version = if path.is_bilibili() { 1 } else { 3 };
        assert_eq!((reply.operation, reply.version, reply.sequence), (op::HEARTBEAT_REPLY, version, -5), "{path}");
        assert_eq!(reply.body.len(), 4, "{path}");
    }
}

#[test]
fn after_a_move_only_the_new_room_is_heard() {
    let rig = Rig::start("", "");
    for path in EVERY_PATH {
        let mut client = Client::in_room(&rig.stack, path, 1);
        for (to, room) in [("live://2", "2"), ("live://3", "3"), ("live://3", "3"), ("live://1", "1")] {
            client.change_room(to).unwrap();
            for number in 1..=3 {
                if number.to_string() != room {
                    rig.push(&number.to_string(), "for another room");
                }
            }
            rig.push(room, to);
            assert_eq!(client.hears(), to, "{path}");
        }
        client.change_room("").unwrap();
        rig.push("1", "for nobody");
        assert_eq!(client.heartbeat(), 0, "{path}: alone in no room");
        client.change_room("live://4").unwrap();
        rig.push("4", "back in a room");
        assert_eq!(client.hears(), "back in a room", "{path}");
    }
}

#[test]
fn a_room_that_is_none_is_refused_and_the_client_stays_where_it_was() {
    let rig = Rig::start("", "");
    let rows: [(&[u8], &str); 6] = [
        (b"://1", "type://id"),
        (b"live://", "type://id"),
        (b"://", "type://id"),
        (b"live://\n", "control character"),
        (b"live://\xff", "not UTF-8"),
        (&[b"live://".as_slice(), &[b'1'; 130]].concat(), "more than 128"),
    ];
    for path in EVERY_PATH {
        let mut client = Client::in_room(&rig.stack, path, 1);
        for (room, reason) in rows {
            let reply = client.ask(1, op::CHANGE_ROOM, 9, room);
            assert_eq!((reply.operation, reply.sequence), (op::CHANGE_ROOM_REPLY, 9), "{path}");
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(body["code"], -400, "{path}: {body}");
            assert!(body["message"].as_str().unwrap().contains(reason), "{path}: {body}");
        }
        rig.push("1", "still here");
        assert_eq!(client.hears(), "still here", "{path}");
    }
}

#[test]
fn bilibili_clients_name_rooms_by_number_in_a_move_as_in_auth() {
    let rig = Rig::start("", "");
    for path in EVERY_PATH {
        let mut client = Client::in_room(&rig.stack, path, 1);
        match (path.is_bilibili(), client.change_room("5")) {
            (true, Ok(())) => {
                rig.push("5", "by number");
                assert_eq!(client.hears(), "by number");
            }
            (false, Err(ProbeError::Refused { code: -400, .. })) => {}
            (_, outcome) => panic!("{path}: {outcome:?}"),
        }
    }
}
