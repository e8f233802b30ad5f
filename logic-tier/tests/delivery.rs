//! What is pushed reaches every edge once, in order, whatever breaks in between.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::edge::{Edge, hello};
use support::{Daemon, Publisher, accepted, eventually, write_config};
use wire::trunk::batch::Target;
use wire::trunk::{All, Keys, Mids, edge_frame};

fn start(more: &str) -> (tempfile::TempDir, std::path::PathBuf, Daemon) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = write_config(directory.path(), "", "", more);
    let daemon = Daemon::start(&config);
    (directory, config, daemon)
}

#[test]
fn every_kind_of_push_arrives_with_its_target() {
    let (_directory, _, daemon) = start("");
    let publisher = Publisher::new(daemon.http);
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    for (path, body) in [
        ("/goim/push/room?operation=1000&type=live&room=1", "to a room"),
        ("/goim/push/keys?operation=1001&keys=a&keys=b", "to keys"),
        ("/goim/push/mids?operation=1002&mids=7&mids=-8", "to mids"),
        ("/goim/push/all?operation=5&speed=100", "to all"),
        ("/goim/push/all?operation=1000", ""),
    ] {
        assert_eq!(publisher.post(path, body.as_bytes()), accepted(), "{path}");
    }
    edge.until_delivered(5);
    let mut got: Vec<_> =
        edge.arbiter.delivered.iter().map(|packet| (packet.target.clone(), packet.operation, &*packet.body)).collect();
    // The room may be in another partition than the rest, and partitions have no order between them.
    got.sort_by_key(|(target, ..)| !matches!(target, Target::Room(_)));
    let keys = Target::Keys(Keys { keys: vec!["a".into(), "b".into()] });
    assert_eq!(
        got,
        [
            (Target::Room("live://1".into()), 1000, "to a room"),
            (keys, 1001, "to keys"),
            (Target::Mids(Mids { mids: vec![7, -8] }), 1002, "to mids"),
            (Target::All(All { speed: 100 }), 5, "to all"),
            (Target::All(All { speed: 0 }), 1000, ""),
        ]
    );
}

#[test]
fn rooms_keep_their_order_and_every_line_gets_everything() {
    const ROOMS: usize = 7;
    const MESSAGES: usize = 40;
    let (_directory, _, daemon) = start("");
    let publisher = Publisher::new(daemon.http);
    let mut lines = [
        Edge::connect(daemon.trunk, hello("edge-1", 1)),
        Edge::connect(daemon.trunk, hello("edge-1", 1)),
        Edge::connect(daemon.trunk, hello("edge-2", 9)),
    ];
    for number in 0..MESSAGES {
        for room in 0..ROOMS {
            publisher.room(&room.to_string(), &number.to_string());
        }
    }
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for line in &mut lines {
        line.until_delivered(ROOMS * MESSAGES);
        for room in 0..ROOMS {
            assert_eq!(line.arbiter.bodies(&room.to_string()), expected);
        }
        assert!(line.arbiter.delivered.iter().any(|packet| packet.partition != 0), "rooms spread over partitions");
    }
}

#[test]
fn an_edge_that_comes_back_gets_exactly_the_rest() {
    let (_directory, _, daemon) = start("partitions = 1\n[job]\nready_bytes = 4194304");
    let publisher = Publisher::new(daemon.http);
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    publisher.room("1", "a");
    publisher.room("1", "b");
    edge.until_delivered(2);
    let resume = edge.resume(hello("edge-1", 1));
    drop(edge);
    publisher.room("1", "c");
    publisher.room("2", "d");
    let mut edge = Edge::connect(daemon.trunk, resume.clone());
    edge.until_delivered(2);
    let offsets: Vec<_> = edge.arbiter.delivered.iter().map(|packet| (packet.offset, &*packet.body)).collect();
    assert_eq!(offsets, [(3, "c"), (4, "d")]);
    // Another bus: its positions mean nothing here, and the edge starts at the tail.
    let stranger = Edge::connect(daemon.trunk, wire::trunk::Hello { bus: resume.bus ^ 1, ..resume });
    assert_eq!(stranger.arbiter.positions.get(&0), Some(&4));
    assert_ne!(stranger.welcome.bus, 0);
}

