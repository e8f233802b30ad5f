//! A goim server small enough to be read at once: clients in rooms, a publisher API, and faults on demand.
//!
//! Plain threads, one per connection. It is the known quantity that generator and probe are tested against, so it does
//! exactly what a test's [`Mischief`] says and nothing clever.
#![allow(dead_code)] // Each test binary uses its own part of it.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use perf_tests::websocket::{accept_of, opcode};
use wire::auth::AuthBody;
use wire::goim::{self, Header, op};
use wire::trunk::Dialect;

/// What happens to one message on its way to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Send,
    Lose,
    Twice,
    /// Behind the next one.
    Late,
    /// In a packet of operation 9, as goim's Job does.
    Batch,
    /// In two writes, torn in the middle of the header.
    Torn,
    /// Not at all: the connection is closed instead.
    Close,
}

/// By user id and the count of messages for that client, from 0.
pub(crate) type Mischief = fn(i64, u64) -> Act;

struct Member {
    mid: i64,
    stream: TcpStream,
    websocket: bool,
    count: u64,
    held: Option<Vec<u8>>,
}

#[derive(Default)]
struct House {
    rooms: HashMap<String, Vec<Member>>,
}

pub(crate) struct TinyGoim {
    pub(crate) tcp: SocketAddr,
    pub(crate) websocket: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// A client with this user id is refused with -101.
pub(crate) const UNWELCOME_MID: i64 = 1_000_013;

/// A client with this user id is answered twice for each heartbeat.
pub(crate) const ECHOED_MID: i64 = 2_000_000;

impl TinyGoim {
    /// Serves on loopback until the test's process ends.
    pub(crate) fn start(mischief: Mischief) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), mischief)
    }

    /// Serves at an address of this thread's network namespace until the test's process ends; the publisher on loopback.
    pub(crate) fn start_at(address: IpAddr, mischief: Mischief) -> Self {
        let house = Arc::new(Mutex::new(House::default()));
        let listen = |address: IpAddr| TcpListener::bind((address, 0)).unwrap();
        let (tcp, websocket, http) = (listen(address), listen(address), listen(Ipv4Addr::LOCALHOST.into()));
        let addresses = Self {
            tcp: tcp.local_addr().unwrap(),
            websocket: websocket.local_addr().unwrap(),
            http: http.local_addr().unwrap(),
        };
        for (listener, is_websocket) in [(tcp, false), (websocket, true)] {
            let house = Arc::clone(&house);
            serve(listener, move |stream| {
                let Ok(handle) = stream.try_clone() else { return };
                client(stream, is_websocket, &house);
                // The room still holds the member; the connection ends all the same.
                let _ = handle.shutdown(Shutdown::Both);
            });
        }
        serve(http, move |stream| {
            publisher(stream, &house, mischief);
        });
        addresses
    }
}

fn serve(listener: TcpListener, each: impl Fn(TcpStream) + Send + Sync + Clone + 'static) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let each = each.clone();
            thread::spawn(move || each(stream));
        }
    });
}

