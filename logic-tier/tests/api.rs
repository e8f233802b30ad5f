//! The publisher API: goim's bodies and codes, and what is said to a request that is wrong.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use support::edge::{Edge, hello, joined};
use support::{Answer, Daemon, Publisher, accepted, eventually, write_config};
use wire::trunk::{EdgeReport, edge_frame};

fn start(http: &str) -> (tempfile::TempDir, Daemon) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = write_config(directory.path(), http, "", "");
    let daemon = Daemon::start(&config);
    (directory, daemon)
}

fn refused(message: &str) -> Answer {
    Answer { status: 200, body: format!(r#"{{"code":-400,"message":"{message}"}}"#) }
}

#[test]
fn wrong_requests_are_answered_with_what_is_wrong() {
    let (_directory, daemon) = start("max_targets = 2");
    let publisher = Publisher::new(daemon.http);
    let long = "k".repeat(129);
    let protocol = "1000 and above are the application's, and 5 is a message in the Bilibili dialect";
    let rows = [
        ("room?type=live&room=1", "operation is missing".to_owned()),
        ("room?operation=&type=live&room=1", "operation is missing".to_owned()),
        ("room?operation=abc&type=live&room=1", "operation `abc` is not a whole number".to_owned()),
        ("room?operation=2147483648&type=live&room=1", "operation `2147483648` is not a whole number".to_owned()),
        (
            "room?operation=0&type=live&room=1",
            "operation is 0; name the operation of the packet, 1000 or above".to_owned(),
        ),
        ("room?operation=7&type=live&room=1", format!("operation 7 belongs to the protocol; {protocol}")),
        ("room?operation=999&type=live&room=1", format!("operation 999 belongs to the protocol; {protocol}")),
        ("room?operation=-1&type=live&room=1", format!("operation -1 belongs to the protocol; {protocol}")),
        ("room?operation=1000&room=1", "type is missing".to_owned()),
        ("room?operation=1000&type=live", "room is missing".to_owned()),
        ("room?operation=1000&type=live&room=", "room is missing".to_owned()),
        (
            "room?operation=1000&type=a%3A%2F%2Fb&room=1",
            "type and room: a room is named type://id, such as live://1000".to_owned(),
        ),
        (
            "room?operation=1000&type=live&room=%0A",
            "type and room: the room's name holds a control character".to_owned(),
        ),
        ("keys?operation=1000", "keys is missing".to_owned()),
        ("keys?operation=1000&keys=", "keys has a value that is empty or longer than 128 bytes".to_owned()),
        (
            &format!("keys?operation=1000&keys={long}"),
            "keys has a value that is empty or longer than 128 bytes".to_owned(),
        ),
        ("keys?operation=1000&keys=a&keys=b&keys=c", "keys names 3, more than the 2 that one push may".to_owned()),
        ("mids?operation=1000", "mids is missing".to_owned()),
        ("mids?operation=1000&mids=1&mids=x", "mids `x` is not a whole number".to_owned()),
        ("mids?operation=1000&mids=1&mids=2&mids=3", "mids names 3, more than the 2 that one push may".to_owned()),
        ("all?speed=1", "operation is missing".to_owned()),
        ("all?operation=1000&speed=-1", "speed `-1` is not a whole number from 0 up".to_owned()),
    ];
    for (request, message) in &rows {
        assert_eq!(publisher.post(&format!("/goim/push/{request}"), b"x"), refused(message), "{request}");
    }
    assert_eq!(publisher.metric("logic_requests_refused_total{reason=\"operation\"} "), 4);
    assert_eq!(publisher.metric("logic_requests_refused_total{reason=\"parameter\"} "), rows.len() as u64 - 4);
    assert_eq!(publisher.metric("logic_pushes_total{kind=\"all\",result=\"refused\"} "), 2);
    assert_eq!(publisher.metric("logic_bus_appends_total "), 0, "nothing of it reached the bus");
    for (request, message) in [
        ("top", "type is missing"),
        ("top?type=live", "limit is missing"),
        ("top?type=live&limit=x", "limit `x` is not a whole number from 1 up"),
        ("room?rooms=1", "type is missing"),
        ("room?type=live", "rooms is missing"),
    ] {
        assert_eq!(publisher.get(&format!("/goim/online/{request}")), refused(message), "{request}");
    }
}

#[test]
fn what_is_no_route_gets_an_ordinary_status() {
    let (_directory, daemon) = start("");
    let publisher = Publisher::new(daemon.http);
    assert_eq!(publisher.get("/goim/push/nobody").status, 404);
    assert_eq!(publisher.get("/goim/push/room").status, 405);
    assert_eq!(publisher.post("/goim/online/total", b"").status, 405);
    let health = publisher.get("/healthz");
    assert_eq!((health.status, &*health.body), (200, "ok\n"));
}

#[test]
fn a_message_is_as_long_as_the_config_says_and_no_longer() {
    let (_directory, daemon) = start("max_body_bytes = 1000");
    let publisher = Publisher::new(daemon.http);
    let path = "/goim/push/room?operation=1000&type=live&room=1";
    assert_eq!(publisher.post(path, &[b'x'; 1000]), accepted());
    let too_large = r#"{"code":-400,"message":"the message has more than 1000 bytes"}"#;
    assert_eq!(publisher.post(path, &[b'x'; 1001]), Answer { status: 413, body: too_large.to_owned() });
    // Without a length ahead it is found out on the way.
    let mut stream = TcpStream::connect(daemon.http).expect("the API listens");
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the API reads");
    for _ in 0..3 {
        // It may answer and close before the last of them.
        let _ = stream.write_all(format!("190\r\n{}\r\n", "x".repeat(0x190)).as_bytes());
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with(too_large), "{answer}");
    assert_eq!(publisher.metric("logic_requests_refused_total{reason=\"too_large\"} "), 2);
    assert_eq!(publisher.metric("logic_pushes_total{kind=\"room\",result=\"accepted\"} "), 1);
}

#[test]
fn a_message_that_does_not_arrive_is_cut_off() {
    let (_directory, daemon) = start("request_timeout_ms = 100");
    let path = "/goim/push/room?operation=1000&type=live&room=1";
    let mut stream = TcpStream::connect(daemon.http).expect("the API listens");
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    stream.write_all(head.as_bytes()).expect("the API reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // A head that does not end is not even answered.
    let mut stream = TcpStream::connect(daemon.http).expect("the API listens");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").expect("the API reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the end");
    let publisher = Publisher::new(daemon.http);
    assert_eq!(publisher.metric("logic_requests_refused_total{reason=\"incomplete\"} "), 1);
    assert_eq!(publisher.metric("logic_bus_appends_total "), 0);
}

#[test]
fn a_push_that_would_wait_too_long_is_told_so_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // Each commit waits for company for a second, and three of these messages may wait.
    let bus = "commit_window_ms = 1000\nappend_bytes = 4194304";
    let config = write_config(directory.path(), "max_body_bytes = 1048576", "", bus);
    let daemon = Daemon::start(&config);
    let http = daemon.http;
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let push = move || Publisher::new(http).post("/goim/push/all?operation=1000", &[b'x'; 1 << 20]);
        let pushes: Vec<_> = (0..12).map(|_| scope.spawn(push)).collect();
        pushes.into_iter().map(|push| push.join().expect("a publisher")).collect()
    });
    let taken = answers.iter().filter(|answer| **answer == accepted()).count() as u64;
    let busy = r#"{"code":-500,"message":"the bus is busy: too much waits for the disk; try again"}"#;
    assert!((3..12).contains(&taken), "{taken} of 12 were taken");
    assert_eq!(answers.iter().filter(|answer| answer.status == 200 && answer.body == busy).count() as u64, 12 - taken);
    let publisher = Publisher::new(http);
    assert_eq!(publisher.metric("logic_requests_refused_total{reason=\"busy\"} "), 12 - taken);
    assert_eq!(publisher.metric("logic_pushes_total{kind=\"all\",result=\"failed\"} "), 12 - taken);
    assert_eq!(publisher.metric("logic_bus_appends_total "), taken);
}

