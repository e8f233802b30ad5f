//! A goim server of plain kernel sockets: it says what the test tells it to, so what the clients made of XDP have to hear
//! is known exactly.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use perf_tests::load::engine::xdp::rig::Rig;
use perf_tests::load::stamp::{Stamp, monotonic_ns};
use socket2::{Domain, SockRef, Socket, Type};
use wire::auth::AuthBody;
use wire::goim::{self, Header, op};

/// How long anything may take to happen.
const SOON: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// What was seen at one look.
#[derive(Debug, Default)]
pub(crate) struct Attended {
    pub(crate) came: u64,
    pub(crate) ended: u64,
    pub(crate) reset: u64,
}

pub(crate) struct SocketServer {
    /// `None` while nobody can come.
    listener: Option<TcpListener>,
    /// By client; `None` until it has come, and when it was let go.
    clients: Vec<Option<TcpStream>>,
    first_mid: i64,
}

impl SocketServer {
    /// Listens at `address` in the server's namespace, for `clients` clients with user ids from `first_mid` on.
    pub(crate) fn listen(rig: &Rig, address: SocketAddr, clients: u32, first_mid: i64) -> Self {
        let mut server = Self { listener: None, clients: (0..clients).map(|_| None).collect(), first_mid };
        server.listen_again(rig, address);
        server
    }

