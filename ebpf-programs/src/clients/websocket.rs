//! WebSocket around the packets: the answer to the upgrade, and the headers of frames (RFC 6455).
//!
//! A client holds no buffer, so each of these is taken byte by byte where a segment cuts it. Packets end with their frame:
//! what of the frame is still to come stands in the client's state between packets.
//!
//! It does not: check `Sec-WebSocket-Accept` (all clients send one key), put fragments together, or repeat a pong that got
//! lost.

use abi::clients::{
    CONTROL, Client, Count, FRAME_HEADER, FRAME_UNKNOWN, GARBLED, GREETING_BYTES, MAX_PACKET_BYTES,
    MAX_UPGRADE_ANSWER_BYTES, PING, STAMP_END, Script, mark, state,
};

use crate::{
    frame::load_into,
    maps::{GREETING, PIECE, count},
    stream::{Bytes, garble, repeat},
};

/// A status line is `HTTP/1.1 101 ...`: these bytes of it end in the code.
const STATUS_BYTES: u32 = 12;
const SWITCHING: u32 = u32::from_be_bytes(*b" 101");
const END_OF_HEAD: u32 = u32::from_be_bytes(*b"\r\n\r\n");

/// The longest header of a frame from a server.
const MAX_HEADER_BYTES: u32 = 10;

/// Final, no extension.
const PLAIN: u8 = 0x80;
const PLAIN_BITS: u8 = 0xf0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING_OPCODE: u8 = 9;
const PONG: u8 = 10;
/// Of a client's frame, in its second byte.
const MASKED: u8 = 0x80;
/// Two bytes and the mask.
const PONG_HEADER_BYTES: usize = 6;
/// The longest payload of a control frame, and of one whose length stands in the second byte.
const MAX_SHORT: u8 = 125;

/// Whether the clients speak it.
#[inline(always)]
pub fn is_spoken(script: &Script) -> bool {
    script.upgrade_bytes != 0
}

/// Whether the next byte is part of a frame, and not of a packet in it.
#[inline(always)]
pub fn is_next(script: &Script, client: &Client) -> bool {
    let is_between = client.at == 0 && client.left == 0;
    is_spoken(script) && (is_between || (client.at >= FRAME_HEADER && client.at != GARBLED))
}

/// What of a frame comes behind `length` more bytes, when so much of it is `left`; nothing without a frame.
#[inline(always)]
pub fn behind(script: &Script, left: u32, length: u32) -> u32 {
    match (is_spoken(script), left & FRAME_UNKNOWN) {
        (false, _) => 0,
        (true, 0) => left.wrapping_sub(length),
        (true, unknown) => unknown,
    }
}

/// Something else is going to stand where it says what comes behind the packet under way.
#[inline(always)]
pub fn forget_behind(script: &Script, client: &mut Client) {
    if is_spoken(script) && (4..=STAMP_END).contains(&client.at) {
        client.left |= FRAME_UNKNOWN;
    }
}

/// Where it is not known what of the frame is still to come, between packets, the next byte says it: that of a frame has its
/// highest bit, a packet begins with a length that never has.
#[inline(always)]
pub fn find_out(bytes: &mut Bytes<'_>) {
    if !is_spoken(bytes.script) || bytes.client.at != 0 || bytes.client.left != FRAME_UNKNOWN {
        return;
    }
    let at = bytes.at;
    if next_byte(bytes).is_some_and(|byte| byte & PLAIN != 0) {
        bytes.client.left = 0;
    }
    bytes.at = at;
}

/// Takes the answer to the upgrade, or what is there of it.
#[inline(always)]
pub fn take_answer(bytes: &mut Bytes<'_>) {
    repeat(MAX_UPGRADE_ANSWER_BYTES, take_answer_byte, bytes);
}

/// Takes one byte of the answer. On the way `field` holds the last four bytes, `left` counts them.
extern "C" fn take_answer_byte(_index: u64, bytes: *mut Bytes<'_>) -> u64 {
    // SAFETY: see `repeat`.
    let bytes = unsafe { &mut *bytes };
    let Some(byte) = next_byte(bytes) else { return 1 };
    let client = &mut *bytes.client;
    client.field = client.field << 8 | u32::from(byte);
    client.left += 1;
    let is_refused = client.left == STATUS_BYTES && client.field != SWITCHING;
    if is_refused || client.left >= MAX_UPGRADE_ANSWER_BYTES {
        let comes_back = client.state == state::UPGRADING_AGAIN;
        client.state = state::REFUSED;
        client.at = GARBLED;
        count(if comes_back { Count::BackUpgradeRefused } else { Count::UpgradeRefused }, 1);
        return 1;
    }
    if client.left > STATUS_BYTES && client.field == END_OF_HEAD {
        client.state = if client.state == state::UPGRADING { state::GREETED } else { state::GREETED_AGAIN };
        (client.field, client.left) = (0, 0);
        return 1;
    }
    0
}

