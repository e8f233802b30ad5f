//! Clients that are too slow, half-open, or gone without a word: time ends them, for its own reason.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use perf_tests::probe::{Closed, Event};
use perf_tests::websocket::opcode;
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Over, Rig, SOON};
use crate::rows::Answer::Goodbye;
use crate::rows::{Stage, Witnesses, check_answer, client_at, frame, request};

/// The pace of a client that sends a little at a time: many times within the time-outs below.
const PACE: Duration = Duration::from_millis(50);

/// Steps of such a client within the test's patience.
const STEPS: usize = 600;

/// Takes one step after another until the server has something to say.
fn trickle(client: &mut Client, mut step: impl FnMut(&mut Client, usize)) -> Event {
    for number in 0..STEPS {
        step(client, number);
        if let Some(event) = client.recv_within(PACE) {
            return event;
        }
    }
    panic!("the server put up with {STEPS} steps");
}

/// The code of a goodbye that has been received.
fn code_of(event: &Event) -> i64 {
    let Event::Packet(packet) = event else { panic!("{event:?} instead of a goodbye") };
    assert_eq!(packet.operation, op::DISCONNECT_REPLY, "{}", packet.text());
    serde_json::from_slice::<serde_json::Value>(&packet.body).unwrap()["code"].as_i64().unwrap()
}

