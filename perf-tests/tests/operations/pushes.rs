//! Who hears a push: by key, by mid, to a room, to all, and what a connection accepts.

use perf_tests::probe::AuthRequest;

use crate::edge_rig::{Client, EVERY_PATH, Over, PUSH, Path, Rig};

const OTHER: i32 = 1001;
const UNWANTED: i32 = 1002;

fn accepted(answer: &perf_tests::probe::publisher::Answer) {
    assert!(answer.is_accepted(), "{answer:?}");
}

/// What a client has heard when the push of `marker` to its room has come.
fn heard_before_marker(rig: &Rig, client: &mut Client, room: u64, marker: &str) -> Vec<String> {
    rig.push(&room.to_string(), marker);
    let mut heard = Vec::new();
    loop {
        match client.hears() {
            text if text == marker => return heard,
            text => heard.push(text),
        }
    }
}

#[test]
fn a_room_push_reaches_every_member_whatever_it_accepts_under_the_number_of_its_dialect() {
    let rig = Rig::start("", "");
    let mut members: Vec<(Path, Client)> =
        EVERY_PATH.into_iter().map(|path| (path, Client::in_room(&rig.stack, path, 1))).collect();
    let picky = AuthRequest::goim(1, "live://1").accepting(&[UNWANTED]);
    members.push((EVERY_PATH[0], Client::join(&rig.stack, Over::Tcp, &picky)));
    for operation in [PUSH, OTHER, i32::MAX, 5] {
        let body = format!("{operation}");
        accepted(&rig.publisher.push_room(operation, "live", "1", body.as_bytes()).unwrap());
        for (path, member) in &mut members {
            let push = member.push();
            assert_eq!((push.operation, push.version), path.heard_as(operation), "{path}");
            assert_eq!((push.sequence, push.text()), (0, body.clone()), "{path}");
        }
    }
    // Bodies of no bytes, of any bytes, and around the lengths where a frame's header grows.
    for body in [&b""[..], b"\x00\xff\r\n", &[7; 109], &[7; 110], &[7; 65_519], &[7; 65_520], &[7; 65_536]] {
        accepted(&rig.publisher.push_room(PUSH, "live", "1", body).unwrap());
        for (path, member) in &mut members {
            assert_eq!(member.push().body, body, "{path}");
        }
    }
}

#[test]
fn pushes_by_key_by_mid_and_to_all_reach_only_who_accepts_them() {
    let rig = Rig::start("", "");
    for (number, over) in [(1, Over::Tcp), (2, Over::WebSocket)] {
        let (mid, room) = (i64::from(number), 10 + u64::from(number as u32));
        let key = format!("key {number}");
        let request = AuthRequest::goim(mid, &format!("live://{room}")).accepting(&[PUSH, OTHER]).with_key(&key);
        let mut client = Client::join(&rig.stack, over, &request);
        let push_each_way = |operation: i32| {
            accepted(&rig.publisher.push_keys(operation, &[&key], b"key").unwrap());
            accepted(&rig.publisher.push_mids(operation, &[mid], b"mid").unwrap());
            accepted(&rig.publisher.push_all(operation, 0, b"all").unwrap());
        };
        let every_way = ["key", "mid", "all"];
        for (operation, expected) in [(OTHER, &every_way[..]), (UNWANTED, &[])] {
            push_each_way(operation);
            assert_eq!(heard_before_marker(&rig, &mut client, room, "auth"), expected, "{operation} over {over:?}");
        }
        client.unsubscribe(&[PUSH, OTHER]).unwrap();
        client.subscribe(&[UNWANTED]).unwrap();
        for (operation, expected) in [(PUSH, &[][..]), (OTHER, &[]), (UNWANTED, &every_way)] {
            push_each_way(operation);
            assert_eq!(heard_before_marker(&rig, &mut client, room, "changed"), expected, "{operation} over {over:?}");
        }
    }
}

