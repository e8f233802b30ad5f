//! Packets that are broken, and whole ones that have no business where they are.

use wire::goim::{MAX_BODY_BYTES, op};

use crate::edge_rig::{Client, EVERY_PATH, Rig};
use crate::rows::Answer::Goodbye;
use crate::rows::{Row, Stage, on_both, request, run};

/// A header with these two lengths.
fn lengths(packet_length: i32, header_length: i16) -> Vec<u8> {
    let mut bytes = request(op::SEND_MESSAGE, b"");
    bytes[0..4].copy_from_slice(&packet_length.to_be_bytes());
    bytes[4..6].copy_from_slice(&header_length.to_be_bytes());
    bytes
}

#[test]
fn broken_lengths_end_the_connection_for_their_reason() {
    let rig = Rig::start("", "");
    let mut rows: Vec<Row> = Vec::new();
    for stage in [Stage::Connected, Stage::Joined] {
        for length in [0, 1, 15, -1, -16, i32::MIN] {
            let name = format!("a length of {length}");
            rows.extend(on_both(&name, stage, &lengths(length, 16), Goodbye(-400, 1002), "bad_length"));
        }
        for length in [i32::MAX, 1 << 30, 16 + MAX_BODY_BYTES as i32 + 1] {
            let name = format!("a length of {length}");
            rows.extend(on_both(&name, stage, &lengths(length, 16), Goodbye(-400, 1009), "body_too_large"));
        }
        for length in [0, 15, 17, -16, i16::MAX, i16::MIN] {
            let name = format!("a header length of {length}");
            rows.extend(on_both(&name, stage, &lengths(16, length), Goodbye(-400, 1002), "bad_header_length"));
        }
        let over = request(op::SEND_MESSAGE, &[b'x'; MAX_BODY_BYTES + 1]);
        rows.extend(on_both("a body of 4097", stage, &over, Goodbye(-400, 1009), "body_too_large"));
        let good = request(op::HEARTBEAT, b"");
        if stage == Stage::Joined {
            // What was whole before the broken one has been answered; here by nothing, since it was none.
            let behind = [lengths(15, 16), good].concat();
            rows.extend(on_both("one more behind", stage, &behind, Goodbye(-400, 1002), "bad_length"));
        }
    }
    run(&rig, rows);
}

#[test]
fn four_bytes_are_enough_to_be_refused() {
    let rig = Rig::start("", "");
    let rows = [Stage::Connected, Stage::Joined].map(|stage| Row {
        name: format!("the length alone, {stage:?}"),
        over: crate::edge_rig::Over::Tcp,
        stage,
        bytes: i32::MAX.to_be_bytes().to_vec(),
        answer: Goodbye(-400, 1009),
        reason: "body_too_large",
    });
    run(&rig, rows);
}

#[test]
fn the_goodbye_is_read_though_much_more_was_sent_behind_the_broken_packet() {
    let rig = Rig::start("", "");
    // Far less than the buffers of the kernel, so that the client never blocks; far more than one read of the server.
    let flood = [lengths(0, 16), vec![0xaa; 300_000]].concat();
    let tcp = on_both("a flood", Stage::Joined, &flood, Goodbye(-400, 1002), "bad_length").into_iter().take(1);
    run(&rig, tcp);
}

#[test]
fn packets_out_of_place_end_the_connection_for_their_reason() {
    let rig = Rig::start("", "");
    let mut rows: Vec<Row> = Vec::new();
    for operation in [op::HEARTBEAT, op::SEND_MESSAGE, op::CHANGE_ROOM, op::SUBSCRIBE, op::RAW, 1000, 0, -1] {
        let name = format!("operation {operation} before auth");
        let bytes = request(operation, b"");
        rows.extend(on_both(&name, Stage::Connected, &bytes, Goodbye(-400, 1008), "packet_before_auth"));
    }
    for operation in [0, 1, 3, 5, 6, 8, 9, 10, 11, 13, 15, 17, 18, 999, 1000, i32::MAX, -1, i32::MIN] {
        let name = format!("operation {operation}");
        let bytes = request(operation, b"1000");
        rows.extend(on_both(&name, Stage::Joined, &bytes, Goodbye(-400, 1008), "unknown_operation"));
    }
    let auth = request(op::AUTH, br#"{"mid":1}"#);
    rows.extend(on_both("a second auth", Stage::Joined, &auth, Goodbye(-400, 1008), "second_auth"));
    run(&rig, rows);
}

#[test]
fn two_auths_at_once_let_in_once_and_then_close() {
    let rig = Rig::start("", "");
    let auth = request(op::AUTH, br#"{"mid":1}"#);
    for over in [crate::edge_rig::Over::Tcp, crate::edge_rig::Over::WebSocket] {
        let mut client = Client::connect(&rig.stack, over);
        assert!(client.send_in_message(&auth) && client.send_in_message(&auth));
        assert_eq!(client.next_packet().operation, op::AUTH_REPLY);
        let (code, words, _) = client.goodbye();
        assert_eq!((code, &*words), (-400, "already authenticated"), "over {over:?}");
    }
    assert_eq!(rig.closed("second_auth"), 2);
}

#[test]
fn more_than_is_kept_while_admission_is_asked_ends_the_connection() {
    // The edge cannot answer before the tier did, and the tier stands still.
    let mut rig = Rig::start("", "");
    for over in [crate::edge_rig::Over::Tcp, crate::edge_rig::Over::WebSocket] {
        let mut client = Client::connect(&rig.stack, over);
        rig.stop_tier();
        assert!(client.send_in_message(&request(op::AUTH, br#"{"mid":1}"#)));
        for _ in 0..10 {
            client.send_in_message(&request(op::SEND_MESSAGE, &[b'x'; MAX_BODY_BYTES]));
        }
        let (code, _, _) = client.goodbye();
        rig.stack.tier().signal(rustix::process::Signal::CONT).unwrap();
        assert_eq!(code, -400, "over {over:?}");
    }
    assert_eq!(rig.closed("input_while_authenticating"), 2);
}

#[test]
fn a_body_of_4096_bytes_is_allowed() {
    let rig = Rig::start("", "");
    for path in EVERY_PATH {
        let mut client = Client::in_room(&rig.stack, path, 1);
        client.send_message(&[b'x'; MAX_BODY_BYTES]).unwrap();
        assert_eq!(client.push().body, [b'x'; MAX_BODY_BYTES], "{path}");
        let mut body = path.request(0, 1).to_body();
        body.resize(MAX_BODY_BYTES, b' ');
        let mut client = Client::connect(&rig.stack, path.over);
        assert_eq!(client.ask(1, op::AUTH, 1, &body).operation, op::AUTH_REPLY, "{path}");
        client.heartbeat();
    }
}
