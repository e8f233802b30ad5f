//! What a segment does to the client that it goes to, as far as TCP is concerned.
//!
//! `next_in` moves only with bytes that come in order, so the server repeats what was lost, and every byte is read once.
//! `next_out` is what the server says that it awaits: whatever we have under way beyond is repeated by whoever sent it.

use abi::clients::{Client, Count, Script, initial_sequence, said, state};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};

use crate::{
    answer::{self, Answer},
    endings,
    frame::{ACK, FIN, NoSegment, PSH, RST, SYN, Segment},
    maps::{CLIENTS, SCRIPT, count, look_at_the_clock},
    room,
    stream::{self, Bytes},
    websocket, window,
};

/// Takes one frame for the client that it goes to. A function of its own for each family: they would not share a stack.
#[inline(never)]
pub fn play<const HEADERS: usize>(ctx: &XdpContext) -> u32 {
    let segment = match Segment::<HEADERS>::parse(ctx) {
        Ok(segment) => segment,
        Err(NoSegment::NotTcp) => return XDP_PASS,
        Err(NoSegment::Malformed) => {
            count(Count::Malformed, 1);
            return XDP_DROP;
        }
    };
    let Some(script) = SCRIPT.get(0) else { return XDP_PASS };
    let Some(number) = number_of(script, &segment) else { return XDP_PASS };
    let Some(place) = CLIENTS.get_ptr_mut(number) else { return XDP_PASS };
    // In place, because what stands in a map is unknown to the verifier: of a copy it would follow every value that a loop may
    // have left there.
    // SAFETY: the pointer is into a live map value. The segments of one client come through one queue, one at a time: the
    // server's kernel chooses it by the flow, and anew only when it repeats after a time-out, with nothing under way.
    // Userspace writes only a client's `state`, one byte, and the whole of one that has no connection.
    let client = unsafe { &mut *place };
    match take(ctx, script, number, client, &segment) {
        Some(answer) if waits(script, number, client, &segment, &answer) => XDP_DROP,
        Some(answer) => {
            let window = room::window(script, client);
            answer::send(ctx, script, &segment, client, &Answer { window, ..answer })
        }
        None => XDP_DROP,
    }
}

/// The client that the segment goes to; `None` when that is none of ours.
#[inline(always)]
fn number_of<const HEADERS: usize>(script: &Script, segment: &Segment<HEADERS>) -> Option<u32> {
    let ports = script.ports_per_address;
    let port = u32::from(segment.destination_port()).wrapping_sub(script.first_port);
    if ports == 0 || port >= ports {
        return None;
    }
    let address = segment.destination_low().wrapping_sub(script.first_address);
    // The addresses are fewer than the clients, so that the product cannot wrap.
    let number = if address < script.clients { address.wrapping_mul(ports).wrapping_add(port) } else { u32::MAX };
    (number < script.clients).then_some(number)
}

#[inline(always)]
fn take<const HEADERS: usize>(
    ctx: &XdpContext,
    script: &Script,
    number: u32,
    client: &mut Client,
    segment: &Segment<HEADERS>,
) -> Option<Answer> {
    if client.state == state::VANISHED {
        count(Count::AfterGoodbye, 1);
        return None;
    }
    if segment.has(RST) {
        if is_reset(script, number, client, segment) {
            endings::reset(client);
        } else {
            count(Count::OutOfWindow, 1);
        }
        return None;
    }
    if client.state == state::ABORTED {
        count(Count::AfterGoodbye, 1);
        return Some(Answer::reset());
    }
    if segment.has(SYN) {
        return handshake(script, number, client, segment);
    }
    match client.state {
        state::FRESH | state::RESET => {
            count(Count::Stray, 1);
            return None;
        }
        // What the server says of the connection before: it has to give that up first.
        state::RETURNING => {
            count(Count::Stray, 1);
            return Some(Answer::reset());
        }
        _ => {}
    }
    if !window::holds(client, segment) {
        count(Count::OutOfWindow, 1);
        return Some(Answer::plain(ACK));
    }
    let (bytes, fin) = (segment.payload_bytes, segment.has(FIN));
    if (bytes > 0 || fin) && room::gets_lost(script) {
        count(Count::Lost, 1);
        return None;
    }
    let is_news = ahead(segment.acknowledged, client.next_out) > 0 && segment.has(ACK);
    if is_news {
        client.next_out = segment.acknowledged;
    }
    let old_bytes = ahead(client.next_in, segment.sequence);
    if bytes == 0 && !fin {
        // What we said before this may have been behind what the server had from us already, and is void then. And a segment
        // without anything that stands behind what has come asks how much room there is.
        let wants_answer = is_news || old_bytes > 0 || is_due(script, number, client);
        return wants_answer.then(|| due_answer(script, number, client));
    }
    if old_bytes < 0 {
        count(Count::BehindHole, 1);
        return Some(Answer::plain(ACK));
    }
    let old_bytes = old_bytes as u32;
    if old_bytes >= bytes + u32::from(fin) {
        count(Count::Repeated, 1);
        let is_closed = client.state == state::CLOSED;
        return Some(if is_closed { Answer::plain(FIN | ACK) } else { due_answer(script, number, client) });
    }
    let (mut fin, mut says) = (fin, 0);
    if old_bytes < bytes {
        let free = room::free(script, client);
        let mut new_bytes = bytes - old_bytes;
        if free < new_bytes {
            count(Count::NoRoom, 1);
            new_bytes = free;
            fin = false;
        }
        let taken = if client.state == state::LEAVING {
            count(Count::AfterGoodbye, 1);
            new_bytes
        } else {
            let from = segment.payload_at + old_bytes;
            look_at_the_clock();
            let mut bytes = Bytes { ctx, script, client, number, at: from, to: from + new_bytes, says: 0 };
            let taken = stream::take(&mut bytes);
            says = bytes.says;
            taken
        };
        client.next_in = client.next_in.wrapping_add(taken);
        count(Count::Bytes, u64::from(taken));
    }
    if !fin && says > 0 {
        return Some(Answer { says, ..Answer::plain(PSH | ACK) });
    }
    if !fin {
        return Some(due_answer(script, number, client));
    }
    client.next_in = client.next_in.wrapping_add(1);
    endings::close(client);
    Some(Answer::plain(FIN | ACK))
}