#[test]
fn a_restart_of_the_tier_replays_from_the_disk() {
    let (_directory, config, daemon) = start("");
    let publisher = Publisher::new(daemon.http);
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    for number in 0..20 {
        publisher.room(&(number % 3).to_string(), &number.to_string());
    }
    edge.until_delivered(20);
    let start = hello("edge-1", 1);
    let from_zero = edge.arbiter.positions.keys().map(|partition| (*partition, 0)).collect();
    edge.arbiter.positions = from_zero;
    let from_zero = edge.resume(start);
    assert!(daemon.terminate(), "SIGTERM ends it with success");
    let daemon = Daemon::start(&config);
    let mut again = Edge::connect(daemon.trunk, from_zero);
    again.until_delivered(20);
    assert_eq!(again.welcome.bus, edge.welcome.bus);
    for room in ["0", "1", "2"] {
        assert_eq!(again.arbiter.bodies(room), edge.arbiter.bodies(room));
    }
}

#[test]
fn what_was_accepted_survives_a_kill_exactly_once() {
    const PUBLISHERS: usize = 4;
    const BEFORE_KILL: usize = 400;
    let (_directory, config, daemon) = start("");
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let http = daemon.http;
    // Each publisher sends 0, 1, 2, ... to its own room and says how many were answered with code 0.
    let accepted_counts: Vec<usize> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|room| {
                let (stop, answered) = (&stop, &answered);
                scope.spawn(move || {
                    let publisher = Publisher::new(http);
                    let path = format!("/goim/push/room?operation=1000&type=live&room={room}");
                    let mut sent = 0;
                    while !stop.load(Ordering::Relaxed) {
                        match publisher.try_post(&path, sent.to_string().as_bytes()) {
                            Ok(answer) => assert_eq!(answer, accepted()),
                            // The one that was under way: it may be there or not.
                            Err(_) => break,
                        }
                        sent += 1;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    sent
                })
            })
            .collect();
        eventually("enough pushes", || (answered.load(Ordering::Relaxed) >= BEFORE_KILL).then_some(()));
        daemon.kill();
        stop.store(true, Ordering::Relaxed);
        publishers.into_iter().map(|publisher| publisher.join().expect("a publisher")).collect()
    });
    edge.until_closed();
    let daemon = Daemon::start(&config);
    let mut arbiter = edge.arbiter.clone();
    let mut edge = Edge::connect(daemon.trunk, edge.resume(hello("edge-1", 1)));
    // Whatever is behind the last accepted message would come before this one.
    let publisher = Publisher::new(daemon.http);
    for room in 0..PUBLISHERS {
        publisher.room(&room.to_string(), "end");
    }
    let ends = |bodies: Vec<&str>| bodies.last() == Some(&"end");
    edge.until("the end of each room", |arbiter, _| {
        (0..PUBLISHERS).all(|room| ends(arbiter.bodies(&room.to_string())))
    });
    arbiter.delivered.append(&mut edge.arbiter.delivered);
    for (room, accepted) in accepted_counts.into_iter().enumerate() {
        let mut bodies = arbiter.bodies(&room.to_string());
        assert_eq!(bodies.pop(), Some("end"));
        let in_order = bodies.iter().enumerate().all(|(number, body)| *body == number.to_string());
        assert!(in_order, "room {room}: each once and in order: {bodies:?}");
        assert!(
            (accepted..=accepted + 1).contains(&bodies.len()),
            "room {room}: {accepted} accepted, {}",
            bodies.len()
        );
    }
}

