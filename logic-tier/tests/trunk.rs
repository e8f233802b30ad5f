//! Lines: who is let in, who is put out, what edges hear of each other, and that none of them can hold up another.

mod support;

use support::edge::{Edge, hello, joined, place};
use support::{Daemon, Publisher, eventually, write_config};
use wire::trunk::{
    AuthRequest, Hello, Left, MAX_FRAME_BYTES, Moved, Ping, SessionEvent, edge_frame, session_event, tier_frame,
};

fn start(trunk: &str, more: &str) -> (tempfile::TempDir, Daemon, Publisher) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = write_config(directory.path(), "", trunk, more);
    let daemon = Daemon::start(&config);
    let publisher = Publisher::new(daemon.http);
    (directory, daemon, publisher)
}

fn ends(publisher: &Publisher, reason: &str) -> u64 {
    publisher.metric(&format!("logic_line_ends_total{{reason=\"{reason}\"}} "))
}

/// What edges were told of rooms, the last word on each.
fn counts(other: &[tier_frame::Body]) -> Vec<(String, u32)> {
    let mut counts = std::collections::BTreeMap::new();
    for body in other {
        if let tier_frame::Body::Counts(changed) = body {
            counts.extend(changed.rooms.iter().map(|room| (room.room.clone(), room.online)));
        }
    }
    counts.into_iter().collect()
}

/// What edges were told to close.
fn closes(other: &[tier_frame::Body]) -> Vec<(Vec<String>, i32, &str)> {
    let close = |body: &'_ tier_frame::Body| matches!(body, tier_frame::Body::Close(_));
    let closes = other.iter().filter(|body| close(body)).map(|body| match body {
        tier_frame::Body::Close(close) => (close.places.clone(), close.code, close.reason.as_str()),
        _ => unreachable!("filtered above"),
    });
    closes.collect()
}

#[test]
fn an_edge_that_is_not_welcome_hears_why() {
    let (_directory, daemon, publisher) = start("secret = \"the secret\"", "");
    let good = Hello { secret: "the secret".to_owned(), ..hello("edge-1", 1) };
    let secret = "the trunk secret is wrong; it has to be the same on the edge and on the tier";
    let name = "the edge needs a name of 1 to 128 bytes without control characters";
    let version = "this tier speaks trunk protocol 1, not 9; update the older of the two";
    let rows = [
        (edge_frame::Body::Hello(Hello { secret: String::new(), ..good.clone() }), secret),
        (edge_frame::Body::Hello(Hello { secret: "the secreT".to_owned(), ..good.clone() }), secret),
        (edge_frame::Body::Hello(Hello { edge: String::new(), ..good.clone() }), name),
        (edge_frame::Body::Hello(Hello { edge: "a\nb".to_owned(), ..good.clone() }), name),
        (edge_frame::Body::Hello(Hello { protocol: 9, ..good.clone() }), version),
        (
            edge_frame::Body::Hello(Hello { node: 70_000, ..good.clone() }),
            "node 70000 is above 65535, the highest that a key can hold",
        ),
        (edge_frame::Body::Ping(Ping { id: 1 }), "the first message of a line has to be Hello"),
    ];
    let count = rows.len() as u64;
    for (first, expected) in rows {
        match Edge::open(daemon.trunk, first) {
            Err(Some(tier_frame::Body::Refused(refused))) => assert_eq!(refused.reason, expected),
            Err(other) => panic!("{other:?} instead of `{expected}`"),
            Ok(_) => panic!("welcome instead of `{expected}`"),
        }
    }
    eventually("counted", || (ends(&publisher, "refused") == count).then_some(()));
    Edge::connect(daemon.trunk, good);
}

#[test]
fn a_stranger_is_closed_at_bounded_cost() {
    let (_directory, daemon, publisher) = start("hello_timeout_ms = 300", "");
    // Says nothing.
    let silent = std::net::TcpStream::connect(daemon.trunk).expect("the trunk listens");
    eventually("no hello", || (ends(&publisher, "no_hello") == 1).then_some(()));
    drop(silent);
    // A first message of 64 KiB and one byte, announced; a length that never ends; bytes that are no message.
    for bytes in [&[0x81, 0x80, 0x04][..], &[0xff; 11], &[3, 0xff, 0xff, 0xff]] {
        let before = ends(&publisher, "malformed");
        let mut stream = std::net::TcpStream::connect(daemon.trunk).expect("the trunk listens");
        std::io::Write::write_all(&mut stream, bytes).expect("the tier reads");
        eventually("closed", || (ends(&publisher, "malformed") == before + 1).then_some(()));
    }
    // After Hello a message may be as long as the trunk allows, and not longer; and one Hello is enough.
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let mut announced = bytes::BytesMut::new();
    prost::encoding::encode_varint(MAX_FRAME_BYTES as u64 + 1, &mut announced);
    edge.send_raw(&announced);
    edge.until_closed();
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    edge.send(edge_frame::Body::Hello(hello("edge-1", 1)));
    edge.until_closed();
    eventually("counted", || (ends(&publisher, "malformed") == 5).then_some(()));
}