/// An acknowledgement and, when the server has asked for WebSocket and has not had all that belongs to the handshakes: what
/// comes next of that.
#[inline(always)]
fn due_answer(script: &Script, number: u32, client: &Client) -> Answer {
    if is_due(script, number, client) {
        Answer { greets: Some(number), ..Answer::plain(PSH | ACK) }
    } else {
        Answer::plain(ACK)
    }
}

/// Whether a client that speaks WebSocket has something to say, for the first time or because it was lost: the upgrade's
/// request to who awaits the byte behind the SYN, the auth packet to who awaits the one behind the request.
#[inline(always)]
fn is_due(script: &Script, number: u32, client: &Client) -> bool {
    if !websocket::is_spoken(script) {
        return false;
    }
    let said = said(number, script.secret, client.next_out);
    (state::is_upgrading(client.state) && said == 0)
        || (state::is_greeted(client.state) && said == script.upgrade_bytes)
}

/// Whether a reset is one of this connection: of the SYN, when it acknowledges that, else when it is in the window.
#[inline(always)]
fn is_reset<const HEADERS: usize>(script: &Script, number: u32, client: &Client, segment: &Segment<HEADERS>) -> bool {
    let after_syn = match client.state {
        state::FRESH => initial_sequence(number, script.secret).wrapping_add(1),
        state::RETURNING => client.next_out,
        _ => return window::has_sequence(client, segment),
    };
    segment.has(ACK) && segment.acknowledged == after_syn
}

/// Whether userspace says this, later.
#[inline(always)]
fn waits<const HEADERS: usize>(
    script: &Script,
    number: u32,
    client: &Client,
    segment: &Segment<HEADERS>,
    answer: &Answer,
) -> bool {
    script.acknowledges_late != 0
        && segment.payload_bytes > 0
        && answer.flags == ACK
        && room::put_off(number, client.next_in) != 0
}

/// What a client may have said since its SYN when that is answered once more: its auth packet and many heartbeats.
const MOST_SAID: u32 = 1 << 16;

/// SYN and ACK: answered by the auth packet, or the request for WebSocket; again when the server says it again.
#[inline(always)]
fn handshake<const HEADERS: usize>(
    script: &Script,
    number: u32,
    client: &mut Client,
    segment: &Segment<HEADERS>,
) -> Option<Answer> {
    let acknowledged = segment.acknowledged;
    let next_in = segment.sequence.wrapping_add(1);
    let is_first = client.state == state::FRESH;
    let after_syn = if is_first { initial_sequence(number, script.secret).wrapping_add(1) } else { client.next_out };
    // Ours may have moved on since, but not far.
    let said_since = after_syn.wrapping_sub(acknowledged);
    if !segment.has(ACK) || said_since > if is_first { 0 } else { MOST_SAID } {
        count(Count::Stray, 1);
        return None;
    }
    match client.state {
        state::FRESH | state::RETURNING if said_since == 0 => {
            count(Count::Established, 1);
            let state = match (is_first, websocket::is_spoken(script)) {
                (true, false) => state::GREETED,
                (true, true) => state::UPGRADING,
                (false, false) => state::GREETED_AGAIN,
                (false, true) => state::UPGRADING_AGAIN,
            };
            *client = Client { next_in, next_out: after_syn, state, ..Client::default() };
        }
        // Another sequence number: the server has forgotten the first attempt, and nothing has come on it.
        now if said_since == 0 && (state::is_upgrading(now) || state::is_greeted(now)) => client.next_in = next_in,
        state::CLOSED | state::RESET | state::RETURNING => {
            count(Count::Stray, 1);
            return None;
        }
        _ => return Some(Answer::plain(ACK)),
    }
    Some(Answer { greets: Some(number), ..Answer::plain(PSH | ACK) })
}

/// How far `one` is ahead of `other` in the circle of sequence numbers.
#[inline(always)]
pub fn ahead(one: u32, other: u32) -> i32 {
    one.wrapping_sub(other) as i32
}
