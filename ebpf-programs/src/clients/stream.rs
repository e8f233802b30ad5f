//! goim packets in the bytes of the stream, wherever segments cut them.
//!
//! Packets that are wholly inside a segment are read as a whole. Of one that is cut, the 48 bytes that matter, header
//! and stamp, are taken byte by byte into the client's state, which is why 32 bytes are enough for it.

use core::ptr;

use abi::clients::{
    Client, Count, FRAME_UNKNOWN, GARBLED, MAX_PACKET_BYTES, STAMP_END, Script, mark, state, time_of_tick,
};
use aya_ebpf::{cty::c_void, helpers::generated::bpf_loop, programs::XdpContext};

use crate::{
    books,
    frame::{load_into, whole},
    maps::{PIECE, count, now_ns},
    websocket,
};

/// Steps that a segment of 1460 bytes may take: the smallest packet is a header of 16, the smallest frame one of two.
const MAX_STEPS: u32 = 1460 / 2 + 1;

const HEADER_BYTES: u32 = 16;
/// `PUT1`.
const MAGIC: u32 = u32::from_be_bytes(*b"PUT1");

const HEARTBEAT_REPLY: u32 = 3;
const SEND_MESSAGE_REPLY: u32 = 5;
const AUTH_REPLY: u32 = 8;
/// The head of a batch: packets follow.
const RAW: u32 = 9;
const FIRST_OF_APPLICATION: u32 = 1000;

/// Where the code stands in the body of a grant that has one, `{"code":0}`.
const CODE_AT: u8 = 24;

/// A client's stream, and where its next bytes stand in the frame.
pub struct Bytes<'a> {
    pub ctx: &'a XdpContext,
    pub script: &'a Script,
    /// Whose it is.
    pub client: &'a mut Client,
    /// The client's.
    pub number: u32,
    /// Where the bytes not read yet begin.
    pub at: u32,
    /// Where they end.
    pub to: u32,
    /// Length of the answer that stands in `GREETING`; 0 until something wants one.
    pub says: u32,
}

/// Reads them all and says how many they were.
///
/// A function of its own: the stack of one would not do for everything. Its loops are the kernel's (`bpf_loop`, Linux
/// 5.17), which the verifier walks once; ordinary ones it would walk as often as they may run.
#[inline(never)]
pub fn take(bytes: &mut Bytes<'_>) -> u32 {
    let from = bytes.at;
    if state::is_upgrading(bytes.client.state) {
        websocket::take_answer(bytes);
        if state::is_upgrading(bytes.client.state) {
            return bytes.to - from;
        }
    }
    if bytes.client.at != 0 {
        take_piece(bytes);
    }
    if bytes.client.at == 0 {
        repeat(MAX_STEPS, take_whole, bytes);
        if bytes.at < bytes.to {
            take_piece(bytes);
        }
    }
    bytes.to - from
}

