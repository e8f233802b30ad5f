//! One client of the goim dialect, blocking.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{Buf, BytesMut};
use wire::goim::{Header, Packets, op};
use wire::websocket::Opcode;
use wire::websocket::client::{parse_response, parse_server_frame, put_masked_frame, put_request};

use super::SOON;

/// Any key does: there is no cache between us and the edge.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The longest message that the edge sends in these tests.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

pub(crate) struct Client {
    stream: TcpStream,
    websocket: bool,
    unread: BytesMut,
}

impl Client {
    /// Connected, and on WebSocket upgraded.
    pub(crate) fn connect(port: u16, websocket: bool) -> Self {
        let mut client = Self { websocket, ..Self::over(TcpStream::connect(("127.0.0.1", port)).unwrap()) };
        if websocket {
            let mut request = Vec::new();
            put_request("127.0.0.1", "/sub", WEBSOCKET_KEY, "", &mut request);
            client.stream.write_all(&request).unwrap();
            let answer = loop {
                if let Some(answer) = parse_response(&client.unread, WEBSOCKET_KEY).unwrap() {
                    break answer;
                }
                assert!(client.fill(), "the edge closed instead of upgrading");
            };
            client.unread.advance(answer);
        }
        client
    }

    /// Over a plain TCP connection that stands.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self { stream, websocket: false, unread: BytesMut::new() }
    }

    /// Sends an auth packet; its answer is the first packet that comes.
    pub(crate) fn ask_in(&mut self, mid: i64, room: u32) {
        let body = format!(r#"{{"mid":{mid},"room_id":"live://{room}","platform":"web","accepts":[1000]}}"#);
        self.send(op::AUTH, body.as_bytes());
    }

    /// Sends one packet.
    pub(crate) fn send(&mut self, operation: i32, body: &[u8]) {
        self.try_send(operation, body).unwrap();
    }

    /// The same to an edge that may have ended the connection.
    pub(crate) fn try_send(&mut self, operation: i32, body: &[u8]) -> std::io::Result<()> {
        let mut packet = Vec::new();
        Header { version: 1, operation, sequence: 1 }.put_packet(body, &mut packet);
        let mut out = Vec::new();
        if self.websocket {
            put_masked_frame(Opcode::Binary, true, [1, 2, 3, 4], &packet, &mut out);
        } else {
            out = packet;
        }
        self.stream.write_all(&out)
    }

    /// The operations and bodies of the next packets, at least `count`; a batch is taken apart.
    pub(crate) fn next(&mut self, count: usize) -> Vec<(i32, Vec<u8>)> {
        let mut packets = Vec::new();
        while packets.len() < count {
            let taken = self.take(&mut packets);
            self.unread.advance(taken);
            if taken == 0 {
                assert!(self.fill(), "the edge closed after {} of {count} packets", packets.len());
            }
        }
        packets
    }

    /// Reads until the edge ends the connection, and gives the operations of what came before.
    pub(crate) fn until_the_end(&mut self) -> Vec<i32> {
        let mut packets = Vec::new();
        loop {
            let taken = self.take(&mut packets);
            self.unread.advance(taken);
            if taken == 0 && !self.fill() {
                return packets.into_iter().map(|(operation, _)| operation).collect();
            }
        }
    }

    /// Takes what stands at the front and is whole; gives its bytes.
    fn take(&self, packets: &mut Vec<(i32, Vec<u8>)>) -> usize {
        if !self.websocket {
            return collect(&self.unread, packets);
        }
        match parse_server_frame(&self.unread, MAX_MESSAGE_BYTES).unwrap() {
            Some((frame, bytes)) => {
                if frame.opcode == Opcode::Binary {
                    assert_eq!(collect(frame.payload, packets), frame.payload.len(), "a message holds whole packets");
                }
                bytes
            }
            None => 0,
        }
    }

    /// False at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut scratch = [0; 64 << 10];
        match self.stream.read(&mut scratch) {
            Ok(count) => {
                self.unread.extend_from_slice(&scratch[..count]);
                count > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came from the edge: {error}"),
        }
    }
}

/// Appends the packets at the start of `bytes` and gives how many bytes they were.
fn collect(bytes: &[u8], packets: &mut Vec<(i32, Vec<u8>)>) -> usize {
    let mut whole = Packets::new(bytes, MAX_MESSAGE_BYTES);
    let mut taken = 0;
    for packet in whole.by_ref() {
        let packet = packet.unwrap();
        taken += packet.wire_bytes();
        if packet.header.operation == op::RAW {
            collect(packet.body, packets);
        } else {
            packets.push((packet.header.operation, packet.body.to_vec()));
        }
    }
    taken
}
