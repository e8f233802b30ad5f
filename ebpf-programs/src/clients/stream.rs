//! goim packets in the bytes of the stream, wherever segments cut them.
//!
//! Packets that are wholly inside a segment are read as a whole. Of one that is cut, the 48 bytes that matter, header
//! and stamp, are taken byte by byte into the client's state, which is why 32 bytes are enough for it.

use abi::clients::{Client, Count, GARBLED, MAX_PACKET_BYTES, STAMP_END, Script, mark, state};
use aya_ebpf::programs::XdpContext;

use crate::{
    books,
    frame::{load, load_into, whole},
    maps::count,
};

/// The smallest packet is a header, and this many fit into a segment of 1460 bytes.
const MAX_PACKETS: u32 = 1460 / HEADER_BYTES + 1;

const HEADER_BYTES: u32 = 16;
/// `PUT1`.
const MAGIC: u32 = u32::from_be_bytes(*b"PUT1");

const HEARTBEAT_REPLY: u32 = 3;
const SEND_MESSAGE_REPLY: u32 = 5;
const AUTH_REPLY: u32 = 8;
const FIRST_OF_APPLICATION: u32 = 1000;

/// The next bytes of a client's stream, and where they stand in the frame. One value, so that a function of the kernel's,
/// which takes five at most, takes it.
pub struct Bytes<'a> {
    pub ctx: &'a XdpContext,
    pub script: &'a Script,
    /// The client's.
    pub number: u32,
    /// Where the bytes not read yet begin.
    pub at: u32,
    /// Where they end.
    pub to: u32,
}

/// Reads them all. A function of its own: the stack of one would not do for everything.
#[inline(never)]
pub fn take(bytes: &mut Bytes<'_>, client: &mut Client) {
    if client.at != 0 {
        take_piece(bytes, client);
        if client.at != 0 {
            return;
        }
    }
    for _ in 0..MAX_PACKETS {
        if !take_packet(bytes, client) {
            break;
        }
    }
    if bytes.at < bytes.to {
        take_piece(bytes, client);
    }
}

/// Takes a packet that is there as a whole. False when none is.
#[inline(always)]
fn take_packet(bytes: &mut Bytes<'_>, client: &mut Client) -> bool {
    let Bytes { ctx, script, number, at, to } = *bytes;
    if to - at < HEADER_BYTES {
        return false;
    }
    let Some(header) = load::<16>(ctx, at) else { return false };
    let length = whole(&header, 0);
    // One that is no length is found out by whoever takes the piece.
    if !is_length(length) || length > to - at {
        return false;
    }
    client.marks |= kind_of(whole(&header, 8));
    client.at = if length < u32::from(STAMP_END) { length as u8 } else { STAMP_END };
    if length >= u32::from(STAMP_END) {
        let Some(stamp) = load::<32>(ctx, at + HEADER_BYTES) else { return false };
        if whole(&stamp, 0) != MAGIC || whole(&stamp, 4) != script.run {
            client.marks |= mark::FOREIGN;
        }
        if whole(&stamp, 8) != stream_of(script, number) {
            client.marks |= mark::MISROUTED;
        }
        if whole(&stamp, 12) != script.phase {
            client.marks |= mark::STRAGGLER;
        }
        client.field = whole(&stamp, 20);
        client.sent_ns = u64::from(whole(&stamp, 24)) << 32 | u64::from(whole(&stamp, 28));
    }
    deliver(script, client);
    bytes.at = at + length;
    true
}