#[test]
fn a_line_that_falls_silent_is_dead() {
    let (_directory, daemon, publisher) = start("ping_interval_ms = 100", "");
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    assert_eq!(edge.welcome.ping_interval_ms, 100);
    // The tier pings while it waits, and then closes.
    edge.until_closed();
    assert!(edge.other.iter().any(|body| matches!(body, tier_frame::Body::Ping(_))));
    eventually("counted", || (ends(&publisher, "silent") == 1).then_some(()));
}

#[test]
fn an_edge_that_the_world_reaches_is_not_welcome_while_admission_is_open() {
    let world = || {
        let mut hello = hello("edge-1", 1);
        let address = hello.address.as_mut().expect("the test's hello has an address");
        address.addresses.push("0.0.0.0".to_owned());
        hello
    };
    let (_directory, daemon, publisher) = start("", "");
    match Edge::try_connect(daemon.trunk, world()) {
        Err(Some(tier_frame::Body::Refused(refused))) => {
            assert!(refused.reason.contains("at 0.0.0.0: set [admission]"))
        }
        _ => panic!("anybody could get in there"),
    }
    eventually("counted", || (ends(&publisher, "refused") == 1).then_some(()));
    let (_directory, daemon, _publisher) = start("", "[admission]\nallow_open = true\n");
    Edge::connect(daemon.trunk, world());
}

#[test]
fn lines_have_a_number_that_is_not_passed() {
    let (_directory, daemon, publisher) = start("max_lines = 3\nmax_lines_per_edge = 2", "");
    let _a = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let _b = Edge::connect(daemon.trunk, hello("edge-1", 1));
    match Edge::try_connect(daemon.trunk, hello("edge-1", 1)) {
        Err(Some(tier_frame::Body::Refused(refused))) => {
            assert_eq!(refused.reason, "edge edge-1 has 2 lines already, the most allowed");
        }
        _ => panic!("a third line of one edge"),
    }
    eventually("its place", || (ends(&publisher, "refused") == 1).then_some(()));
    let _c = Edge::connect(daemon.trunk, hello("edge-2", 1));
    assert!(Edge::try_connect(daemon.trunk, hello("edge-3", 1)).is_err());
    assert_eq!(publisher.metric("logic_lines "), 3);
    assert_eq!(ends(&publisher, "too_many"), 1);
}