/// One client from its first byte to its last. `None` ends it.
fn client(mut stream: TcpStream, websocket: bool, house: &Mutex<House>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    if websocket {
        upgrade(&mut stream)?;
    }
    let (mut input, mut is_echoed) = (Vec::new(), false);
    loop {
        let (header, body) = next_packet(&mut stream, websocket, &mut input)?;
        let reply = |operation, body: &[u8]| packet(Header { operation, ..header }, body);
        let answer = match header.operation {
            op::AUTH => {
                let auth = AuthBody::parse(&body, "live").ok()?;
                is_echoed = auth.mid == ECHOED_MID;
                if auth.mid == UNWELCOME_MID {
                    let body = br#"{"code":-101,"message":"bad token"}"#;
                    write(&stream, websocket, &reply(op::AUTH_REPLY, body))?;
                    return None;
                }
                let granted: &[u8] = if auth.dialect == Dialect::Bilibili { br#"{"code":0}"# } else { b"" };
                // Under the lock, so that no push overtakes the grant.
                let mut house = house.lock().unwrap();
                write(&stream, websocket, &reply(op::AUTH_REPLY, granted))?;
                let stream = stream.try_clone().ok()?;
                let member = Member { mid: auth.mid, stream, websocket, count: 0, held: None };
                house.rooms.entry(auth.room?.to_string()).or_default().push(member);
                continue;
            }
            op::HEARTBEAT => reply(op::HEARTBEAT_REPLY, &7_u32.to_be_bytes()).repeat(1 + usize::from(is_echoed)),
            op::SEND_MESSAGE if body == b"forbidden" => {
                reply(op::SEND_MESSAGE_REPLY, br#"{"code":-403,"message":"no"}"#)
            }
            // A push goes before the reply, so that a probe has to keep it.
            op::SEND_MESSAGE => {
                let push = packet(Header { version: 1, operation: 1000, sequence: 0 }, &body);
                write_alone(house, &stream, websocket, &push)?;
                reply(op::SEND_MESSAGE_REPLY, b"")
            }
            request @ (op::CHANGE_ROOM | op::SUBSCRIBE | op::UNSUBSCRIBE) => reply(request + 1, b""),
            _ => return None,
        };
        write_alone(house, &stream, websocket, &answer)?;
    }
}

/// Not between the two writes of a torn packet.
fn write_alone(house: &Mutex<House>, stream: &TcpStream, websocket: bool, packets: &[u8]) -> Option<()> {
    let _alone = house.lock().unwrap();
    write(stream, websocket, packets)
}

fn upgrade(stream: &mut TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let path_is_right = lines.next()?.starts_with("GET /sub ");
    let mut key = String::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some(("Sec-WebSocket-Key", value)) = line.split_once(": ") {
            value.clone_into(&mut key);
        }
    }
    if !path_is_right {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").ok()?;
        return None;
    }
    let accept = accept_of(&key);
    write!(stream, "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").ok()
}

fn next_packet(stream: &mut TcpStream, websocket: bool, input: &mut Vec<u8>) -> Option<(Header, Vec<u8>)> {
    loop {
        if let Some(packet) = goim::parse(input, goim::MAX_BODY_BYTES).ok()? {
            let (found, taken) = ((packet.header, packet.body.to_vec()), packet.wire_bytes());
            input.drain(..taken);
            return Some(found);
        }
        if websocket {
            input.extend(next_message(stream)?);
        } else {
            let mut scratch = [0; 4096];
            match stream.read(&mut scratch).ok()? {
                0 => return None,
                count => input.extend(&scratch[..count]),
            }
        }
    }
}

fn next_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    assert_eq!(head[1] & 0x80, 0x80, "a client has to mask");
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            usize::from(u16::from_be_bytes(length))
        }
        127 => return None,
        short => usize::from(short),
    };
    let (mut mask, mut payload) = ([0; 4], vec![0; length]);
    stream.read_exact(&mut mask).ok()?;
    stream.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    match head[0] & 0x0f {
        opcode::BINARY => Some(payload),
        opcode::PING => {
            stream.write_all(&framed(opcode::PONG, &payload)).ok()?;
            Some(Vec::new())
        }
        _ => None,
    }
}

/// Answers requests until the publisher goes.
fn publisher(stream: TcpStream, house: &Mutex<House>, mischief: Mischief) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            match header.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let field = |name: &str| path.split(['?', '&']).find_map(|part| part.strip_prefix(name)).map(str::to_owned);
        let answer = match (path.starts_with("/goim/push/room?"), field("operation="), field("room=")) {
            (true, Some(operation), Some(room)) => {
                let header = Header { version: 1, operation: operation.parse().ok()?, sequence: 0 };
                let kind = field("type=").unwrap_or_default();
                push(house, &format!("{kind}://{room}"), &packet(header, &body), mischief);
                r#"{"code":0,"message":""}"#
            }
            _ => r#"{"code":-400,"message":"bad request"}"#,
        };
        write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).ok()?;
    }
}

fn push(house: &Mutex<House>, room: &str, packet: &[u8], mischief: Mischief) {
    for member in house.lock().unwrap().rooms.entry(room.to_owned()).or_default() {
        let act = mischief(member.mid, member.count);
        member.count += 1;
        let held = member.held.take();
        // A client that is gone is no news to a test that sent it away.
        let _ = deliver(member, act, packet);
        if let Some(held) = held {
            let _ = write(&member.stream, member.websocket, &held);
        }
    }
}

fn deliver(member: &mut Member, act: Act, packet: &[u8]) -> Option<()> {
    let (stream, websocket) = (&member.stream, member.websocket);
    match act {
        Act::Send => write(stream, websocket, packet),
        Act::Lose => Some(()),
        Act::Twice => write(stream, websocket, packet).and_then(|()| write(stream, websocket, packet)),
        Act::Late => {
            member.held = Some(packet.to_vec());
            Some(())
        }
        Act::Batch => {
            let outer = self::packet(Header { version: 1, operation: op::RAW, sequence: 0 }, packet);
            write(stream, websocket, &outer)
        }
        Act::Torn => {
            let bytes = if websocket { framed(opcode::BINARY, packet) } else { packet.to_vec() };
            let mut stream = stream;
            stream.write_all(&bytes[..7]).ok()?;
            // Lets the reader see the torn part alone on most machines; the outcome must be the same if it does not.
            thread::yield_now();
            stream.write_all(&bytes[7..]).ok()
        }
        Act::Close => stream.shutdown(Shutdown::Both).ok(),
    }
}

fn packet(header: Header, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    header.put_packet(body, &mut packet);
    packet
}

fn framed(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    if payload.len() < 126 {
        frame.push(payload.len() as u8);
    } else {
        frame.push(126);
        frame.extend((payload.len() as u16).to_be_bytes());
    }
    frame.extend(payload);
    frame
}

fn write(stream: &TcpStream, websocket: bool, packets: &[u8]) -> Option<()> {
    let mut stream = stream;
    if websocket { stream.write_all(&framed(opcode::BINARY, packets)).ok() } else { stream.write_all(packets).ok() }
}