#[test]
fn a_list_of_operations_that_is_none_is_refused_and_changes_nothing() {
    let rig = Rig::start("", "");
    let many = (1..=65).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    for over in [Over::Tcp, Over::WebSocket] {
        let mut client = Client::join(&rig.stack, over, &AuthRequest::goim(3, "live://3").accepting(&[PUSH]));
        for operation in [wire::goim::op::SUBSCRIBE, wire::goim::op::UNSUBSCRIBE] {
            for body in ["1000,x", "99999999999", &many] {
                let reply = client.ask(1, operation, 4, body.as_bytes());
                assert_eq!((reply.operation, reply.sequence), (operation + 1, 4), "{body}");
                assert!(reply.text().contains("\"code\":-400"), "{body}: {}", reply.text());
            }
        }
        // As many as there may be, but with those that it has they are one too many.
        let most: Vec<i32> = (2_000..2_064).collect();
        assert!(client.subscribe(&most).unwrap_err().is_refused_with(-400));
        accepted(&rig.publisher.push_mids(PUSH, &[3], b"as before").unwrap());
        assert_eq!(client.hears(), "as before");
        client.subscribe(&most[1..]).unwrap();
        accepted(&rig.publisher.push_mids(2_063, &[3], b"the last").unwrap());
        assert_eq!(client.hears(), "the last");
    }
}

#[test]
fn a_push_by_mid_reaches_all_connections_of_the_user_and_nobody_else() {
    let rig = Rig::start("", "");
    let user = |mid, over| Client::join(&rig.stack, over, &AuthRequest::goim(mid, "live://1").accepting(&[PUSH]));
    let mut devices: Vec<Client> =
        (0..6).map(|number| user(42, if number % 2 == 0 { Over::Tcp } else { Over::WebSocket })).collect();
    let mut others = [user(43, Over::Tcp), user(-42, Over::WebSocket), user(0, Over::Tcp)];
    accepted(&rig.publisher.push_mids(PUSH, &[99, 42, 100], b"to 42").unwrap());
    // 0 is nobody in particular, and many.
    accepted(&rig.publisher.push_mids(PUSH, &[0], b"to nobody").unwrap());
    for device in &mut devices {
        assert_eq!(device.hears(), "to 42");
    }
    // One that goes leaves the others where they were.
    for gone in [0, 2, 3] {
        drop(devices.remove(gone));
        rig.await_stat("/joined", |joined| joined == (devices.len() + others.len()) as u64);
        accepted(&rig.publisher.push_mids(PUSH, &[42], b"again").unwrap());
        for device in &mut devices {
            assert_eq!(device.hears(), "again");
        }
    }
    accepted(&rig.publisher.push_mids(PUSH, &[-42], b"to -42").unwrap());
    assert_eq!(others[1].hears(), "to -42");
    rig.push("1", "marker");
    for client in devices.iter_mut().chain(&mut others) {
        assert_eq!(client.hears(), "marker");
    }
}

#[test]
fn a_push_by_key_reaches_generated_keys_and_own_ones_and_passes_over_those_that_are_not_there() {
    let (rig, tap) = Rig::start_tapped();
    let request = |mid: i64| AuthRequest::goim(mid, "live://1").accepting(&[PUSH]);
    let mut clients = [
        Client::join(&rig.stack, Over::Tcp, &request(1)),
        Client::join(&rig.stack, Over::WebSocket, &request(2)),
        Client::join(&rig.stack, Over::Tcp, &request(3)),
        Client::join(&rig.stack, Over::Tcp, &request(4).with_key("my own")),
        Client::join(&rig.stack, Over::WebSocket, &request(5).with_key("\u{5f39}\u{5e55}")),
    ];
    let gone = Client::join(&rig.stack, Over::Tcp, &request(6));
    let keys: Vec<String> = (1..=6).map(|mid| tap.key_of(mid)).collect();
    drop(gone);
    rig.await_stat("/joined", |joined| joined == clients.len() as u64);
    assert_eq!(keys[3], "my own");
    assert_eq!(keys[0].len(), 32, "a generated key names a place: {}", keys[0]);

    let mut named = vec!["nobody's", &keys[5], "00000000000000000000000000000000"];
    named.extend(keys.iter().map(String::as_str));
    let unknown: Vec<String> = (0..900).map(|number| format!("unknown {number}")).collect();
    named.splice(3..3, unknown.iter().map(String::as_str));
    accepted(&rig.publisher.push_keys(PUSH, &named, b"to many").unwrap());
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.hears(), "to many");
        let text = format!("to {number} alone");
        accepted(&rig.publisher.push_keys(PUSH, &[&keys[number]], text.as_bytes()).unwrap());
        assert_eq!(client.hears(), text);
    }
    rig.push("1", "marker");
    for client in &mut clients {
        assert_eq!(client.hears(), "marker");
    }
}