/// Takes what is there of the packet under way, or the beginning of one.
#[inline(never)]
fn take_piece(bytes: &mut Bytes<'_>, client: &mut Client) {
    let here = bytes.to - bytes.at;
    if client.at < STAMP_END {
        let most = u32::from(STAMP_END - client.at);
        let length = if here < most { here } else { most };
        let mut piece = [0_u8; STAMP_END as usize];
        if length == 0 || length > u32::from(STAMP_END) || !load_into(bytes.ctx, bytes.at, &mut piece, length) {
            return;
        }
        for (place, byte) in piece.iter().enumerate() {
            if place as u32 >= length {
                break;
            }
            take_byte(bytes.script, bytes.number, client, *byte);
            bytes.at += 1;
            if client.at == GARBLED {
                break;
            }
            if client.at >= 4 && client.left == 0 {
                return deliver(bytes.script, client);
            }
        }
    }
    match client.at {
        // Nothing behind it can be told apart.
        GARBLED => bytes.at = bytes.to,
        // The rest of the body, which nobody reads.
        STAMP_END => {
            let here = bytes.to - bytes.at;
            let rest = if client.left < here { client.left } else { here };
            client.left -= rest;
            bytes.at += rest;
            if client.left == 0 {
                deliver(bytes.script, client);
            }
        }
        _ => {}
    }
}

/// One byte of header or stamp.
#[inline(always)]
fn take_byte(script: &Script, number: u32, client: &mut Client, byte: u8) {
    let at = client.at;
    client.at += 1;
    if at < 4 {
        client.left = client.left << 8 | u32::from(byte);
        if at == 3 {
            if !is_length(client.left) {
                garble(client);
                return;
            }
            client.left -= 4;
        }
        return;
    }
    client.left -= 1;
    let expected = match at >> 2 {
        2 | 9 => {
            client.field = client.field << 8 | u32::from(byte);
            if at == 11 {
                client.marks |= kind_of(client.field);
            }
            return;
        }
        10 | 11 => {
            client.sent_ns = client.sent_ns << 8 | u64::from(byte);
            return;
        }
        4 => MAGIC,
        5 => script.run,
        6 => stream_of(script, number),
        7 => script.phase,
        _ => return,
    };
    if (expected >> (24 - 8 * u32::from(at & 3))) as u8 != byte {
        client.marks |= match at >> 2 {
            6 => mark::MISROUTED,
            7 => mark::STRAGGLER,
            _ => mark::FOREIGN,
        };
    }
}

/// A packet is complete.
#[inline(always)]
fn deliver(script: &Script, client: &mut Client) {
    match client.marks & mark::KIND {
        mark::AUTH_REPLY if client.state == state::GREETED => {
            // Granted by an empty body; a refusal says why.
            let granted = u32::from(client.at) == HEADER_BYTES;
            client.state = if granted { state::JOINED } else { state::REFUSED };
            count(if granted { Count::Joined } else { Count::Refused }, 1);
        }
        mark::MESSAGE => {
            let marks = if client.at < STAMP_END { mark::FOREIGN } else { client.marks };
            if marks & mark::FOREIGN != 0 {
                count(Count::Foreign, 1);
            } else if marks & mark::STRAGGLER != 0 {
                count(Count::Stragglers, 1);
            } else if marks & mark::MISROUTED != 0 {
                count(Count::Misrouted, 1);
            } else {
                books::enter(script, client);
            }
        }
        mark::HEARTBEAT_REPLY => count(Count::HeartbeatReplies, 1),
        _ => count(Count::OtherPackets, 1),
    }
    client.at = 0;
    client.left = 0;
    client.marks &= mark::PHASE;
}

/// Something stands there that is no packet.
#[inline(always)]
fn garble(client: &mut Client) {
    client.at = GARBLED;
    count(Count::Garbled, 1);
}

#[inline(always)]
fn is_length(length: u32) -> bool {
    (HEADER_BYTES..=MAX_PACKET_BYTES).contains(&length)
}

#[inline(always)]
fn kind_of(operation: u32) -> u8 {
    match operation {
        AUTH_REPLY => mark::AUTH_REPLY,
        HEARTBEAT_REPLY => mark::HEARTBEAT_REPLY,
        SEND_MESSAGE_REPLY | FIRST_OF_APPLICATION.. => mark::MESSAGE,
        _ => mark::OTHER,
    }
}

/// The stream that client `number` follows.
#[inline(always)]
fn stream_of(script: &Script, number: u32) -> u32 {
    if script.streams < 2 { 0 } else { number % script.streams }
}