    /// Listens, when it did not.
    pub(crate) fn listen_again(&mut self, rig: &Rig, address: SocketAddr) {
        let listener = rig.in_server(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(4096).unwrap();
            TcpListener::from(socket)
        });
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        self.listener = Some(listener);
    }

    /// Lets everybody in who comes, until all are there, and has `answer` give what each is told to its auth; `None` closes
    /// without a word.
    pub(crate) fn welcome(&mut self, mut answer: impl FnMut(u32) -> Option<Vec<u8>>) {
        let mut come = 0;
        eventually("all clients have come", || {
            match self.listener.as_ref().expect("it listens").accept() {
                Ok((stream, _)) => {
                    self.welcome_one(stream, &mut answer);
                    come += 1;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            come == self.clients.len()
        });
    }

    /// Lets everybody in who has come since, and lets go whoever has ended or reset its connection. Says how many did the one
    /// and the other.
    pub(crate) fn attend(&mut self, mut answer: impl FnMut(u32) -> Option<Vec<u8>>) -> Attended {
        let mut attended = Attended::default();
        for slot in &mut self.clients {
            let Some(stream) = slot else { continue };
            stream.set_nonblocking(true).unwrap();
            let heard = stream.peek(&mut [0]);
            stream.set_nonblocking(false).unwrap();
            match heard {
                Ok(0) => attended.ended += 1,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => attended.reset += 1,
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            }
            *slot = None;
        }
        loop {
            match self.listener.as_ref().expect("it listens").accept() {
                Ok((stream, _)) => {
                    attended.came += 1;
                    self.welcome_one(stream, &mut answer);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return attended,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn welcome_one(&mut self, stream: TcpStream, answer: &mut impl FnMut(u32) -> Option<Vec<u8>>) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        self.take(stream, answer);
    }

    fn take(&mut self, mut stream: TcpStream, answer: &mut impl FnMut(u32) -> Option<Vec<u8>>) {
        let mut bytes = vec![0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        let packet = goim::parse(&bytes[..length], 4096).unwrap().expect("the auth packet comes in one segment");
        assert_eq!((packet.header.operation, packet.wire_bytes()), (op::AUTH, length), "and alone");
        let mid = AuthBody::parse(packet.body, "live").unwrap().mid;
        let number = (mid - self.first_mid) as usize;
        if let Some(answer) = answer(number as u32) {
            stream.write_all(&answer).unwrap();
            self.clients[number] = Some(stream);
        }
    }

    /// Says `bytes` to a client, in pieces of so many bytes each.
    pub(crate) fn say(&mut self, client: u32, bytes: &[u8], pieces: usize) {
        let stream = self.clients[client as usize].as_mut().expect("it was let in");
        for piece in bytes.chunks(pieces) {
            stream.write_all(piece).unwrap();
        }
    }

    /// Whether a client is connected, as far as is known here.
    pub(crate) fn is_there(&self, client: u32) -> bool {
        self.clients[client as usize].is_some()
    }

    /// Waits for a heartbeat of a client, and does not answer it.
    pub(crate) fn await_heartbeat(&mut self, client: u32) {
        let stream = self.clients[client as usize].as_mut().expect("it was let in");
        let mut bytes = [0; goim::HEADER_BYTES];
        stream.read_exact(&mut bytes).unwrap();
        let packet = goim::parse(&bytes, 0).unwrap().expect("a heartbeat has no body");
        assert_eq!(packet.header.operation, op::HEARTBEAT);
    }

    /// Takes the heartbeats that have come from a client, and says how many they are.
    pub(crate) fn take_heartbeats(&mut self, client: u32) -> usize {
        let mut taken = 0;
        while self.has_said(client) {
            self.await_heartbeat(client);
            taken += 1;
        }
        taken
    }

    /// Nobody can come any more.
    pub(crate) fn stop_listening(&mut self) {
        self.listener = None;
    }

    /// Whether a client has said something that was not taken yet.
    fn has_said(&self, client: u32) -> bool {
        let stream = self.clients[client as usize].as_ref().expect("it was let in");
        stream.set_nonblocking(true).unwrap();
        let said = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        said.is_ok_and(|length| length > 0)
    }

    /// Waits for a heartbeat of a client, which has to come as a packet and alone, and answers it.
    pub(crate) fn answer_heartbeat(&mut self, client: u32) {
        let stream = self.clients[client as usize].as_mut().expect("it was let in");
        let mut bytes = [0; goim::HEADER_BYTES];
        stream.read_exact(&mut bytes).unwrap();
        let packet = goim::parse(&bytes, 0).unwrap().expect("a heartbeat has no body");
        assert_eq!(packet.header.operation, op::HEARTBEAT);
        stream.write_all(&self::packet(op::HEARTBEAT_REPLY, &[0, 0, 0, 1])).unwrap();
    }

    /// Closes a client's connection in order.
    pub(crate) fn close(&mut self, client: u32) {
        self.clients[client as usize] = None;
    }

    /// Waits for the end of what a client says, and closes.
    pub(crate) fn see_off(&mut self, client: u32) {
        let mut stream = self.clients[client as usize].take().expect("it was let in");
        assert_eq!(stream.read_to_end(&mut Vec::new()).expect("it ends in order"), 0, "nothing in front of the end");
    }

    /// Waits until a client has reset its connection, after the end of what it said or before.
    pub(crate) fn await_reset(&mut self, client: u32) {
        let stream = self.clients[client as usize].take().expect("it was let in");
        eventually("a reset", || stream.take_error().unwrap().is_some());
    }

    /// Resets it.
    pub(crate) fn reset(&mut self, client: u32) {
        let stream = self.clients[client as usize].take().expect("it was let in");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// TCP connections of the server's namespace, in whatever state.
pub(crate) fn connections(rig: &Rig) -> usize {
    queues(rig).len()
}

/// Of these, those with something to send that was not acknowledged.
pub(crate) fn unheard(rig: &Rig) -> usize {
    queues(rig).iter().filter(|queues| !queues.starts_with("00000000:")).count()
}

/// Bytes to send, and to be read, of each.
fn queues(rig: &Rig) -> Vec<String> {
    const LISTENING: &str = "0A";
    let table = rig.in_server(|| std::fs::read_to_string("/proc/thread-self/net/tcp")).unwrap().unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] != LISTENING).map(|row| row[4].to_owned()).collect()
}

pub(crate) fn packet(operation: i32, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    Header { version: 1, operation, sequence: 0 }.put_packet(body, &mut packet);
    packet
}

/// A message of a run's first phase.
pub(crate) fn message(run: u32, room: u32, number: u64) -> Vec<u8> {
    message_of(run, 0, room, number)
}

pub(crate) fn message_of(run: u32, phase: u32, room: u32, number: u64) -> Vec<u8> {
    let mut body = vec![b'.'; 60];
    Stamp { run, room, phase, number, sent_ns: monotonic_ns() }.write(&mut body);
    packet(op::FIRST_OF_APPLICATION, &body)
}
