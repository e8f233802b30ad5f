//! An edge without clients: one line, and an arbiter that takes what is new.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use bytes::BytesMut;
use wire::goim::Packets;
use wire::trunk::batch::Target;
use wire::trunk::{
    self, ChatUp, EdgeFrame, Hello, Joined, NodeAddress, PROTOCOL, Position, Push, SessionBatch, SessionEvent,
    TierFrame, Welcome, edge_frame, session_event, tier_frame,
};

use super::DEADLINE;

/// A packet as an arbiter hands it on.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    pub partition: u32,
    pub offset: u64,
    pub target: Target,
    pub operation: i32,
    pub body: String,
}

impl Delivered {
    pub fn room(&self) -> &str {
        match &self.target {
            Target::Room(room) => room,
            _ => "",
        }
    }
}

/// Takes what is behind its positions from frames, whoever cut them.
#[derive(Debug, Clone, Default)]
pub struct Arbiter {
    pub positions: BTreeMap<u32, u64>,
    pub delivered: Vec<Delivered>,
    pub lost: Vec<(u32, u64, u64)>,
}

impl Arbiter {
    pub fn take(&mut self, push: &Push) {
        let position = self.positions.entry(push.partition).or_default();
        assert!(push.previous <= *position, "a gap: at {position}, and the frame is behind {}", push.previous);
        let mut fresh = Vec::new();
        for batch in &push.batches {
            assert!(batch.offsets.is_sorted(), "offsets of a batch ascend");
            let mut packets = Packets::new(&batch.packets, 4 << 20);
            for offset in &batch.offsets {
                let packet = packets.next().expect("a packet for each offset").expect("packets are whole");
                assert_eq!((packet.header.version, packet.header.sequence), (1, 0));
                if *offset > *position {
                    fresh.push(Delivered {
                        partition: push.partition,
                        offset: *offset,
                        target: batch.target.clone().expect("a batch has a target"),
                        operation: packet.header.operation,
                        body: String::from_utf8_lossy(packet.body).into_owned(),
                    });
                }
            }
            assert!(packets.rest().is_empty(), "an offset for each packet");
        }
        let mut offsets: Vec<u64> = fresh.iter().map(|packet| packet.offset).collect();
        offsets.sort_unstable();
        assert!(offsets.iter().copied().eq(*position + 1..=push.last.max(*position)), "each offset once, none missing");
        *position = push.last.max(*position);
        self.delivered.extend(fresh);
    }

    /// Bodies for `live://{room}`, in the order in which they came.
    pub fn bodies(&self, room: &str) -> Vec<&str> {
        let room = format!("live://{room}");
        self.delivered.iter().filter(|packet| packet.room() == room).map(|packet| packet.body.as_str()).collect()
    }
}

/// Who the edge says it is.
pub fn hello(edge: &str, incarnation: u64) -> Hello {
    Hello {
        protocol: PROTOCOL,
        edge: edge.to_owned(),
        incarnation,
        node: edge.bytes().last().map_or(0, u32::from),
        address: Some(NodeAddress {
            hostname: format!("{edge}.example"),
            addresses: vec!["127.0.0.1".to_owned()],
            tcp_port: 3101,
            ws_port: 3102,
            weight: 10,
            ..NodeAddress::default()
        }),
        ..Hello::default()
    }
}

/// One line.
pub struct Edge {
    stream: TcpStream,
    buffer: BytesMut,
    pub welcome: Welcome,
    pub arbiter: Arbiter,
    /// What came and is no push.
    pub other: Vec<tier_frame::Body>,
}

impl Edge {
    /// Connects and expects to be welcome.
    pub fn connect(trunk: SocketAddr, hello: Hello) -> Self {
        Self::try_connect(trunk, hello).unwrap_or_else(|body| panic!("not welcome: {body:?}"))
    }

    /// Connects; what came instead of `Welcome` is the error.
    pub fn try_connect(trunk: SocketAddr, hello: Hello) -> Result<Self, Option<tier_frame::Body>> {
        Self::open(trunk, edge_frame::Body::Hello(hello))
    }