#[test]
fn a_chat_that_is_sent_again_is_not_there_twice() {
    let (_directory, config, daemon) = start("partitions = 1");
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    edge.chat(1, "1", "one");
    edge.chat(2, "1", "two");
    // Not answered by the bus, so it is no chat that the bus has.
    edge.chat(3, "1", &"x".repeat(5_000));
    edge.until("answers", |_, other| other.iter().filter(|body| is_chat(body)).count() == 3);
    assert_eq!(edge.chat_results(), [(1, 0), (2, 0), (3, -400)]);
    edge.until_delivered(2);
    assert_eq!(edge.arbiter.delivered[0].operation, 1000);
    // The line breaks, and the edge does not know which were taken.
    let resume = edge.resume(hello("edge-1", 1));
    drop(edge);
    let mut edge = Edge::connect(daemon.trunk, resume);
    assert_eq!(edge.welcome.last_chat, 2);
    edge.chat(2, "1", "two");
    edge.chat(4, "1", "four");
    edge.until("answers", |_, other| other.iter().filter(|body| is_chat(body)).count() == 2);
    assert_eq!(edge.chat_results(), [(2, 0), (4, 0)]);
    let resume = edge.resume(hello("edge-1", 1));
    daemon.kill();
    let daemon = Daemon::start(&config);
    let mut edge = Edge::connect(daemon.trunk, resume);
    assert_eq!(edge.welcome.last_chat, 4);
    edge.chat(4, "1", "four");
    edge.chat(5, "1", "five");
    edge.until("five", |arbiter, _| arbiter.bodies("1").last() == Some(&"five"));
    // Another run counts from the beginning.
    let mut other = Edge::connect(daemon.trunk, edge.resume(hello("edge-1", 2)));
    assert_eq!(other.welcome.last_chat, 0);
    other.chat(1, "1", "another run");
    other.until_delivered(1);
    let mut from_zero = hello("edge-2", 1);
    from_zero.bus = other.welcome.bus;
    from_zero.positions = vec![wire::trunk::Position { partition: 0, offset: 0 }];
    let mut all = Edge::connect(daemon.trunk, from_zero);
    all.until("everything", |arbiter, _| arbiter.bodies("1").last() == Some(&"another run"));
    assert_eq!(all.arbiter.bodies("1"), ["one", "two", "four", "five", "another run"]);
}

#[test]
fn chats_under_way_at_a_kill_are_there_once() {
    const CHATS: u64 = 300;
    let (_directory, config, daemon) = start("partitions = 1");
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    for id in 1..=CHATS {
        edge.chat(id, "1", &id.to_string());
    }
    edge.until("some answers", |_, other| other.iter().any(is_chat));
    daemon.kill();
    edge.until_closed();
    let answered = edge.chat_results().last().map_or(0, |(id, _)| *id);
    let daemon = Daemon::start(&config);
    let mut again = Edge::connect(daemon.trunk, edge.resume(hello("edge-1", 1)));
    assert!(again.welcome.last_chat >= answered, "what was answered is in the bus");
    // The edge knows only what was answered, and sends the rest again.
    for id in answered + 1..=CHATS {
        again.chat(id, "1", &id.to_string());
    }
    again.until("the last answer", |_, other| {
        other.iter().filter(|body| is_chat(body)).count() as u64 == CHATS - answered
    });
    assert!(again.chat_results().iter().map(|(id, code)| (*id, *code)).eq((answered + 1..=CHATS).map(|id| (id, 0))));
    again.until("the last chat", |arbiter, _| arbiter.positions[&0] >= CHATS);
    edge.arbiter.delivered.append(&mut again.arbiter.delivered);
    let expected: Vec<String> = (1..=CHATS).map(|id| id.to_string()).collect();
    assert_eq!(edge.arbiter.bodies("1"), expected);
}

