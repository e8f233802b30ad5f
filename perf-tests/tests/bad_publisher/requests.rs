//! Requests that are HTTP but not what the API asks for.

use crate::edge_rig::{Client, EVERY_PATH, PUSH, Rig};

const ROOM: &str = "/goim/push/room";
const KEYS: &str = "/goim/push/keys";
const MIDS: &str = "/goim/push/mids";
const ALL: &str = "/goim/push/all";

/// The route, what stands behind its `?`, and words that the refusal has to hold.
type Row<'a> = (&'a str, &'a str, &'a str);

/// A client that hears whether pushes still arrive.
struct Listener(Client);

impl Listener {
    fn join(rig: &Rig) -> Self {
        Self(Client::in_room(&rig.stack, EVERY_PATH[0], 1))
    }

    fn hears_a_good_push(&mut self, rig: &Rig, after: &str) {
        rig.push("1", after);
        assert_eq!(self.0.hears(), after);
    }
}

#[test]
fn a_push_that_is_not_as_the_api_asks_is_refused_in_words_and_counted() {
    let rig = Rig::start("", "http.max_targets = 10");
    let mut listener = Listener::join(&rig);
    let eleven = |name: &str| (0..11).map(|number| format!("&{name}={number}")).collect::<String>();
    let [many_keys, many_mids] = ["keys", "mids"].map(|name| format!("operation=1000{}", eleven(name)));
    let long_key = format!("operation=1000&keys={}", "k".repeat(129));
    let long_room = format!("operation=1000&type=live&room={}", "1".repeat(128));
    let bad_operations = [
        ("", "operation"),
        ("operation=", "operation"),
        ("operation=0", "operation"),
        ("operation=-1000", "operation -1000"),
        ("operation=1", "operation 1 "),
        ("operation=4", "operation 4 "),
        ("operation=6", "operation 6 "),
        ("operation=7", "operation 7 "),
        ("operation=9", "operation 9 "),
        ("operation=999", "operation 999 "),
        ("operation=abc", "operation `abc`"),
        ("operation=1000.5", "operation `1000.5`"),
        ("operation=2147483648", "operation `2147483648`"),
        ("operation=%001000", "operation"),
        ("Operation=1000", "operation"),
    ];
    let mut rows: Vec<(&str, String, &str)> = Vec::new();
    for (operation, words) in bad_operations {
        for (route, rest) in [(ROOM, "&type=live&room=1"), (KEYS, "&keys=a"), (MIDS, "&mids=1"), (ALL, "&speed=0")] {
            rows.push((route, format!("{operation}{rest}"), words));
        }
    }
    let of_operation = rows.len() as u64;
    let of_parameters: [Row<'_>; 22] = [
        (ROOM, "operation=1000&room=1", "type is missing"),
        (ROOM, "operation=1000&type=live", "room is missing"),
        (ROOM, "operation=1000&type=&room=1", "type is missing"),
        (ROOM, "operation=1000&type=live&room=", "room is missing"),
        (ROOM, "operation=1000&type=a://b&room=1", "type and room"),
        (ROOM, "operation=1000&type=live&room=%0A", "control character"),
        (ROOM, "operation=1000&type=li%00ve&room=1", "control character"),
        (ROOM, &long_room, "more than 128"),
        (KEYS, "operation=1000", "keys is missing"),
        (KEYS, "operation=1000&key=a", "keys is missing"),
        (KEYS, "operation=1000&keys=", "keys has a value that is empty"),
        (KEYS, "operation=1000&keys=a&keys=&keys=b", "keys has a value that is empty"),
        (KEYS, &long_key, "longer than 128"),
        (KEYS, &many_keys, "keys names 11, more than the 10"),
        (MIDS, "operation=1000", "mids is missing"),
        (MIDS, "operation=1000&mids=", "mids"),
        (MIDS, "operation=1000&mids=1&mids=x", "mids `x`"),
        (MIDS, "operation=1000&mids=1,2", "mids `1,2`"),
        (MIDS, "operation=1000&mids=9223372036854775808", "mids `9223372036854775808`"),
        (MIDS, &many_mids, "mids names 11, more than the 10"),
        (ALL, "operation=1000&speed=fast", "speed `fast`"),
        (ALL, "operation=1000&speed=-1", "speed `-1`"),
    ];
    rows.extend(of_parameters.iter().map(|(route, query, words)| (*route, (*query).to_owned(), *words)));
    listener.hears_a_good_push(&rig, "before");
    for (route, query, words) in &rows {
        let answer = rig.publisher.post(&format!("{route}?{query}"), &[], b"never to be heard").unwrap();
        assert_eq!((answer.status, answer.code), (200, Some(-400)), "{route}?{query}: {answer:?}");
        assert!(answer.message.contains(words), "{route}?{query}: {}", answer.message);
        assert_eq!(answer.data, None, "{route}?{query}");
    }
    listener.hears_a_good_push(&rig, "after");
    let counted = ["operation", "parameter"]
        .map(|reason| rig.tier_metric(&format!("logic_requests_refused_total{{reason=\"{reason}\"}}")));
    assert_eq!(counted.iter().sum::<u64>(), rows.len() as u64);
    // A number that is none is a wrong parameter, whatever its name.
    assert!(counted[0] >= of_operation / 2 && counted[1] >= of_parameters.len() as u64, "{counted:?}");
    let refused = |kind: &str| rig.tier_metric(&format!("logic_pushes_total{{kind=\"{kind}\",result=\"refused\"}}"));
    let pushes: u64 = ["keys", "mids", "room", "all"].iter().map(|kind| refused(kind)).sum();
    assert_eq!(pushes, rows.len() as u64);
    assert_eq!(rig.tier_metric("logic_pushes_total{kind=\"room\",result=\"accepted\"}"), 2);
}

