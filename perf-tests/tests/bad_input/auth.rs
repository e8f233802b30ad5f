//! Auth bodies that cannot be used: answered by operation 8 with a reason, then closed.

use wire::goim::op;

use crate::edge_rig::Rig;
use crate::rows::Answer::Refused;
use crate::rows::{Row, Stage, on_both, request, run};

#[test]
fn an_auth_body_that_cannot_be_used_is_answered_with_its_reason() {
    let rig = Rig::start("", "");
    let accepts = |count: usize| format!(r#"{{"mid":1,"accepts":[{}]}}"#, vec!["1000"; count].join(","));
    let bodies: [(&str, Vec<u8>, &str); 17] = [
        ("nothing", b"".to_vec(), "not the JSON"),
        ("no JSON", b"hello".to_vec(), "not the JSON"),
        ("bytes", vec![0xff; 200], "not the JSON"),
        ("half a JSON", br#"{"mid":1"#.to_vec(), "not the JSON"),
        ("two", br#"{"mid":1}{"mid":2}"#.to_vec(), "not the JSON"),
        ("a list", b"[1]".to_vec(), "not the JSON"),
        ("an empty object", b"{}".to_vec(), "names neither mid"),
        ("a text for a number", br#"{"mid":"1"}"#.to_vec(), "not the JSON"),
        (
            "a long text for a number",
            format!(r#"{{"mid":"{}"}}"#, "\u{5f39}".repeat(1_300)).into_bytes(),
            "not the JSON",
        ),
        ("a long unknown type", format!(r#"{{"uid":"{}"}}"#, "x".repeat(4_000)).into_bytes(), "not the JSON"),
        ("deep nesting", [br#"{"mid":1,"x":"#.as_slice(), &[b'['; 4_000]].concat(), "not the JSON"),
        ("too many accepts", accepts(65).into_bytes(), "accepts names 65"),
        ("far too many accepts", accepts(800).into_bytes(), "accepts names 800"),
        ("a room without a type", br#"{"mid":1,"room_id":"1000"}"#.to_vec(), "type://id"),
        ("a room with a newline", br#"{"mid":1,"room_id":"live://1\n"}"#.to_vec(), "control character"),
        ("a long room", format!(r#"{{"mid":1,"room_id":"live://{}"}}"#, "1".repeat(200)).into_bytes(), "more than 128"),
        ("a long key", format!(r#"{{"mid":1,"key":"{}"}}"#, "k".repeat(200)).into_bytes(), "more than 128"),
    ];
    let rows: Vec<Row> = bodies
        .iter()
        .flat_map(|(name, body, words)| {
            let bytes = request(op::AUTH, body);
            on_both(name, Stage::Connected, &bytes, Refused(-400, words), "bad_auth_body")
        })
        .collect();
    run(&rig, rows);
}
