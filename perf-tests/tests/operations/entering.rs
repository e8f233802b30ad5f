//! Auth: who is let in, who is not and why, and a key that comes twice.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use perf_tests::probe::{AuthRequest, Closed, ConnectOptions, ProbeError};
use serde_json::{Value, json};
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Over, PUSH, Rig, eventually};

const SECRET: &str = "a secret of at least thirty-two bytes";

#[test]
fn a_grant_answers_in_the_words_of_the_dialect() {
    let rig = Rig::start("", "");
    let goim: (i16, &str) = (7, "");
    let bilibili: (i16, &str) = (1, r#"{"code":0}"#);
    let rows = [
        ("a key of its own", r#"{"mid":1,"key":"row 1","room_id":"live://1","platform":"web","accepts":[1000]}"#, goim),
        ("no key", r#"{"mid":1,"room_id":"live://1","platform":"web","accepts":[1000,1001]}"#, goim),
        ("no room", r#"{"mid":1}"#, goim),
        ("null for nothing", r#"{"mid":0,"key":null,"room_id":null,"platform":null,"accepts":null}"#, goim),
        ("unknown fields", r#"{"mid":1,"room_id":"live://1","device":{"os":"x"}}"#, goim),
        ("Bilibili", r#"{"uid":0,"roomid":1,"protover":0,"platform":"web","type":2,"key":""}"#, bilibili),
        ("Bilibili, room as text", r#"{"uid":7,"roomid":"1","protover":0}"#, bilibili),
    ];
    for over in [Over::Tcp, Over::WebSocket] {
        for (name, body, (version, reply)) in rows {
            let mut client = Client::connect(&rig.stack, over);
            let got = client.ask(7, op::AUTH, 0x0102_0304, body.as_bytes());
            let expected = (op::AUTH_REPLY, version, 0x0102_0304, reply);
            assert_eq!((got.operation, got.version, got.sequence, &*got.text()), expected, "{name} over {over:?}");
        }
    }
}

/// A token with these claims over a valid expiry.
fn token(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut all = json!({ "exp": now + 3_600 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    encode(&Header::new(algorithm), &all, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

#[test]
fn a_token_lets_in_and_anything_else_is_refused_with_its_reason() {
    let rig = Rig::start("", &format!("admission.mode = \"token\"\nadmission.secret = \"{SECRET}\"\n"));
    let good = |claims: &Value| token(SECRET, Algorithm::HS256, claims);
    let rows = [
        ("none", String::new(), Some("token is missing")),
        ("no token at all", "let me in".to_owned(), Some("cannot be read")),
        ("signed by another", token(&"x".repeat(40), Algorithm::HS256, &json!({})), Some("wrong signature")),
        ("another algorithm", token(SECRET, Algorithm::HS512, &json!({})), Some("HS256")),
        ("expired", good(&json!({ "exp": 1_000_000_000 })), Some("expired")),
        ("not yet valid", good(&json!({ "nbf": 9_000_000_000_u64 })), Some("not valid yet")),
        ("of another user", good(&json!({ "mid": 8 })), Some("another mid")),
        ("for another room", good(&json!({ "room": "live://2" })), Some("not allow this room")),
        ("anybody's", good(&json!({})), None),
        ("the user's", good(&json!({ "sub": "7", "rooms": ["live://1", "live://3"] })), None),
    ];
    let mut refused = 0;
    for path in EVERY_PATH {
        for (name, token, reason) in &rows {
            let mut client = Client::connect(&rig.stack, path.over);
            let outcome = client.auth(&path.request(7, 1).with_token(token));
            let Some(reason) = reason else {
                outcome.unwrap_or_else(|error| panic!("{path}, {name}: {error}"));
                rig.push("1", name);
                assert_eq!(client.hears(), *name, "{path}");
                continue;
            };
            let Err(ProbeError::Refused { code: -101, reason: said }) = outcome else {
                panic!("{path}, {name}: {outcome:?}")
            };
            assert!(said.contains(reason), "{path}, {name}: {said}");
            let (rest, end) = client.until_the_end();
            assert!(rest.is_empty(), "{path}, {name}: {rest:?}");
            assert!(matches!(end, Closed::Fin | Closed::WebSocket { code: 1008, .. }), "{path}, {name}: {end}");
            refused += 1;
            assert_eq!(rig.closed("auth_refused"), refused, "{path}, {name}");
        }
    }
    assert_eq!(rig.edge_metric("push_refused_total"), refused);
    for (outcome, count) in [("token_missing", 4), ("token_expired", 4), ("other_mid", 4), ("other_room", 4), ("ok", 8)]
    {
        assert_eq!(rig.tier_metric(&format!("logic_auths_total{{outcome=\"{outcome}\"}}")), count, "{outcome}");
    }
}

#[test]
fn a_browser_brings_its_token_in_a_cookie_and_stays_in_its_rooms() {
    let rig = Rig::start("", &format!("admission.mode = \"token\"\nadmission.secret = \"{SECRET}\"\n"));
    let token = token(SECRET, Algorithm::HS256, &json!({ "mid": 7, "rooms": ["live://1", "live://3"] }));
    let extra_headers = format!("Cookie: theme=dark; token={token}; last=1\r\n");
    let options = ConnectOptions { extra_headers, ..ConnectOptions::default() };
    let mut client = Client::connect_with(&rig.stack, Over::WebSocket, &options);
    client.auth(&AuthRequest::goim(0, "live://1").accepting(&[PUSH])).unwrap();

    let refusal = client.change_room("live://2").unwrap_err();
    assert!(refusal.is_refused_with(-403), "{refusal}");
    rig.push("1", "still in room 1");
    assert_eq!(client.hears(), "still in room 1");
    client.change_room("live://3").unwrap();
    rig.push("3", "now in room 3");
    assert_eq!(client.hears(), "now in room 3");
    // Its mid is what the token says.
    assert!(rig.publisher.push_mids(PUSH, &[7], b"to user 7").unwrap().is_accepted());
    assert_eq!(client.hears(), "to user 7");
}

#[test]
fn a_key_that_comes_again_closes_the_older_connection_and_stays_with_the_newer() {
    let rig = Rig::start("", "");
    for over in [Over::Tcp, Over::WebSocket] {
        let key = format!("{over:?}");
        let request = AuthRequest::goim(1, "live://1").accepting(&[PUSH]).with_key(&key);
        let mut before = Client::join(&rig.stack, over, &request);
        // Several in a row, so that some of them meet on one shard and some do not.
        for taken in 1..=8 {
            let mut after = Client::join(&rig.stack, over, &request);
            let (code, words, end) = before.goodbye();
            assert_eq!(code, -409, "{words}");
            assert!(words.contains("key"), "the reason says what happened: {words}");
            assert!(matches!(end, Closed::Fin | Closed::WebSocket { code: 1008, .. }), "{end}");
            let text = format!("push {taken}");
            assert!(rig.publisher.push_keys(PUSH, &[&key], text.as_bytes()).unwrap().is_accepted());
            assert_eq!(after.hears(), text);
            before = after;
        }
    }
    assert_eq!(rig.closed("kicked"), 16);
    assert_eq!(rig.tier_metric("logic_keys_taken_total"), 16);
    rig.await_stat("/joined", |joined| joined == 0);
}

#[test]
fn while_the_tier_does_not_answer_nobody_enters_and_those_who_are_in_go_on() {
    let mut rig = Rig::start("limits.handshake_timeout_ms = 700", "");
    let mut members = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 1));
    rig.stop_tier();
    for path in EVERY_PATH {
        let mut client = Client::connect(&rig.stack, path.over);
        let refusal = client.auth(&path.request(0, 1)).unwrap_err();
        assert!(refusal.is_refused_with(-503), "{path}: {refusal}");
        let (_, end) = client.until_the_end();
        assert!(matches!(end, Closed::Fin | Closed::WebSocket { code: 1013, .. }), "{path}: {end}");
        for member in &mut members {
            member.heartbeat();
        }
    }
    assert_eq!(rig.closed("auth_unavailable"), 4);
    rig.stack.tier().signal(rustix::process::Signal::CONT).unwrap();
    // Late answers to those who are gone are nobody's; the next ones get in.
    let mut newcomers = EVERY_PATH.map(|path| {
        eventually("the tier to answer again", || {
            let mut client = Client::connect(&rig.stack, path.over);
            client.auth(&path.request(0, 1)).is_ok().then_some(client)
        })
    });
    rig.push("1", "all together");
    for client in members.iter_mut().chain(&mut newcomers) {
        assert_eq!(client.hears(), "all together");
    }
}

#[test]
fn what_a_client_sends_before_its_grant_waits_for_it() {
    let rig = Rig::start("", "");
    for path in EVERY_PATH {
        let mut client = Client::connect(&rig.stack, path.over);
        let auth = crate::edge_rig::packet(1, op::AUTH, 1, &path.request(0, 1).to_body());
        let heartbeat = |sequence| crate::edge_rig::packet(1, op::HEARTBEAT, sequence, b"");
        // Two packets in the message that auth is in, and one in a message of its own.
        assert!(client.send_in_message(&[auth, heartbeat(2), heartbeat(3)].concat()));
        assert!(client.send_in_message(&heartbeat(4)));
        assert_eq!(client.next_packet().operation, op::AUTH_REPLY, "{path}");
        for sequence in 2..5 {
            let reply = client.next_packet();
            assert_eq!((reply.operation, reply.sequence), (op::HEARTBEAT_REPLY, sequence), "{path}");
        }
    }
}