    /// Connects with any first message.
    pub fn open(trunk: SocketAddr, first: edge_frame::Body) -> Result<Self, Option<tier_frame::Body>> {
        let stream = TcpStream::connect(trunk).expect("the trunk listens");
        let mut edge = Self {
            stream,
            buffer: BytesMut::new(),
            welcome: Welcome::default(),
            arbiter: Arbiter::default(),
            other: Vec::new(),
        };
        edge.send(first);
        match edge.next() {
            Some(tier_frame::Body::Welcome(welcome)) => {
                let positions = welcome.positions.iter().map(|at| (at.partition, at.offset));
                edge.arbiter.positions = positions.collect();
                edge.welcome = welcome;
                Ok(edge)
            }
            other => Err(other),
        }
    }

    /// The `Hello` that goes on where this edge is.
    pub fn resume(&self, hello: Hello) -> Hello {
        let positions = self.arbiter.positions.iter();
        let positions = positions.map(|(partition, offset)| Position { partition: *partition, offset: *offset });
        Hello { bus: self.welcome.bus, positions: positions.collect(), ..hello }
    }

    pub fn send(&mut self, body: edge_frame::Body) {
        // A line that the tier has closed shows when it is read.
        let _ = self.stream.write_all(&trunk::encode(&EdgeFrame { body: Some(body) }));
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the line is up");
    }

    /// The next message; `None` when the line has ended.
    pub fn next(&mut self) -> Option<tier_frame::Body> {
        let started = Instant::now();
        loop {
            if let Some(frame) = trunk::decode::<TierFrame>(&mut self.buffer).expect("the tier speaks the trunk") {
                return Some(frame.body.expect("a kind that we know"));
            }
            let left = DEADLINE.checked_sub(started.elapsed()).expect("nothing came");
            self.stream.set_read_timeout(Some(left)).expect("a time-out above zero");
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Takes messages in until `done` says so of the arbiter and of what else came.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Arbiter, &[tier_frame::Body]) -> bool) {
        let started = Instant::now();
        while !done(&self.arbiter, &self.other) {
            assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
            let body = self.next().unwrap_or_else(|| panic!("{what}: the line ended"));
            self.take(body);
        }
    }

    /// Reads on until the tier closes the line.
    pub fn until_closed(&mut self) {
        while let Some(body) = self.next() {
            self.take(body);
        }
    }

    pub fn until_delivered(&mut self, count: usize) {
        self.until(&format!("{count} packets"), |arbiter, _| arbiter.delivered.len() >= count);
        assert_eq!(self.arbiter.delivered.len(), count);
    }

    fn take(&mut self, body: tier_frame::Body) {
        match body {
            tier_frame::Body::Push(push) => self.arbiter.take(&push),
            tier_frame::Body::Lost(lost) => {
                self.arbiter.lost.push((lost.partition, lost.first, lost.last));
                self.arbiter.positions.insert(lost.partition, lost.last);
            }
            other => self.other.push(other),
        }
    }

    pub fn chat(&mut self, id: u64, room: &str, body: &str) {
        self.send(edge_frame::Body::Chat(ChatUp {
            id,
            place: place(1),
            mid: 7,
            room: format!("live://{room}"),
            body: body.as_bytes().to_vec().into(),
        }));
    }

    /// (id, code) of the answers to chats so far.
    pub fn chat_results(&self) -> Vec<(u64, i32)> {
        let results = self.other.iter().filter_map(|body| match body {
            tier_frame::Body::Chat(result) => Some((result.id, result.code)),
            _ => None,
        });
        results.collect()
    }

    pub fn sessions(&mut self, resync: bool, events: Vec<SessionEvent>) {
        self.send(edge_frame::Body::Sessions(SessionBatch { resync, events }));
    }
}

/// The text of a place.
pub fn place(number: u32) -> String {
    format!("{number:032x}")
}

/// Somebody came.
pub fn joined(number: u32, key: &str, room: &str, address: &str) -> SessionEvent {
    let joined = Joined {
        mid: i64::from(number),
        key: key.to_owned(),
        room: room.to_owned(),
        address: address.to_owned(),
        platform: "web".to_owned(),
    };
    SessionEvent { place: place(number), event: Some(session_event::Event::Joined(joined)) }
}