#[test]
fn a_question_that_is_not_as_the_api_asks_is_refused_in_words_and_counted() {
    let rig = Rig::start("", "");
    let rows: [Row<'_>; 8] = [
        ("/goim/online/top", "", "type is missing"),
        ("/goim/online/top", "type=live", "limit is missing"),
        ("/goim/online/top", "type=live&limit=0", "limit"),
        ("/goim/online/top", "type=live&limit=-1", "limit `-1`"),
        ("/goim/online/top", "type=live&limit=many", "limit `many`"),
        ("/goim/online/room", "rooms=1", "type is missing"),
        ("/goim/online/room", "type=live", "rooms is missing"),
        ("/goim/online/room", "type=live&rooms=%07", "control character"),
    ];
    for (number, (route, query, words)) in rows.into_iter().enumerate() {
        let answer = rig.publisher.get(&format!("{route}?{query}"), &[]).unwrap();
        assert_eq!((answer.status, answer.code), (200, Some(-400)), "{route}?{query}: {answer:?}");
        assert!(answer.message.contains(words), "{route}?{query}: {}", answer.message);
        let counted = rig.tier_metric("logic_requests_refused_total{reason=\"parameter\"}");
        assert_eq!(counted, number as u64 + 1, "{route}?{query}");
    }
}

#[test]
fn what_is_no_route_has_an_ordinary_status() {
    let rig = Rig::start("", "");
    let mut listener = Listener::join(&rig);
    for path in ["/", "/goim", "/goim/push", "/goim/push/room/", "/goim/push/everybody", "/GOIM/push/room", "/../etc"] {
        assert_eq!(rig.publisher.get(path, &[]).unwrap().status, 404, "GET {path}");
        assert_eq!(rig.publisher.post(path, &[], b"x").unwrap().status, 404, "POST {path}");
    }
    for path in [ROOM, KEYS, MIDS, ALL] {
        assert_eq!(rig.publisher.get(path, &[]).unwrap().status, 405, "GET {path}");
    }
    for path in ["/goim/online/top", "/goim/online/total", "/goim/nodes/weighted", "/metrics", "/healthz"] {
        assert_eq!(rig.publisher.post(path, &[], b"x").unwrap().status, 405, "POST {path}");
    }
    listener.hears_a_good_push(&rig, "after");
}

#[test]
fn without_its_key_nobody_publishes_or_asks() {
    let rig = Rig::start("", "http.api_keys = [\"the first key\", \"another\"]");
    let mut listener = Listener::join(&rig);
    let anybody = &rig.publisher;
    let wrong = ["", "the first", "the first key ", "THE FIRST KEY", "anothe", "the first keyanother"];
    let mut publishers: Vec<_> = wrong[1..].iter().map(|key| anybody.clone().with_api_key(key)).collect();
    // A blank behind the key is no part of it: that one is right.
    publishers.remove(1);
    publishers.push(anybody.clone());
    let mut refused = 0;
    for publisher in &publishers {
        let answers = [
            publisher.push_room(PUSH, "live", "1", b"never to be heard").unwrap(),
            publisher.push_all(PUSH, 0, b"never to be heard").unwrap(),
            publisher.post(KEYS, &[], b"").unwrap(),
            publisher.get("/goim/online/total", &[]).unwrap(),
            publisher.get("/metrics", &[]).unwrap(),
        ];
        for answer in answers {
            refused += 1;
            assert_eq!((answer.status, answer.code), (401, Some(-401)), "{answer:?}");
            assert!(answer.message.contains("API key"), "{answer:?}");
        }
        // Those who want in, and balancers, need none.
        assert_eq!(publisher.get("/goim/nodes/weighted", &[]).unwrap().code, Some(0));
        assert_eq!(publisher.get("/healthz", &[]).unwrap().status, 200);
    }
    for key in ["the first key", "another"] {
        let publisher = anybody.clone().with_api_key(key);
        assert!(publisher.push_room(PUSH, "live", "1", key.as_bytes()).unwrap().is_accepted());
        assert_eq!(listener.0.hears(), key);
        let metrics = publisher.get("/metrics", &[]).unwrap().message;
        let line = format!("logic_requests_refused_total{{reason=\"api_key\"}} {refused}");
        assert!(metrics.contains(&line), "{line} in {metrics}");
        assert!(!metrics.contains(key), "a key in the metrics");
    }
}
