//! WebSocket frames that break RFC 6455, or carry what is no packet.

use perf_tests::websocket::opcode;
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Over, Rig};
use crate::rows::Answer::Goodbye;
use crate::rows::{Row, Stage, frame, request, run};

const FIN: u8 = 0x80;

/// Frames one after another, each with its first byte.
fn frames(list: &[(u8, &[u8])]) -> Vec<u8> {
    list.iter().flat_map(|(first, payload)| frame(*first, payload)).collect()
}

/// A binary message that never ends.
fn endless(fragments: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(opcode::BINARY, payload);
    for _ in 1..fragments {
        bytes.extend(frame(opcode::CONTINUATION, payload));
    }
    bytes
}

#[test]
fn frames_that_break_the_rules_are_closed_with_the_code_of_the_rfc() {
    let rig = Rig::start("", "");
    let heartbeat = request(op::HEARTBEAT, b"");
    let unmasked = [&[FIN | opcode::BINARY, 16][..], &heartbeat].concat();
    let whole = FIN | opcode::BINARY;
    let reserved = |bit: u8| frame(whole | bit, &heartbeat);
    let rows: [(&str, Vec<u8>, u16, &str); 27] = [
        ("not masked", unmasked, 1002, "websocket_not_masked"),
        ("a ping not masked", vec![FIN | opcode::PING, 0], 1002, "websocket_not_masked"),
        ("text", frame(FIN | opcode::TEXT, b"hello"), 1003, "websocket_text"),
        ("empty text", frame(FIN | opcode::TEXT, b""), 1003, "websocket_text"),
        ("text in fragments", frames(&[(opcode::TEXT, b"he"), (FIN, b"llo")]), 1003, "websocket_text"),
        ("text that is not UTF-8", frame(FIN | opcode::TEXT, b"\xffhello"), 1007, "websocket_bad_utf8"),
        ("text cut in a character", frame(FIN | opcode::TEXT, b"\xe5\xbc"), 1007, "websocket_bad_utf8"),
        ("a first fragment that is not UTF-8", frame(opcode::TEXT, b"\xff"), 1007, "websocket_bad_utf8"),
        ("a ping of 126 bytes", frame(FIN | opcode::PING, &[b'x'; 126]), 1002, "websocket_control"),
        ("a close of 70000 bytes", frame(FIN | opcode::CLOSE, &[b'x'; 70_000]), 1002, "websocket_control"),
        ("a ping in fragments", frame(opcode::PING, b"a"), 1002, "websocket_control"),
        ("a close in fragments", frame(opcode::CLOSE, b""), 1002, "websocket_control"),
        ("endless fragments of no bytes", endless(10_000, b""), 1008, "websocket_fragments"),
        ("endless fragments of a byte", endless(10_000, b"x"), 1008, "websocket_fragments"),
        ("endless fragments of a thousand bytes", endless(500, &[0; 1_000]), 1009, "websocket_too_large"),
        ("a frame of 2^40 bytes", vec![whole, 0xff, 0, 0, 1, 0, 0, 0, 0, 0], 1009, "websocket_too_large"),
        ("a frame of 70000 bytes", frame(whole, &[0; 70_000]), 1009, "websocket_too_large"),
        ("the first reserved bit", reserved(0x40), 1002, "websocket_protocol"),
        ("the second reserved bit", reserved(0x20), 1002, "websocket_protocol"),
        ("the third reserved bit", reserved(0x10), 1002, "websocket_protocol"),
        ("opcode 3", frame(FIN | 3, b""), 1002, "websocket_protocol"),
        ("opcode 11", frame(FIN | 11, b""), 1002, "websocket_protocol"),
        ("a continuation of nothing", frame(FIN, b""), 1002, "websocket_protocol"),
        ("two messages at once", frames(&[(opcode::BINARY, b""), (whole, b"")]), 1002, "websocket_protocol"),
        ("a length in too many bytes", vec![whole, 0xfe, 0, 16], 1002, "websocket_protocol"),
        ("a close of one byte", frame(FIN | opcode::CLOSE, b"\x03"), 1002, "websocket_protocol"),
        ("a close with 1005", frame(FIN | opcode::CLOSE, b"\x03\xed"), 1002, "websocket_protocol"),
    ];
    let rows = rows.iter().flat_map(|(name, bytes, code, reason)| {
        [Stage::Connected, Stage::Joined].map(|stage| Row {
            name: format!("{name}, {stage:?}"),
            over: Over::WebSocket,
            stage,
            bytes: bytes.clone(),
            answer: Goodbye(-400, *code),
            reason,
        })
    });
    run(&rig, rows);
}

#[test]
fn a_message_that_ends_inside_a_packet_is_closed() {
    let rig = Rig::start("", "");
    let message = request(op::SEND_MESSAGE, b"hello");
    let whole = FIN | opcode::BINARY;
    let rows = [1, 3, 15, 16, 20].map(|length| Row {
        name: format!("{length} of 21 bytes"),
        over: Over::WebSocket,
        stage: Stage::Joined,
        bytes: frame(whole, &message[..length]),
        answer: Goodbye(-400, 1002),
        reason: "truncated_packet",
    });
    let in_fragments = Row {
        name: "in two fragments".to_owned(),
        bytes: frames(&[(opcode::BINARY, &message[..7]), (FIN, &message[7..20])]),
        ..one_more(&rows[0])
    };
    run(&rig, rows.into_iter().chain([in_fragments]));
}

fn one_more(row: &Row) -> Row {
    Row { name: row.name.clone(), bytes: row.bytes.clone(), ..*row }
}

#[test]
fn an_empty_message_means_nothing_and_harms_nobody() {
    let rig = Rig::start("", "");
    for path in EVERY_PATH.into_iter().filter(|path| path.over == Over::WebSocket) {
        let mut client = Client::in_room(&rig.stack, path, 1);
        for _ in 0..100 {
            assert!(client.send_in_message(b""));
        }
        client.websocket().send_frame(true, opcode::PONG, b"unasked").unwrap();
        client.heartbeat();
    }
    // They left of their own accord.
    rig.await_stat("/closed_by_reason/peer_closed", |count| count == 2);
    assert_eq!(rig.stat("/closed_total"), 2);
}