#[test]
fn a_full_disk_is_no_lie() {
    const SMALL_DISK_KIB: u32 = 6 << 10;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = write_config(directory.path(), "", "", "partitions = 1");
    let daemon = Daemon::start_on_small_disk(&config, SMALL_DISK_KIB);
    let publisher = Publisher::new(daemon.http);
    let path = "/goim/push/room?operation=1000&type=live&room=1";
    let mut count = 0;
    let refusal = loop {
        let answer = publisher.post(path, &[b'x'; 60_000]);
        if answer != accepted() {
            break answer;
        }
        count += 1;
        assert!(count < SMALL_DISK_KIB, "the disk never filled");
    };
    assert_eq!(refusal.status, 200);
    assert!(
        refusal.body.starts_with(r#"{"code":-500,"message":"the bus failed: cannot append to the bus "#),
        "{refusal:?}"
    );
    // It cannot go on, and says so to whoever started it.
    assert!(!daemon.wait());
    // With room again, everything that was accepted is there.
    let daemon = Daemon::start(&config);
    let mut from_zero = hello("edge-1", 1);
    from_zero.bus = Edge::connect(daemon.trunk, hello("edge-2", 1)).welcome.bus;
    from_zero.positions = vec![wire::trunk::Position { partition: 0, offset: 0 }];
    let mut edge = Edge::connect(daemon.trunk, from_zero);
    Publisher::new(daemon.http).room("1", "end");
    edge.until("the end", |arbiter, _| arbiter.bodies("1").last() == Some(&"end"));
    assert_eq!(edge.arbiter.delivered.len() as u32, count + 1);
}

fn is_chat(body: &wire::trunk::tier_frame::Body) -> bool {
    matches!(body, wire::trunk::tier_frame::Body::Chat(_))
}

#[test]
fn what_retention_dropped_is_said_to_be_lost() {
    // 64 KiB hold about 60 of these.
    let (_directory, config, daemon) = start("partitions = 1\nretention_bytes = 65536");
    let publisher = Publisher::new(daemon.http);
    let body = "x".repeat(1_000);
    for _ in 0..200 {
        publisher.room("1", &body);
    }
    let retained = publisher.metric("logic_bus_retained_bytes ");
    assert!((1..=65_536).contains(&retained), "{retained} bytes are retained");
    let trimmed = publisher.metric("logic_bus_trimmed_total ");
    assert!((100..200).contains(&trimmed), "{trimmed} records were trimmed");
    // A tier that has run all the time may still have the frames at hand; a new one has only the bus.
    assert!(daemon.terminate());
    let daemon = Daemon::start(&config);
    let mut late = hello("edge-1", 1);
    late.bus = Edge::connect(daemon.trunk, hello("edge-2", 1)).welcome.bus;
    late.positions = vec![wire::trunk::Position { partition: 0, offset: 10 }];
    let mut edge = Edge::connect(daemon.trunk, late);
    edge.until("the tail", |arbiter, _| arbiter.positions[&0] == 200);
    assert_eq!(edge.arbiter.lost, [(0, 11, trimmed)]);
    assert_eq!(edge.arbiter.delivered.len() as u64, 200 - trimmed);
}

#[test]
fn old_records_go_even_when_nothing_comes() {
    let (_directory, config, daemon) = start("partitions = 1\nretention_age_s = 1");
    let publisher = Publisher::new(daemon.http);
    publisher.room("1", "a");
    publisher.room("1", "b");
    eventually("an empty bus", || (publisher.metric("logic_bus_retained_bytes ") == 0).then_some(()));
    // Offsets go on where they were, over a restart too.
    assert!(daemon.terminate());
    let daemon = Daemon::start(&config);
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    Publisher::new(daemon.http).room("1", "c");
    edge.until_delivered(1);
    assert_eq!(edge.arbiter.delivered[0].offset, 3);
}

#[test]
fn merging_waits_when_it_is_told_to_and_groups_by_room() {
    let (_directory, _, daemon) = start("partitions = 1\n[job]\nmerge_ms = 10000\nmerge_packets = 6");
    let publisher = Publisher::new(daemon.http);
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    // The sixth fills the frame, long before the time is up.
    for (room, body) in [("b", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("c", "5"), ("b", "6")] {
        publisher.room(room, body);
    }
    let push = loop {
        if let Some(wire::trunk::tier_frame::Body::Push(push)) = edge.next() {
            break push;
        }
    };
    let batches: HashMap<_, _> =
        push.batches.iter().map(|batch| (format!("{:?}", batch.target), &batch.offsets)).collect();
    assert_eq!((push.previous, push.last, batches.len()), (0, 6, 3));
    let offsets: Vec<_> = push.batches.iter().map(|batch| batch.offsets.clone()).collect();
    assert_eq!(offsets, [vec![1, 3, 6], vec![2, 4], vec![5]]);
    edge.arbiter.take(&push);
    edge.send(edge_frame::Body::Ack(wire::trunk::Ack { positions: edge.resume(hello("", 0)).positions }));
    eventually("the edge's position", || (publisher.metric("logic_ack_lag ") == 0).then_some(()));
}