/// What the kernel calls in a loop: on with 0, out with 1.
pub type Step = extern "C" fn(u64, *mut Bytes<'_>) -> u64;

#[inline(always)]
pub fn repeat(times: u32, step: Step, bytes: &mut Bytes<'_>) {
    // SAFETY: the kernel calls `step` with `bytes` only while it runs this, and nobody else has `bytes` meanwhile.
    unsafe { bpf_loop(times, step as *mut c_void, ptr::from_mut(bytes).cast(), 0) };
}

/// Takes a packet that is there as a whole, the head of a batch, or what is there of a frame's header.
extern "C" fn take_whole(_index: u64, bytes: *mut Bytes<'_>) -> u64 {
    // SAFETY: see `repeat`.
    let bytes = unsafe { &mut *bytes };
    websocket::find_out(bytes);
    if websocket::is_next(bytes.script, bytes.client) {
        if bytes.at < bytes.to && !websocket::take_header(bytes) {
            websocket::take_piece(bytes);
        }
        return u64::from(bytes.at >= bytes.to || bytes.client.at != 0);
    }
    let Bytes { ctx, script, client, number, at, to, .. } = bytes;
    let here = to.wrapping_sub(*at);
    if here < HEADER_BYTES {
        return 1;
    }
    let Some(piece) = PIECE.get_ptr_mut(0) else { return 1 };
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let piece = unsafe { &mut *piece };
    let readable = if here < u32::from(STAMP_END) { here } else { u32::from(STAMP_END) };
    if !load_into(ctx, *at, piece, readable) {
        return 1;
    }
    let length = whole(piece, 0);
    let behind = websocket::behind(script, client.left, length);
    // One that is no length is found out by whoever takes the piece, and so is one that passes its frame.
    if !is_length(length) || behind > client.left {
        return 1;
    }
    let operation = whole(piece, 8);
    if operation == RAW {
        client.left = websocket::behind(script, client.left, HEADER_BYTES);
        *at += HEADER_BYTES;
        return 0;
    }
    if length > here {
        return 1;
    }
    client.marks |= kind_of(operation);
    if length > HEADER_BYTES && piece[usize::from(CODE_AT)] != b'0' && client.marks & mark::KIND == mark::AUTH_REPLY {
        client.marks |= mark::DENIED;
    }
    client.at = if length < u32::from(STAMP_END) { length as u8 } else { STAMP_END };
    if length >= u32::from(STAMP_END) {
        let is_message = client.marks & mark::KIND == mark::MESSAGE;
        if is_message && (whole(piece, 16) != MAGIC || !books::is_of_run(script, whole(piece, 20))) {
            client.marks |= mark::FOREIGN;
        }
        if whole(piece, 24) != stream_of(script, *number) {
            client.marks |= mark::MISROUTED;
        }
        if whole(piece, 28) != script.phase {
            client.marks |= mark::STRAGGLER;
        }
        client.field = whole(piece, 36);
        if is_timed(client) {
            client.sent_ns = u64::from(whole(piece, 40)) << 32 | u64::from(whole(piece, 44));
        }
    }
    deliver(script, *number, client, behind);
    *at += length;
    0
}

/// Takes what is there of the packet under way, or the beginning of one. On WebSocket, also of what is around it.
#[inline(always)]
fn take_piece(bytes: &mut Bytes<'_>) {
    websocket::find_out(bytes);
    if websocket::is_next(bytes.script, bytes.client) {
        websocket::take_piece(bytes);
        return;
    }
    if bytes.client.at < STAMP_END {
        let Some(piece) = PIECE.get_ptr_mut(0) else { return };
        let most = u32::from(STAMP_END - bytes.client.at);
        let here = bytes.to.wrapping_sub(bytes.at);
        let length = if here < most { here } else { most };
        // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
        if !load_into(bytes.ctx, bytes.at, unsafe { &mut *piece }, length) {
            return;
        }
        repeat(length, take_byte, bytes);
    }
    match bytes.client.at {
        // Nothing behind it can be told apart.
        GARBLED => bytes.at = bytes.to,
        // The rest of the body, which nobody reads.
        STAMP_END => {
            let here = bytes.to.wrapping_sub(bytes.at);
            let left = bytes.client.left & !FRAME_UNKNOWN;
            let rest = if left < here { left } else { here };
            bytes.client.left -= rest;
            bytes.at += rest;
            if left == rest {
                deliver_piece(bytes.script, bytes.number, bytes.client);
            }
        }
        _ => {}
    }
}

/// Takes one byte of header or stamp, up to the end of the packet.
extern "C" fn take_byte(index: u64, bytes: *mut Bytes<'_>) -> u64 {
    // SAFETY: see `repeat`.
    let Bytes { script, client, number, at: next, .. } = unsafe { &mut *bytes };
    let Some(piece) = PIECE.get_ptr_mut(0) else { return 1 };
    if index >= u64::from(STAMP_END) {
        return 1;
    }
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let byte = unsafe { (*piece)[index as usize] };
    *next += 1;
    let at = client.at;
    client.at = at + 1;
    if at < 4 {
        if at == 0 {
            // What is still to come of the frame; nothing without one.
            client.field = client.left;
            client.left = 0;
        }
        client.left = client.left << 8 | u32::from(byte);
        if at < 3 {
            return 0;
        }
        let is_framed = websocket::is_spoken(script);
        if !is_length(client.left) || (is_framed && client.left > client.field) {
            garble(client);
            return 1;
        }
        let behind = websocket::behind(script, client.field, client.left);
        client.left -= 4;
        if is_framed && (behind == FRAME_UNKNOWN || !is_timed(client)) {
            client.left |= FRAME_UNKNOWN;
        } else if is_framed {
            client.sent_ns = u64::from(behind) << 32;
        }
        return 0;
    }
    client.left -= 1;
    let is_message = client.marks & mark::KIND == mark::MESSAGE;
    match at >> 2 {
        2 | 5 | 9 => {
            client.field = client.field << 8 | u32::from(byte);
            if at == 11 {
                client.marks |= kind_of(client.field);
                if client.field == RAW {
                    client.marks |= mark::BATCH;
                }
            }
            if at == 23 && is_message && client.marks & mark::FOREIGN == 0 && !books::is_of_run(script, client.field) {
                client.marks |= mark::FOREIGN;
            }
        }
        10 | 11 if is_timed(client) => take_time(script, client, at, byte),
        4 if is_message => compare(client, MAGIC, byte, mark::FOREIGN),
        6 if is_message => compare(client, stream_of(script, *number), byte, mark::MISROUTED),
        6 if at == CODE_AT && byte != b'0' && client.marks & mark::KIND == mark::AUTH_REPLY => {
            client.marks |= mark::DENIED;
        }
        7 => compare(client, script.phase, byte, mark::STRAGGLER),
        _ => {}
    }
    if at == 15 && client.marks & (mark::KIND | mark::BATCH) == mark::OTHER | mark::BATCH {
        client.left = match behind_piece(script, client) {
            FRAME_UNKNOWN => FRAME_UNKNOWN,
            behind if websocket::is_spoken(script) => client.left + behind,
            _ => 0,
        };
        client.at = 0;
        client.marks &= mark::PHASE;
        return 1;
    }
    if client.left & !FRAME_UNKNOWN == 0 {
        deliver_piece(script, *number, client);
        return 1;
    }
    0
}

/// Takes a byte of the time. On WebSocket there is room for 32 bits of it.
#[inline(always)]
fn take_time(script: &Script, client: &mut Client, at: u8, byte: u8) {
    if !websocket::is_spoken(script) {
        client.sent_ns = client.sent_ns << 8 | u64::from(byte);
        return;
    }
    let (before, byte) = (client.sent_ns as u32, u32::from(byte));
    let ticks = match at {
        // Six bytes hold 48 bits, of which the lowest ten are left out, and so are the uppermost six.
        46 => before << 6 | byte >> 2,
        42..46 => before << 8 | byte,
        _ => before,
    };
    client.sent_ns = client.sent_ns >> 32 << 32 | u64::from(ticks);
}

/// What comes, in its frame, behind the packet that is taken in pieces; nothing without a frame.
#[inline(always)]
fn behind_piece(script: &Script, client: &Client) -> u32 {
    match (websocket::is_spoken(script), client.left & FRAME_UNKNOWN) {
        (false, _) => 0,
        (true, 0) => (client.sent_ns >> 32) as u32,
        (true, unknown) => unknown,
    }
}

/// A packet that was taken in pieces is complete.
#[inline(always)]
fn deliver_piece(script: &Script, number: u32, client: &mut Client) {
    let behind = behind_piece(script, client);
    if websocket::is_spoken(script) && behind != FRAME_UNKNOWN {
        let is_message = client.marks & mark::KIND == mark::MESSAGE;
        // No time, but not nothing: who was let in has something here.
        client.sent_ns = if is_message { time_of_tick(now_ns(), client.sent_ns as u32) } else { 1 };
    }
    deliver(script, number, client, behind);
}

/// Marks the packet unless the byte just taken is that of `expected`.
#[inline(always)]
fn compare(client: &mut Client, expected: u32, byte: u8, otherwise: u8) {
    // The byte just taken has been counted already.
    let place = u32::from(client.at.wrapping_sub(1) & 3);
    if (expected >> (24 - 8 * place)) as u8 != byte {
        client.marks |= otherwise;
    }
}

/// A packet is complete, with so many bytes behind it in its frame.
#[inline(always)]
fn deliver(script: &Script, number: u32, client: &mut Client, behind: u32) {
    match client.marks & mark::KIND {
        mark::AUTH_REPLY if state::is_greeted(client.state) => answer_auth(script, client),
        mark::MESSAGE => {
            let marks = if client.at < STAMP_END { mark::FOREIGN } else { client.marks };
            if marks & mark::FOREIGN != 0 {
                count(Count::Foreign, 1);
            } else if marks & mark::STRAGGLER != 0 {
                count(Count::Stragglers, 1);
            } else if marks & mark::MISROUTED != 0 {
                count(Count::Misrouted, 1);
            } else {
                books::enter(script, stream_of(script, number), number, client);
            }
        }
        mark::HEARTBEAT_REPLY => count(Count::HeartbeatReplies, 1),
        _ => count(Count::OtherPackets, 1),
    }
    client.at = 0;
    client.left = behind;
    client.marks &= mark::PHASE;
}

/// The auth was answered: granted by an empty body, or by one that begins with the code 0.
#[inline(always)]
fn answer_auth(script: &Script, client: &mut Client) {
    let comes_back = client.state == state::GREETED_AGAIN;
    let is_bare = u32::from(client.at) == HEADER_BYTES;
    if !is_bare && (client.at <= CODE_AT || client.marks & mark::DENIED != 0) {
        client.state = state::REFUSED;
        client.sent_ns = 0;
        count(if comes_back { Count::BackRefused } else { Count::Refused }, 1);
        return;
    }
    if comes_back {
        books::begin_anew(script, client);
    }
    client.sent_ns = now_ns();
    client.state = state::JOINED;
    count(if comes_back { Count::Back } else { Count::Joined }, 1);
}

/// Whether anybody wants to know when the client's messages were sent.
#[inline(always)]
fn is_timed(client: &Client) -> bool {
    state::rate_of(client.state).is_none()
}

/// Something stands there that is no packet.
#[inline(always)]
pub fn garble(client: &mut Client) {
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