#[test]
fn a_broadcast_at_a_crawl_holds_nobody_up() {
    // One connection a second, and more of it than may wait in a shard.
    let rig = Rig::start("shard.backlog_bytes = 100000\nshard.count = 1\n", "");
    let request = AuthRequest::goim(0, "live://1").accepting(&[PUSH]);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::join(&rig.stack, Over::Tcp, &request)).collect();
    for number in 0..6 {
        let text = format!("{number}{}", "x".repeat(40_000));
        accepted(&rig.publisher.push_all(PUSH, 1, text.as_bytes()).unwrap());
    }
    // Whoever comes now gets in, and a room hears its own.
    let mut late = Client::in_room(&rig.stack, EVERY_PATH[1], 2);
    rig.push("2", "to the room");
    assert_eq!(late.hears(), "to the room");
    assert_eq!(clients[0].push().body.len(), 40_001, "the first in line");
}

#[test]
fn a_push_to_all_reaches_all_who_accept_it_at_any_speed() {
    let rig = Rig::start("", "");
    let mut takers: Vec<Client> = (0..10)
        .map(|number| {
            let over = if number % 2 == 0 { Over::Tcp } else { Over::WebSocket };
            Client::join(&rig.stack, over, &AuthRequest::goim(0, "live://1").accepting(&[PUSH]))
        })
        .collect();
    // A Bilibili client hears operation 5 and no other, in no room as in a room.
    let mut viewers: Vec<Client> = EVERY_PATH[2..].iter().map(|path| Client::in_room(&rig.stack, *path, 1)).collect();
    for speed in [0, 1_000, 20] {
        let text = format!("at {speed}");
        accepted(&rig.publisher.push_all(PUSH, speed, text.as_bytes()).unwrap());
        accepted(&rig.publisher.push_all(5, speed, b"{}").unwrap());
        for taker in &mut takers {
            assert_eq!(taker.hears(), text);
        }
        for viewer in &mut viewers {
            let push = viewer.push();
            assert_eq!((push.operation, push.version, &*push.text()), (5, 0, "{}"), "at {speed}");
        }
    }
    rig.push("1", "marker");
    for client in takers.iter_mut().chain(&mut viewers) {
        assert_eq!(client.hears(), "marker");
    }
}

#[test]
fn who_asks_tells_who_is_online() {
    let rig = Rig::start("", "");
    let _clients: Vec<Client> = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 7)).into();
    let get = |path: &str, query: &[(&str, &str)]| rig.publisher.get(path, query).unwrap().data.unwrap_or_default();
    crate::edge_rig::eventually("four sessions upstream", || {
        (get("/goim/online/total", &[])["conn_count"] == 4).then_some(())
    });
    assert_eq!(get("/goim/online/room", &[("type", "live"), ("rooms", "7"), ("rooms", "8")])["7"], 4);
    assert_eq!(get("/goim/online/top", &[("type", "live"), ("limit", "3")])[0]["count"], 4);
    assert_eq!(get("/goim/nodes/weighted", &[("platform", "web")])["nodes"].as_array().unwrap().len(), 1);
}