#[test]
fn who_does_not_say_who_it_is_in_time_is_told_and_closed() {
    let rig = Rig::start("limits.handshake_timeout_ms = 700", "");
    let mut witnesses = Witnesses::join(&rig);
    let half = request(op::AUTH, br#"{"mid":1}"#)[..20].to_vec();
    let mut count = 0;
    for over in [Over::Tcp, Over::WebSocket] {
        for (name, bytes) in [
            ("nothing", Vec::new()),
            (
                "half an auth",
                if over == Over::Tcp { half.clone() } else { frame(0x80 | opcode::BINARY, &half)[..20].to_vec() },
            ),
            ("pings and no auth", if over == Over::Tcp { vec![0, 0] } else { frame(0x80 | opcode::PONG, b"") }),
        ] {
            let mut client = client_at(&rig, over, Stage::Connected);
            assert!(client.send_raw(&bytes));
            check_answer(name, &mut client, over, Goodbye(-408, 1008));
            count += 1;
            assert_eq!(rig.closed("auth_timeout"), count, "{name} over {over:?}");
            witnesses.testify(&rig, name);
        }
        // A byte now and then does not buy time.
        let mut client = client_at(&rig, over, Stage::Connected);
        let long = [0, 0, 16, 0, 0, 16, 0, 1, 0, 0, 0, 7].into_iter().chain(std::iter::repeat_n(b' ', STEPS));
        let bytes: Vec<u8> =
            if over == Over::Tcp { long.collect() } else { frame(0x80 | opcode::BINARY, &long.collect::<Vec<u8>>()) };
        let event = trickle(&mut client, |client, step| {
            client.send_raw(&bytes[step..=step]);
        });
        assert_eq!(code_of(&event), -408, "over {over:?}");
        count += 1;
    }
    assert_eq!(rig.closed("auth_timeout"), count);
}

#[test]
fn a_request_head_that_does_not_end_in_time_is_answered_with_408() {
    let rig = Rig::start("limits.handshake_timeout_ms = 700", "");
    for request in ["", "G", "GET /sub HTTP/1.1\r\nHost: edge\r\n"] {
        let mut socket = TcpStream::connect(rig.stack.addresses().websocket).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{request:?}: {answer:?}");
    }
    assert_eq!(rig.closed("auth_timeout"), 3);
}

#[test]
fn a_packet_that_does_not_end_in_time_is_closed_however_it_trickles_in() {
    let rig = Rig::start("limits.packet_timeout_ms = 500", "");
    let mut witnesses = Witnesses::join(&rig);
    let message = request(op::SEND_MESSAGE, &[b'x'; STEPS]);
    let in_frame = frame(0x80 | opcode::BINARY, &message);
    let rows: [(&str, Over, &dyn Fn(usize) -> Vec<u8>); 4] = [
        ("a byte at a time", Over::Tcp, &|step| vec![message[step]]),
        ("a byte of a frame at a time", Over::WebSocket, &|step| vec![in_frame[step]]),
        ("a fragment at a time", Over::WebSocket, &|step| {
            frame(if step == 0 { opcode::BINARY } else { opcode::CONTINUATION }, &message[step..=step])
        }),
        ("a ping between fragments", Over::WebSocket, &|step| match step {
            0 => frame(opcode::BINARY, &message[..1]),
            _ => frame(0x80 | opcode::PONG, b"still here"),
        }),
    ];
    for (number, (name, over, step)) in rows.into_iter().enumerate() {
        let mut client = client_at(&rig, over, Stage::Joined);
        let event = trickle(&mut client, |client, at| {
            client.send_raw(&step(at));
        });
        assert_eq!(code_of(&event), -408, "{name}");
        assert_eq!(rig.closed("slow_packet"), number as u64 + 1, "{name}: {}", rig.stats()["closed_by_reason"]);
        witnesses.testify(&rig, name);
    }
}

#[test]
fn a_slow_client_that_finishes_its_packets_stays() {
    let time_out = Duration::from_secs(2);
    let rig = Rig::start("limits.packet_timeout_ms = 2000", "");
    let heartbeat = request(op::HEARTBEAT, b"");
    let fragments = [frame(opcode::BINARY, &heartbeat[..9]), frame(0x80 | opcode::CONTINUATION, &heartbeat[9..])];
    let rows = [
        (Over::Tcp, heartbeat.clone(), 7),
        (Over::WebSocket, frame(0x80 | opcode::BINARY, &heartbeat), 7),
        (Over::WebSocket, fragments.concat(), fragments[0].len()),
    ];
    // Never at rest: the end of each packet comes with the start of the next.
    let mut clients: Vec<_> = rows
        .into_iter()
        .map(|(over, bytes, ahead)| {
            let mut client = client_at(&rig, over, Stage::Joined);
            assert!(client.send_raw(&bytes[..ahead]));
            (client, [&bytes[ahead..], &bytes[..ahead]].concat())
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < 2 * time_out {
        for (client, next) in &mut clients {
            assert!(client.send_raw(next));
            assert_eq!(client.next_packet().operation, op::HEARTBEAT_REPLY);
            assert_eq!(client.recv_within(PACE / 5), None);
        }
    }
    assert_eq!(rig.stat("/closed_total"), 0);
}

#[test]
fn half_open_reset_and_vanished_clients_are_noticed() {
    let rig = Rig::start("limits.heartbeat_timeout_ms = 3000", "");
    // Reads nothing and says nothing: as good as gone without a FIN.
    let mut vanished: Vec<Client> = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 2)).into();
    for (number, path) in EVERY_PATH.into_iter().enumerate() {
        let mut half_open = Client::in_room(&rig.stack, path, 2);
        half_open.finish_sending();
        assert_eq!(half_open.recv(), Event::Closed(Closed::Fin), "{path}");
        assert_eq!(rig.closed("peer_closed"), 2 * number as u64 + 1, "{path}");
        Client::in_room(&rig.stack, path, 2).abort();
        rig.await_stat("/closed_by_reason/peer_reset", |closed| closed == number as u64 + 1);
        // What it sent before its FIN counts.
        let mut last_words = Client::in_room(&rig.stack, path, 2);
        assert!(last_words.send_in_message(&[request(op::HEARTBEAT, b""), request(op::HEARTBEAT, b"")].concat()));
        last_words.finish_sending();
        let (answers, _) = last_words.until_the_end();
        assert_eq!(answers.len(), 2, "{path}");
        rig.await_stat("/closed_by_reason/peer_closed", |closed| closed == 2 * number as u64 + 2);
    }
    rig.await_stat("/closed_by_reason/heartbeat_timeout", |closed| closed == 4);
    for client in &mut vanished {
        assert_eq!(client.goodbye().0, -408);
    }
    drop(vanished);
    rig.await_stat("/connections", |connections| connections == 0);
    rig.await_stat("/rooms", |rooms| rooms == 0);
}
