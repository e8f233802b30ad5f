//! What is special to WebSocket: messages of several packets, fragments, pings, batches, the closing handshake.

use perf_tests::probe::{Closed, Event};
use perf_tests::websocket::{self, opcode};
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Over, Path, Rig, packet};

fn websocket_paths() -> impl Iterator<Item = Path> {
    EVERY_PATH.into_iter().filter(|path| path.over == Over::WebSocket)
}

#[test]
fn several_packets_in_one_message_are_answered_one_by_one() {
    let rig = Rig::start("", "");
    for path in websocket_paths() {
        let mut client = Client::in_room(&rig.stack, path, 1);
        let mut message = Vec::new();
        for sequence in 1..=50 {
            message.extend(packet(1, op::HEARTBEAT, sequence, b""));
        }
        message.extend(packet(1, op::CHANGE_ROOM, 51, b"live://2"));
        assert!(client.send_in_message(&message));
        for sequence in 1..=51 {
            assert_eq!(client.next_packet().sequence, sequence, "{path}");
        }
        rig.push("2", "moved");
        assert_eq!(client.hears(), "moved", "{path}");
    }
}

#[test]
fn a_message_in_fragments_is_one_message_with_control_frames_between_them() {
    let rig = Rig::start("", "");
    for path in websocket_paths() {
        let mut client = Client::connect(&rig.stack, Over::WebSocket);
        let auth = packet(1, op::AUTH, 1, &path.request(0, 1).to_body());
        // In as many fragments as there may be, some of no bytes, with pings between them.
        let probe = client.websocket();
        let pieces: Vec<&[u8]> = auth.chunks(auth.len().div_ceil(30)).collect();
        probe.send_frame(false, opcode::BINARY, b"").unwrap();
        for piece in &pieces {
            probe.send_frame(false, opcode::CONTINUATION, piece).unwrap();
            probe.ping(piece).unwrap();
        }
        probe.send_frame(true, opcode::CONTINUATION, b"").unwrap();
        for piece in &pieces {
            assert_eq!(client.recv(), Event::Pong(piece.to_vec()), "{path}");
        }
        assert_eq!(client.next_packet().operation, op::AUTH_REPLY, "{path}");
        rig.push("1", "in");
        assert_eq!(client.hears(), "in", "{path}");
    }
}

#[test]
fn bytes_may_arrive_one_by_one() {
    let rig = Rig::start("", "");
    for path in EVERY_PATH {
        let mut client = Client::in_room(&rig.stack, path, 1);
        let heartbeat = packet(1, op::HEARTBEAT, 77, b"");
        let bytes = if path.over == Over::Tcp {
            heartbeat
        } else {
            let mut frame = Vec::new();
            websocket::put_frame(true, opcode::BINARY, &heartbeat, [1, 2, 3, 4], &mut frame);
            frame
        };
        // Without Nagle each of them is a segment of its own.
        for byte in bytes {
            assert!(client.send_raw(&[byte]));
        }
        assert_eq!(client.next_packet().sequence, 77, "{path}");
    }
}

#[test]
fn frames_may_come_with_the_request_and_pings_need_no_auth() {
    let rig = Rig::start("", "");
    let path = EVERY_PATH[1];
    let key = websocket::key(*b"a frame with it.");
    let mut bytes = websocket::request("edge", "/sub?room=1", &key, "X-Extra: 1\r\n").into_bytes();
    let auth = packet(1, op::AUTH, 1, &path.request(0, 1).to_body());
    websocket::put_frame(true, opcode::PING, b"early", [9, 8, 7, 6], &mut bytes);
    websocket::put_frame(true, opcode::BINARY, &auth, [9, 8, 7, 6], &mut bytes);

    let mut socket = std::net::TcpStream::connect(rig.stack.addresses().websocket).unwrap();
    socket.set_read_timeout(Some(crate::edge_rig::SOON)).unwrap();
    std::io::Write::write_all(&mut socket, &bytes).unwrap();
    // A pong of 2 + 5 bytes and a frame of 2 + 16.
    let (mut answer, mut frames_at) = (Vec::new(), None);
    while frames_at.is_none_or(|at| answer.len() < at + 7 + 18) {
        let mut buffer = [0; 1024];
        let count = std::io::Read::read(&mut socket, &mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
        frames_at = websocket::parse_response(&answer, &websocket::accept_of(&key)).unwrap();
    }
    let frames = &answer[frames_at.unwrap()..];
    assert_eq!(frames[..7], *b"\x8a\x05early");
    assert_eq!(frames[7..9], [0x82, 16]);
    assert_eq!(frames[17..21], op::AUTH_REPLY.to_be_bytes());
}

#[test]
fn a_merged_batch_is_operation_9_on_websocket_and_plain_packets_elsewhere() {
    const PUSHES: usize = 40;
    let rig = Rig::start("", "job.merge_ms = 200");
    let mut clients: Vec<(Path, Client)> =
        EVERY_PATH.into_iter().map(|path| (path, Client::in_room(&rig.stack, path, 1))).collect();
    let expected: Vec<String> = (0..PUSHES).map(|number| number.to_string()).collect();
    for body in &expected {
        rig.push("1", body);
    }
    for (path, client) in &mut clients {
        let (mut heard, mut batches) = (Vec::new(), 0);
        while heard.len() < PUSHES {
            let mut packets = vec![client.next_packet()];
            if packets[0].operation == op::RAW {
                batches += 1;
                let inner = wire::goim::Packets::new(&packets[0].body, usize::MAX);
                packets = inner.map(|inner| inner.unwrap().into()).collect();
                assert!(packets.len() > 1, "{path}: a batch of one needs no outer packet");
            }
            heard.extend(packets.iter().map(perf_tests::probe::Packet::text));
        }
        assert_eq!(heard, expected, "{path}");
        let raw = path.over == Over::WebSocket && !path.is_bilibili();
        assert_eq!(batches > 0, raw, "{path}: {batches} batches");
    }
}

#[test]
fn a_close_is_answered_by_a_close() {
    let rig = Rig::start("", "");
    for (number, (code, reason)) in [(1000, "bye"), (1001, ""), (4000, "the application's")].into_iter().enumerate() {
        let mut client = Client::in_room(&rig.stack, EVERY_PATH[1], 1);
        client.websocket().send_close(code, reason).unwrap();
        assert!(matches!(client.recv(), Event::Closed(Closed::WebSocket { code: 1000, .. })), "{code}");
        rig.await_stat("/closed_by_reason/peer_closed", |count| count == number as u64 + 1);
    }
}
