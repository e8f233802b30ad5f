//! Frames that the program cannot send, because nothing came that it could answer: a client's SYN, its heartbeat, its
//! goodbye.

use std::net::SocketAddr;

use abi::clients::{Client, Script, initial_sequence, next_initial_sequence, state};
use wire::goim::{Header, op};

use super::rig::{GATEWAY_MAC, SERVER_MAC, client_address_v6};
use super::script::as_said;
use crate::load::scenario::Transport;
use crate::websocket::{GOING_AWAY, opcode, put_frame};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// What fits into a frame of an Ethernet link without TCP's options. No timestamps, so that an answer has 40 bytes of
/// headers, and no window scaling, which a client that takes everything at once has no need of.
const SEGMENT_SIZE_OPTION: [u8; 4] = [2, 4, 0x05, 0xb4];
pub(super) const WINDOW: u16 = u16::MAX;
const HOPS: u8 = 64;
const TCP: u8 = 6;

/// Makes them, from where the clients live to `server`.
#[derive(Clone)]
pub(super) struct Frames {
    script: Script,
    server: SocketAddr,
    /// As the server hears it.
    heartbeat: Vec<u8>,
    /// What a client says before its end.
    goodbye: Vec<u8>,
}

impl Frames {
    pub(super) fn new(script: Script, server: SocketAddr, transport: Transport) -> Self {
        let packet = Header { version: 1, operation: op::HEARTBEAT, sequence: 2 }.encode(0);
        let mut goodbye = Vec::new();
        if transport == Transport::Websocket {
            put_frame(true, opcode::CLOSE, &GOING_AWAY, [0; 4], &mut goodbye);
        }
        Self { script, server, heartbeat: as_said(transport, packet.to_vec()), goodbye }
    }

    /// Whether a client says an auth packet at all.
    pub(super) fn greet(&self) -> bool {
        self.script.greeting_bytes > 0
    }

    /// The SYN of client `number`.
    pub(super) fn syn(&self, number: u32) -> Vec<u8> {
        self.syn_from(number, initial_sequence(number, self.script.secret))
    }

    /// A SYN of client `number` with an initial sequence number that is not its first.
    pub(super) fn syn_from(&self, number: u32, sequence: u32) -> Vec<u8> {
        self.frame(number, (sequence, 0), SYN, WINDOW, &SEGMENT_SIZE_OPTION, &[])
    }

    /// The initial sequence number of a client's next connection, when the one before has come to `next_out`.
    pub(super) fn sequence_after(&self, number: u32, next_out: u32) -> u32 {
        next_initial_sequence(number, self.script.secret, next_out)
    }

    /// The heartbeat of client `number`, which stands as `client`, and offers such a window.
    pub(super) fn heartbeat(&self, number: u32, client: &Client, window: u16) -> Vec<u8> {
        self.frame(number, (client.next_out, client.next_in), PSH | ACK, window, &[], &self.heartbeat)
    }

    /// The end of what client `number` says, which stands as `client`.
    pub(super) fn fin(&self, number: u32, client: &Client) -> Vec<u8> {
        let place = (client.next_out, client.next_in);
        self.frame(number, place, FIN | ACK, WINDOW, &[], self.goodbye_of(client))
    }

    /// The byte that the server awaits when it has heard that end.
    pub(super) fn behind_fin(&self, client: &Client) -> u32 {
        client.next_out.wrapping_add(self.goodbye_of(client).len() as u32 + 1)
    }

    /// Before the upgrade there are no frames to say anything in.
    fn goodbye_of(&self, client: &Client) -> &[u8] {
        if state::is_in(client.state) || client.state == state::LEAVING { &self.goodbye } else { &[] }
    }

    /// The end of the connection of client `number`, which stands as `client`.
    pub(super) fn reset(&self, number: u32, client: &Client) -> Vec<u8> {
        self.frame(number, (client.next_out, client.next_in), RST | ACK, WINDOW, &[], &[])
    }

    /// Client `number`, which stands as `client`, says how far it has heard, and what it has room for.
    pub(super) fn acknowledgement(&self, number: u32, client: &Client, window: u16) -> Vec<u8> {
        self.frame(number, (client.next_out, client.next_in), ACK, window, &[], &[])
    }

    fn frame(
        &self,
        number: u32,
        (sequence, acknowledged): (u32, u32),
        flags: u8,
        window: u16,
        options: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let Script { first_address, first_port, ports_per_address, .. } = self.script;
        let source = first_address + number / ports_per_address;
        let port = (first_port + number % ports_per_address) as u16;
        let header_words = (20 + options.len() as u8) / 4;
        let tcp_bytes = (20 + options.len() + payload.len()) as u16;
        let mut frame = Vec::with_capacity(54 + usize::from(tcp_bytes));
        frame.extend(SERVER_MAC);
        frame.extend(GATEWAY_MAC);
        let addresses_at = match self.server {
            SocketAddr::V4(server) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + tcp_bytes).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, HOPS, TCP, 0, 0]);
                frame.extend(source.to_be_bytes());
                frame.extend(server.ip().octets());
                let checksum = !sum(&frame[14..34], 0);
                frame[24..26].copy_from_slice(&checksum.to_be_bytes());
                26
            }
            SocketAddr::V6(server) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(tcp_bytes.to_be_bytes());
                frame.extend([TCP, HOPS]);
                frame.extend(client_address_v6(source).octets());
                frame.extend(server.ip().octets());
                22
            }
        };
        let tcp_at = frame.len();
        frame.extend(port.to_be_bytes());
        frame.extend(self.server.port().to_be_bytes());
        frame.extend(sequence.to_be_bytes());
        frame.extend(acknowledged.to_be_bytes());
        frame.extend([header_words << 4, flags]);
        frame.extend(window.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(options);
        frame.extend(payload);
        // From the addresses on, with the pseudo header's length and protocol.
        let checksum = !sum(&frame[addresses_at..], u32::from(tcp_bytes) + u32::from(TCP));
        frame[tcp_at + 16..tcp_at + 18].copy_from_slice(&checksum.to_be_bytes());
        frame
    }
}

/// One's complement sum of `bytes` on top of `seed`.
fn sum(bytes: &[u8], seed: u32) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum = seed + words.sum::<u32>();
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + once) as u16
}
