//! A row: what a client does, what it is answered, and for which reason its connection ends.

use std::collections::BTreeMap;

use perf_tests::probe::{AuthRequest, Closed, Event};
use perf_tests::websocket::{opcode, put_frame};
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Over, Path, Rig, eventually, packet};

/// How far a client has come when it misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Connected, and on WebSocket upgraded.
    Connected,
    /// In a room.
    Joined,
}

/// What the client gets to see.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// A goodbye (operation 6) with this code, then the end: on WebSocket with this close code.
    Goodbye(i64, u16),
    /// A reply to auth (operation 8) with this code, and a reason that holds these words; then the end, on WebSocket with 1008.
    Refused(i64, &'static str),
}

/// One row of a table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) over: Over,
    pub(crate) stage: Stage,
    pub(crate) bytes: Vec<u8>,
    pub(crate) answer: Answer,
    pub(crate) reason: &'static str,
}

/// Rows for both transports: `bytes` are packets, and ride in one message on WebSocket.
pub(crate) fn on_both(name: &str, stage: Stage, bytes: &[u8], answer: Answer, reason: &'static str) -> [Row; 2] {
    [Over::Tcp, Over::WebSocket].map(|over| Row {
        name: format!("{name}, {stage:?} over {over:?}"),
        over,
        stage,
        bytes: if over == Over::Tcp { bytes.to_vec() } else { frame(0x80 | opcode::BINARY, bytes) },
        answer,
        reason,
    })
}

/// A masked frame whose first byte is as given.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(true, opcode::BINARY, payload, [0x37, 0xfa, 0x21, 0x3d], &mut out);
    out[0] = first;
    out
}

/// A client that has come as far as `stage`.
pub(crate) fn client_at(rig: &Rig, over: Over, stage: Stage) -> Client {
    let mut client = Client::connect(&rig.stack, over);
    if stage == Stage::Joined {
        client.auth(&AuthRequest::goim(0, "live://2")).unwrap();
    }
    client
}

/// Clients that are in all the time.
pub(crate) struct Witnesses {
    clients: Vec<(Path, Client)>,
    pushes: u32,
}

impl Witnesses {
    pub(crate) fn join(rig: &Rig) -> Self {
        let clients = EVERY_PATH.into_iter().map(|path| (path, Client::in_room(&rig.stack, path, 1))).collect();
        Self { clients, pushes: 0 }
    }

    pub(crate) fn count(&self) -> u64 {
        self.clients.len() as u64
    }

    /// Each of them hears a push, and nothing else.
    pub(crate) fn testify(&mut self, rig: &Rig, after: &str) {
        self.pushes += 1;
        let text = format!("{} after {after}", self.pushes);
        rig.push("1", &text);
        for (path, client) in &mut self.clients {
            assert_eq!(client.hears(), text, "{path}");
        }
    }

    /// Each of them makes a round trip.
    pub(crate) fn beat(&mut self) {
        for (_, client) in &mut self.clients {
            client.heartbeat();
        }
    }
}

/// Runs every row against one edge. At the end the reasons counted are those of the rows and no others.
pub(crate) fn run(rig: &Rig, rows: impl IntoIterator<Item = Row>) {
    let mut witnesses = Witnesses::join(rig);
    let mut expected = BTreeMap::<&str, u64>::new();
    for row in rows {
        let mut client = client_at(rig, row.over, row.stage);
        // The server may well end the connection before it has all of it.
        client.send_raw(&row.bytes);
        check_answer(&row.name, &mut client, row.over, row.answer);
        let count = expected.entry(row.reason).or_default();
        *count += 1;
        assert_eq!(rig.closed(row.reason), *count, "{}: {}", row.name, rig.stats()["closed_by_reason"]);
        drop(client);
        witnesses.testify(rig, &row.name);
    }
    assert_eq!(rig.stats()["closed_by_reason"], serde_json::to_value(expected).unwrap());
    eventually("only the witnesses to be left", || (rig.stat("/connections") == witnesses.count()).then_some(()));
}

/// Reads to the end and compares it with `answer`.
pub(crate) fn check_answer(name: &str, client: &mut Client, over: Over, answer: Answer) {
    let (operation, code, words, websocket_code) = match answer {
        Answer::Goodbye(code, websocket_code) => (op::DISCONNECT_REPLY, code, "", websocket_code),
        Answer::Refused(code, words) => (op::AUTH_REPLY, code, words, 1008),
    };
    let last = match client.recv() {
        Event::Packet(packet) => packet,
        other => panic!("{name}: {other:?} instead of an answer"),
    };
    assert_eq!(last.operation, operation, "{name}: {}", last.text());
    let body: serde_json::Value =
        serde_json::from_slice(&last.body).unwrap_or_else(|error| panic!("{name}: {error} in {}", last.text()));
    assert_eq!(body["code"], code, "{name}: {body}");
    let message = body["message"].as_str().unwrap();
    assert!(!message.is_empty() && message.contains(words), "{name}: {message}");
    assert!(message.len() <= 512, "{name}: a reason of {} bytes is no reason but an echo", message.len());
    match (over, client.recv()) {
        (Over::Tcp, Event::Closed(Closed::Fin)) => {}
        (Over::WebSocket, Event::Closed(Closed::WebSocket { code, reason })) if code == websocket_code => {
            assert!(!reason.is_empty(), "{name}: a close frame without a reason");
        }
        (_, other) => panic!("{name}: {other:?} instead of the end"),
    }
}

/// A well-formed packet.
pub(crate) fn request(operation: i32, body: &[u8]) -> Vec<u8> {
    packet(1, operation, 1, body)
}