#[test]
fn the_newest_run_of_an_edge_wins() {
    let (_directory, daemon, publisher) = start("", "");
    let mut old = [Edge::connect(daemon.trunk, hello("edge-1", 1)), Edge::connect(daemon.trunk, hello("edge-1", 1))];
    old[0].sessions(true, vec![joined(1, "", "live://1", "192.0.2.1")]);
    let online = || publisher.get("/goim/online/room?type=live&rooms=1").body;
    eventually("one online", || online().contains(r#"{"1":1}"#).then_some(()));
    let mut new = Edge::connect(daemon.trunk, hello("edge-1", 2));
    for line in &mut old {
        line.until_closed();
    }
    eventually("counted", || (ends(&publisher, "replaced") == 2).then_some(()));
    assert!(online().contains(r#"{"1":0}"#), "the sessions of the old run are gone");
    publisher.room("1", "x");
    new.until_delivered(1);
}

#[test]
fn a_stuck_edge_holds_up_nobody_and_is_closed() {
    let (_directory, daemon, publisher) =
        start("ping_interval_ms = 500", "partitions = 1\n[job]\nready_bytes = 4194304");
    let mut stuck = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let mut well = Edge::connect(daemon.trunk, hello("edge-2", 1));
    let body = "x".repeat(64 << 10);
    // More than two socket buffers and the ready frames hold.
    let mut sent = 0;
    let closed = |publisher: &Publisher| ends(publisher, "stuck") == 1;
    while sent < 400 {
        publisher.room("1", &body);
        sent += 1;
        for edge in [&mut stuck, &mut well] {
            edge.send(edge_frame::Body::Ping(Ping { id: sent as u64 }));
        }
        well.until_delivered(sent);
    }
    eventually("the stuck line is closed", || {
        for edge in [&mut stuck, &mut well] {
            edge.send(edge_frame::Body::Ping(Ping { id: 0 }));
        }
        closed(&publisher).then_some(())
    });
    // When it comes back it reads the bus, and misses nothing.
    let hello = stuck.resume(hello("edge-1", 1));
    let mut again = Edge::connect(daemon.trunk, hello);
    again.until_delivered(400);
    assert!(publisher.metric("logic_replays_total ") > 0);
    assert_eq!(publisher.metric("logic_lost_total "), 0);
}

#[test]
fn edges_hear_of_rooms_that_changed() {
    let (_directory, daemon, _) = start("", "[sessions]\ncounts_interval_ms = 50\ngrace_ms = 100");
    let mut one = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let mut two = Edge::connect(daemon.trunk, hello("edge-2", 1));
    let room = |name: &str, online| (format!("live://{name}"), online);
    one.sessions(true, vec![joined(1, "", "live://a", ""), joined(2, "", "live://a", "")]);
    two.sessions(true, vec![joined(1, "", "live://a", ""), joined(2, "", "live://b", "")]);
    for edge in [&mut one, &mut two] {
        edge.until("both rooms", |_, other| counts(other) == [room("a", 3), room("b", 1)]);
    }
    // An edge that comes later begins with everything.
    let mut three = Edge::connect(daemon.trunk, hello("edge-3", 1));
    three.until("both rooms", |_, other| counts(other) == [room("a", 3), room("b", 1)]);
    let moved = Moved { room: "live://b".to_owned() };
    let left = SessionEvent { place: place(1), event: Some(session_event::Event::Left(Left {})) };
    let moved = SessionEvent { place: place(2), event: Some(session_event::Event::Moved(moved)) };
    one.sessions(false, vec![left, moved]);
    three.until("the move", |_, other| counts(other) == [room("a", 1), room("b", 2)]);
    // A full picture takes the place of what was known.
    one.sessions(true, vec![joined(9, "", "live://c", "")]);
    three.until("the new picture", |_, other| counts(other) == [room("a", 1), room("b", 1), room("c", 1)]);
    // An edge that stays away is forgotten.
    drop(two);
    three.until("the end of an edge", |_, other| counts(other) == [room("a", 0), room("b", 0), room("c", 1)]);
}

#[test]
fn an_edge_keeps_its_sessions_over_a_short_cut() {
    let (_directory, daemon, publisher) = start("", "");
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    edge.sessions(true, vec![joined(1, "", "live://1", "")]);
    let online = || publisher.get("/goim/online/total").body.contains(r#""conn_count":1"#);
    eventually("online", || online().then_some(()));
    drop(edge);
    eventually("cut", || (publisher.metric("logic_edges ") == 0).then_some(()));
    assert!(online());
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    edge.sessions(false, vec![joined(2, "", "live://1", "")]);
    eventually("two", || publisher.get("/goim/online/total").body.contains(r#""conn_count":2"#).then_some(()));
}

#[test]
fn what_an_old_line_still_says_does_not_spoil_a_full_picture() {
    let (_directory, daemon, publisher) = start("", "");
    let mut old = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let mut new = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let total = |count| {
        let expected = format!(r#""conn_count":{count},"#);
        eventually("the count", || publisher.get("/goim/online/total").body.contains(&expected).then_some(()));
    };
    old.sessions(true, vec![joined(1, "", "", "")]);
    total(1);
    new.sessions(true, vec![joined(1, "", "", ""), joined(2, "", "", "")]);
    total(2);
    old.sessions(false, vec![joined(3, "", "", "")]);
    let refused = "logic_sessions_refused_total{reason=\"superseded\"} ";
    eventually("refused", || (publisher.metric(refused) == 1).then_some(()));
    total(2);
    // With a full picture of its own it counts again.
    old.sessions(true, vec![joined(3, "", "", "")]);
    total(1);
}

#[test]
fn a_key_that_connects_elsewhere_closes_the_older_session() {
    let (_directory, daemon, publisher) = start("", "");
    let mut one = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let mut two = Edge::connect(daemon.trunk, hello("edge-2", 1));
    one.sessions(true, vec![joined(1, "tv", "", ""), joined(2, "", "", "")]);
    eventually("two online", || publisher.get("/goim/online/total").body.contains(r#""conn_count":2"#).then_some(()));
    two.sessions(true, vec![joined(7, "tv", "", "")]);
    let expected = (vec![place(1)], -409, "key connected elsewhere");
    one.until("the close", |_, other| closes(other) == [expected.clone()]);
    assert_eq!(publisher.metric("logic_keys_taken_total "), 1);
}

#[test]
fn questions_are_answered_by_their_ids() {
    let (_directory, daemon, publisher) = start("", "");
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let request = AuthRequest {
        id: 41,
        mid: 7,
        key: "tv".to_owned(),
        room: "live://1".to_owned(),
        accepts: vec![1000],
        ..AuthRequest::default()
    };
    edge.send(edge_frame::Body::Auth(request.clone()));
    edge.send(edge_frame::Body::Auth(AuthRequest { id: 42, room: "nowhere".to_owned(), ..request }));
    edge.until("two answers", |_, other| {
        other.iter().filter(|body| matches!(body, tier_frame::Body::Auth(_))).count() == 2
    });
    let answers: Vec<String> =
        edge.other.iter().map(|body| format!("{body:?}")).filter(|b| b.contains("Auth")).collect();
    assert!(answers[0].contains("id: 41") && answers[0].contains("Granted"), "{}", answers[0]);
    assert!(answers[1].contains("id: 42") && answers[1].contains("a room is named type://id"), "{}", answers[1]);
    assert_eq!(publisher.metric("logic_auths_total{outcome=\"ok\"} "), 1);
    assert_eq!(publisher.metric("logic_auths_total{outcome=\"bad_room\"} "), 1);
}
