//! What an idle connection costs in user space, all indexes included: every byte that the process holds more than
//! before the shard was there, by the number of its clients.
//!
//! One test, because all of it counts what the same process does. The kernel's own cost, 3 to 4 KB a socket, is not in it.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod counting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use counting::Heap;
use push_daemon::config::{Config, SendPath};
use push_daemon::shard::news::{News, NewsDesk, NewsIntake};
use push_daemon::shard::order::{Admitted, Order};
use push_daemon::shard::presence::Presence;
use push_daemon::shard::{MergeWindows, Running, ShardSettings, spawn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wire::goim::{HEADER_BYTES, Header, op};
use wire::websocket::Opcode;
use wire::websocket::client::{put_masked_frame, put_request};

/// Tables double; just above a power of two they are emptiest, which is the worst for this figure.
const CLIENTS: u32 = 8_300;

/// A bound on the whole: what a shard has once, whatever the number of its clients, is in it too.
const TCP_BYTES: i64 = 160;

/// The same for a WebSocket client.
const WEBSOCKET_BYTES: i64 = 200;

/// How long anything may take that has to happen.
const SOON: Duration = Duration::from_secs(20);

/// Clients of one kind, on one shard.
struct Shape {
    name: &'static str,
    websocket: bool,
    members_per_room: u32,
    /// All ask at once, before the first is answered, as after an outage.
    storm: bool,
    bound: i64,
}

const SHAPES: [Shape; 4] = [
    Shape { name: "TCP, one room", websocket: false, members_per_room: CLIENTS, storm: false, bound: TCP_BYTES },
    Shape { name: "TCP, rooms of ten", websocket: false, members_per_room: 10, storm: true, bound: TCP_BYTES },
    Shape {
        name: "WebSocket, one room",
        websocket: true,
        members_per_room: CLIENTS,
        storm: true,
        bound: WEBSOCKET_BYTES,
    },
    Shape {
        name: "WebSocket, rooms of ten",
        websocket: true,
        members_per_room: 10,
        storm: false,
        bound: WEBSOCKET_BYTES,
    },
];

fn start(desk: NewsDesk) -> (Running, (SocketAddr, SocketAddr)) {
    let Config { shard, limits, bilibili, .. } = Config::default();
    let settings = ShardSettings {
        id: 0,
        node: 1,
        cpu: None,
        capacity: CLIENTS,
        tcp: vec!["127.0.0.1:0".parse().unwrap()],
        websocket: vec!["127.0.0.1:0".parse().unwrap()],
        backlog: 4_096,
        accepts_per_turn: shard.accepts_per_turn.count(),
        most_asking: CLIENTS,
        slice_sends: shard.slice_sends.count(),
        turn_sends: shard.turn_sends.count(),
        rest_ms: shard.rest_ms.get_u32(),
        order_queue: shard.order_queue.count(),
        send: SendPath::Auto,
        backlog_bytes: shard.backlog_bytes.count(),
        block_bytes: shard.block_bytes.count(),
        merge: MergeWindows::default(),
        bilibili_room_type: bilibili.room_type.into(),
        limits,
        seat: None,
    };
    let (running, (tcp, websocket)) = spawn(settings, desk, &Presence::new(1, CLIENTS)).unwrap();
    (running, (tcp[0], websocket[0]))
}

fn connect(to: SocketAddr, shape: &Shape, number: u32) -> TcpStream {
    let mut client = TcpStream::connect(to).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let room = number / shape.members_per_room;
    let body = format!(r#"{{"mid":{},"room_id":"live://{room}","platform":"web","accepts":[1000]}}"#, number + 1);
    let (mut packet, mut out) = (Vec::new(), Vec::new());
    Header { version: 1, operation: op::AUTH, sequence: 1 }.put_packet(body.as_bytes(), &mut packet);
    if shape.websocket {
        put_request("127.0.0.1", "/sub", "dGhlIHNhbXBsZSBub25jZQ==", "Cookie: session=0123456789\r\n", &mut out);
        put_masked_frame(Opcode::Binary, true, [1, 2, 3, 4], &packet, &mut out);
    } else {
        out = packet;
    }
    client.write_all(&out).unwrap();
    client
}

/// Lets the next who asks in.
fn admit_one(news: &mut NewsIntake, running: &Running) {
    loop {
        let Some(told) = news.try_next() else {
            std::thread::yield_now();
            continue;
        };
        let News::Auth { place, body, .. } = told else { continue };
        let room = body.room.map(|room| room.as_str().into());
        let admitted =
            Admitted { mid: body.mid, key: None, room, accepts: body.accepts, rooms: None, address: String::new() };
        let mut order = Order::Admitted(place, Box::new(admitted));
        while let Err(full) = running.handle.queue(order) {
            running.handle.wake();
            order = full;
            std::thread::yield_now();
        }
        return running.handle.wake();
    }
}

/// Reads the answer to the upgrade and to the auth packet, which end what the edge sends to an idle client.
fn hear_answer(client: &mut TcpStream, websocket: bool) {
    let mut byte = [0];
    let mut last_four = [0; 4];
    while websocket && last_four != *b"\r\n\r\n" {
        client.read_exact(&mut byte).unwrap();
        last_four.rotate_left(1);
        last_four[3] = byte[0];
    }
    let mut answer = [0; 2 + HEADER_BYTES];
    let length = if websocket { 2 + HEADER_BYTES } else { HEADER_BYTES };
    client.read_exact(&mut answer[..length]).unwrap();
    assert_eq!(answer[length - HEADER_BYTES..][8..12], op::AUTH_REPLY.to_be_bytes());
}

fn bytes_per_client(shape: &Shape, desk: &NewsDesk, news: &mut NewsIntake) -> i64 {
    let mut clients: Vec<TcpStream> = Vec::with_capacity(CLIENTS as usize);
    let before = Heap::of_all();
    let (running, (tcp, websocket)) = start(desk.clone());
    let to = if shape.websocket { websocket } else { tcp };
    for number in 0..CLIENTS {
        clients.push(connect(to, shape, number));
        if !shape.storm {
            admit_one(news, &running);
        }
    }
    if shape.storm {
        (0..CLIENTS).for_each(|_| admit_one(news, &running));
    }
    clients.iter_mut().for_each(|client| hear_answer(client, shape.websocket));
    while running.counters.joined.get() < u64::from(CLIENTS) {
        std::thread::yield_now();
    }
    // The news that all are in wait in a queue that was there before; what they hold goes with them. What the way in
    // needed goes within a tick or two.
    let deadline = Instant::now() + SOON;
    let bytes = loop {
        while news.try_next().is_some() {}
        let bytes = (Heap::of_all() - before).bytes / i64::from(CLIENTS);
        if bytes <= shape.bound || Instant::now() >= deadline {
            break bytes;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(running.handle.queue(Order::Stop).is_ok());
    running.handle.wake();
    running.thread.join().unwrap().unwrap();
    bytes
}

#[test]
fn an_idle_connection_costs_little_memory() {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    if limit.is_some_and(|limit| limit < u64::from(CLIENTS) + 200) {
        println!("skipped: {CLIENTS} connections need more descriptors than {limit:?}");
        return;
    }
    // One desk for all: its memory is there before and after.
    let (desk, mut news) = NewsDesk::open(2 * CLIENTS as usize).unwrap();
    for shape in &SHAPES {
        let bytes = bytes_per_client(shape, &desk, &mut news);
        println!("{}: {bytes} bytes", shape.name);
        assert!(bytes <= shape.bound, "{}: {bytes} bytes a client, over {}", shape.name, shape.bound);
    }
}