/// Takes what is there of a frame's header, and of a control frame's payload.
#[inline(always)]
pub fn take_piece(bytes: &mut Bytes<'_>) {
    if bytes.client.at < CONTROL {
        repeat(MAX_HEADER_BYTES, take_header_byte, bytes);
    }
    let is_payload_here = bytes.at < bytes.to || bytes.client.left == 0;
    if bytes.client.at == PING && is_payload_here {
        take_ping(bytes);
        bytes.client.at = CONTROL;
    }
    if bytes.client.at == CONTROL {
        let here = bytes.to.wrapping_sub(bytes.at);
        let left = bytes.client.left;
        let rest = if left < here { left } else { here };
        bytes.client.left = left - rest;
        bytes.at += rest;
        if left == rest {
            bytes.client.at = 0;
        }
    }
}

/// Makes the pong for a ping whose payload begins here. One that a segment cuts gets none; of several, the last is answered
/// (RFC 6455, section 5.5.3).
#[inline(always)]
fn take_ping(bytes: &mut Bytes<'_>) {
    let length = bytes.client.left;
    let here = bytes.to.wrapping_sub(bytes.at);
    let Some(place) = GREETING.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let pong = unsafe { &mut *place };
    // Zeros behind it add nothing to the checksum, and leave what they mask as it is.
    *pong = [0; GREETING_BYTES];
    pong[0] = PLAIN | PONG;
    pong[1] = MASKED | (length as u8 & !MASKED);
    // SAFETY: behind the header there is room for the longest payload.
    let payload = unsafe { &mut *pong.as_mut_ptr().add(PONG_HEADER_BYTES).cast::<[u8; MAX_SHORT as usize]>() };
    if length > here || (length > 0 && !load_into(bytes.ctx, bytes.at, payload, length)) {
        count(Count::Unanswered, 1);
        return;
    }
    bytes.says = PONG_HEADER_BYTES as u32 + length;
}

/// Takes one byte of a frame's header. `left` gathers its length, `field` says how many bytes of that are still to come.
extern "C" fn take_header_byte(_index: u64, bytes: *mut Bytes<'_>) -> u64 {
    // SAFETY: see `repeat`.
    let bytes = unsafe { &mut *bytes };
    let Some(byte) = next_byte(bytes) else { return 1 };
    let client = &mut *bytes.client;
    match client.at {
        0 => {
            let opcode = byte & mark::OPCODE;
            if byte & PLAIN_BITS != PLAIN || !is_known(opcode) {
                garble(client);
                return 1;
            }
            client.marks = client.marks & mark::PHASE | opcode;
            client.at = FRAME_HEADER + 1;
            return 0;
        }
        // The highest bit is that of a mask, which no server sends.
        at if at == FRAME_HEADER + 1 => {
            let is_control = client.marks & mark::OPCODE >= CLOSE;
            if byte > MAX_SHORT && (is_control || byte > 127) {
                garble(client);
                return 1;
            }
            client.at = FRAME_HEADER + 2;
            (client.left, client.field) = match byte {
                126 => (0, 2),
                127 => (0, 8),
                short => (u32::from(short), 0),
            };
        }
        _ => {
            if client.left > MAX_PACKET_BYTES >> 8 {
                garble(client);
                return 1;
            }
            client.left = client.left << 8 | u32::from(byte);
            client.field -= 1;
        }
    }
    if client.field > 0 {
        return 0;
    }
    enter(client);
    1
}

/// The header is whole, and the payload begins.
#[inline(always)]
fn enter(client: &mut Client) {
    let opcode = client.marks & mark::OPCODE;
    client.marks &= mark::PHASE;
    client.at = 0;
    if opcode != BINARY {
        count(Count::ControlFrames, 1);
        client.at = if opcode == PING_OPCODE { PING } else { CONTROL };
    }
}

/// Takes a frame's header that is there as a whole, and the payload of a control frame, which may not be. False when there is
/// less, or something else.
#[inline(always)]
pub fn take_header(bytes: &mut Bytes<'_>) -> bool {
    let here = bytes.to.wrapping_sub(bytes.at);
    let Some(piece) = PIECE.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let piece = unsafe { &mut *piece };
    let readable = if here < MAX_HEADER_BYTES { here } else { MAX_HEADER_BYTES };
    // Anything but a binary frame of one of the two shorter forms is left to whoever takes pieces.
    if here < 4 || !load_into(bytes.ctx, bytes.at, piece, readable) || piece[0] != PLAIN | BINARY {
        return false;
    }
    match piece[1] {
        126 => {
            bytes.client.left = u32::from(piece[2]) << 8 | u32::from(piece[3]);
            bytes.at += 4;
        }
        short @ ..=MAX_SHORT => {
            bytes.client.left = u32::from(short);
            bytes.at += 2;
        }
        _ => return false,
    }
    true
}

#[inline(always)]
fn is_known(opcode: u8) -> bool {
    opcode == BINARY || (CLOSE..=PONG).contains(&opcode)
}

/// The next byte, when one is here.
#[inline(always)]
fn next_byte(bytes: &mut Bytes<'_>) -> Option<u8> {
    if bytes.at >= bytes.to {
        return None;
    }
    let place = PIECE.get_ptr_mut(0)?;
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let piece = unsafe { &mut *place };
    if !load_into(bytes.ctx, bytes.at, piece, 1) {
        return None;
    }
    bytes.at += 1;
    Some(piece[0])
}