#[test]
fn publishers_need_a_key_when_there_is_one() {
    let (_directory, daemon) = start("api_keys = [\"first\", \"second\"]");
    let push = "/goim/push/all?operation=1000";
    let right = Publisher::new(daemon.http).with_key("second");
    assert_eq!(right.post(push, b"x"), accepted());
    for wrong in ["", "secon", "second ", "third", "firstsecond"] {
        let answer = Publisher::new(daemon.http).with_key(wrong).post(push, b"x");
        // A header's value ends before its spaces, so that one is right.
        if wrong == "second " {
            assert_eq!(answer, accepted());
            continue;
        }
        assert_eq!(answer.status, 401, "`{wrong}`");
        assert!(
            answer.body.starts_with(r#"{"code":-401,"message":"the API key is missing or wrong"#),
            "{}",
            answer.body
        );
    }
    let nobody = Publisher::new(daemon.http);
    for (headers, status) in [
        (&[("Authorization", "Bearer first")][..], 200),
        (&[("Authorization", "bearer first")], 200),
        (&[("Authorization", "Basic first")], 401),
        (&[("Authorization", "first")], 401),
        (&[("X-Api-Key", "no"), ("Authorization", "Bearer first")], 401),
        (&[], 401),
    ] {
        assert_eq!(nobody.get_with("/goim/online/total", headers).status, status, "{headers:?}");
    }
    for (path, status) in [
        ("/metrics", 401),
        ("/goim/nodes/instances", 401),
        ("/goim/nodes/weighted", 200),
        ("/healthz", 200),
        ("/x", 404),
    ] {
        assert_eq!(nobody.get(path).status, status, "{path}");
    }
    assert_eq!(right.metric("logic_requests_refused_total{reason=\"api_key\"} "), 10);
}

#[test]
fn who_is_online_is_counted_over_all_edges() {
    let (_directory, daemon) = start("");
    let publisher = Publisher::new(daemon.http);
    let get = |path: &str| publisher.get(path).body;
    assert_eq!(get("/goim/online/top?type=live&limit=3"), r#"{"code":0,"message":"","data":[]}"#);
    assert_eq!(get("/goim/online/total"), r#"{"code":0,"message":"","data":{"conn_count":0,"ip_count":0}}"#);
    let mut one = Edge::connect(daemon.trunk, hello("edge-1", 1));
    let mut two = Edge::connect(daemon.trunk, hello("edge-2", 1));
    let events = vec![
        joined(1, "", "live://a", "192.0.2.1"),
        joined(2, "", "live://b", "192.0.2.1"),
        joined(3, "", "game://a", "192.0.2.2"),
    ];
    one.sessions(true, events);
    two.sessions(true, vec![joined(1, "", "live://b", "2001:db8::1"), joined(2, "", "", "192.0.2.3")]);
    let total = r#"{"code":0,"message":"","data":{"conn_count":5,"ip_count":4}}"#;
    eventually("five sessions", || (get("/goim/online/total") == total).then_some(()));
    assert_eq!(
        get("/goim/online/top?type=live&limit=3"),
        r#"{"code":0,"message":"","data":[{"room_id":"b","count":2},{"room_id":"a","count":1}]}"#
    );
    assert_eq!(
        get("/goim/online/room?type=live&rooms=b&rooms=a&rooms=none"),
        r#"{"code":0,"message":"","data":{"a":1,"b":2,"none":0}}"#
    );
}

#[test]
fn clients_are_told_where_to_connect() {
    let (_directory, daemon) = start("");
    let publisher = Publisher::new(daemon.http);
    let weighted = |platform: &str| -> serde_json::Value {
        let body = publisher.get(&format!("/goim/nodes/weighted?platform={platform}")).body;
        serde_json::from_str(&body).expect("JSON")
    };
    let nobody = weighted("web");
    assert_eq!(nobody["data"]["nodes"], serde_json::json!(["localhost"]));
    assert_eq!(nobody["data"]["backoff"]["max_delay"], 300);
    let mut edge = Edge::connect(daemon.trunk, hello("edge-1", 1));
    assert_eq!(weighted("web")["data"]["nodes"], serde_json::json!(["edge-1.example"]));
    let android = weighted("android");
    assert_eq!(android["data"]["nodes"], serde_json::json!(["127.0.0.1"]));
    assert_eq!((&android["data"]["tcp_port"], &android["data"]["ws_port"]), (&3101.into(), &3102.into()));
    assert_eq!(android["data"].get("wss_port"), None, "Protobuf's JSON in Go leaves zeros out");
    assert_eq!((&android["data"]["heartbeat"], &android["data"]["heartbeat_max"]), (&240.into(), &2.into()));
    edge.send(edge_frame::Body::Report(EdgeReport {
        connections: 5,
        max_connections: 9,
        draining: true,
        isps: Vec::new(),
    }));
    eventually("no draining edge", || (weighted("web")["data"]["nodes"][0] == "localhost").then_some(()));
    let instances = publisher.get("/goim/nodes/instances").body;
    let instances: serde_json::Value = serde_json::from_str(&instances).expect("JSON");
    let instance = &instances["data"][0];
    assert_eq!((&instance["hostname"], &instance["appid"]), (&"edge-1.example".into(), &"goim.comet".into()));
    assert_eq!(
        instance["metadata"],
        serde_json::json!({"addrs": "127.0.0.1", "conn_count": "5", "offline": "true", "weight": "10"})
    );
    drop(edge);
    eventually("no instance", || publisher.get("/goim/nodes/instances").body.contains(r#""data":[]"#).then_some(()));
}
