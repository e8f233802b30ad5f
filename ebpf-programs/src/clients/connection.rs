//! What a segment does to the client that it goes to, as far as TCP is concerned.
//!
//! `next_in` moves only with bytes that come in order, so the server repeats what was lost, and every byte is read once.
//! `next_out` is what the server says that it awaits: whatever we have under way beyond is repeated by whoever sent it.

use abi::clients::{Client, Count, Script, initial_sequence, state};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};

use crate::{
    answer::{self, Answer},
    frame::{ACK, FIN, NoSegment, PSH, RST, SYN, Segment},
    maps::{CLIENTS, SCRIPT, count},
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
    // SAFETY: the pointer is into a live map value. The segments of one client come through one queue, one at a time: the
    // server's kernel chooses it by the flow, and anew only when it repeats after a time-out, with nothing under way. Userspace
    // does not write what it reads here. (In place, because what stands in a map is unknown to the verifier: of a copy it would
    // follow every value that a loop may have left there.)
    let client = unsafe { &mut *place };
    match take(ctx, script, number, client, &segment) {
        Some(answer) => answer::send(ctx, script, &segment, client, &answer),
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
    if segment.has(RST) {
        if is_reset(script, number, client, segment) {
            reset(client);
        } else {
            count(Count::OutOfWindow, 1);
        }
        return None;
    }
    if segment.has(SYN) {
        return handshake(script, number, client, segment);
    }
    if client.state == state::FRESH || client.state == state::RESET {
        count(Count::Stray, 1);
        return None;
    }
    if !window::holds(client, segment) {
        count(Count::OutOfWindow, 1);
        return Some(Answer::plain(ACK));
    }
    let is_news = ahead(segment.acknowledged, client.next_out) > 0 && segment.has(ACK);
    if is_news {
        client.next_out = segment.acknowledged;
    }
    let (bytes, fin) = (segment.payload_bytes, segment.has(FIN));
    if bytes == 0 && !fin {
        // What we said before this may have been behind what the server had from us already, and is void then.
        return (is_news || is_due(script, number, client)).then(|| due_answer(script, number, client));
    }
    let old_bytes = ahead(client.next_in, segment.sequence);
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
    if old_bytes < bytes {
        let new_bytes = bytes - old_bytes;
        let from = segment.payload_at + old_bytes;
        let taken = stream::take(&mut Bytes { ctx, script, client, number, at: from, to: from + new_bytes });
        client.next_in = client.next_in.wrapping_add(taken);
        count(Count::Bytes, u64::from(taken));
    }
    if !fin {
        return Some(due_answer(script, number, client));
    }
    client.next_in = client.next_in.wrapping_add(1);
    close(client);
    Some(Answer::plain(FIN | ACK))
}

/// An acknowledgement and, when the server has asked for WebSocket and has not had all that belongs to the handshakes: what
/// comes next of that.
#[inline(always)]
fn due_answer(script: &Script, number: u32, client: &Client) -> Answer {
    if is_due(script, number, client) { Answer { flags: PSH | ACK, greets: Some(number) } } else { Answer::plain(ACK) }
}

/// Whether a client that speaks WebSocket has something to say, for the first time or because it was lost: the upgrade's
/// request to who awaits the byte behind the SYN, the auth packet to who awaits the one behind the request.
#[inline(always)]
fn is_due(script: &Script, number: u32, client: &Client) -> bool {
    if !websocket::is_spoken(script) {
        return false;
    }
    let said = client.next_out.wrapping_sub(initial_sequence(number, script.secret).wrapping_add(1));
    match client.state {
        state::UPGRADING => said == 0,
        state::GREETED => said == script.upgrade_bytes,
        _ => false,
    }
}

/// SYN and ACK: answered by the auth packet, or the request for WebSocket; again when the server says it again.
#[inline(always)]
fn handshake<const HEADERS: usize>(
    script: &Script,
    number: u32,
    client: &mut Client,
    segment: &Segment<HEADERS>,
) -> Option<Answer> {
    let after_syn = initial_sequence(number, script.secret).wrapping_add(1);
    if !segment.has(ACK) || segment.acknowledged != after_syn {
        count(Count::Stray, 1);
        return None;
    }
    let next_in = segment.sequence.wrapping_add(1);
    match client.state {
        state::FRESH => {
            count(Count::Established, 1);
            let state = if websocket::is_spoken(script) { state::UPGRADING } else { state::GREETED };
            *client = Client { next_in, next_out: after_syn, state, ..Client::default() };
        }
        // Another sequence number: the server has forgotten the first attempt, and nothing has come on it.
        state::UPGRADING | state::GREETED if client.next_out == after_syn => client.next_in = next_in,
        state::UPGRADING | state::GREETED | state::JOINED | state::REFUSED => return Some(Answer::plain(ACK)),
        _ => {
            count(Count::Stray, 1);
            return None;
        }
    }
    Some(Answer { flags: PSH | ACK, greets: Some(number) })
}

/// Whether a reset is one of this connection: of the SYN, when it acknowledges that, else when it is in the window.
#[inline(always)]
fn is_reset<const HEADERS: usize>(script: &Script, number: u32, client: &Client, segment: &Segment<HEADERS>) -> bool {
    if client.state == state::FRESH {
        let after_syn = initial_sequence(number, script.secret).wrapping_add(1);
        return segment.has(ACK) && segment.acknowledged == after_syn;
    }
    window::has_sequence(client, segment)
}

#[inline(always)]
fn reset(client: &mut Client) {
    let what = match client.state {
        state::FRESH => Count::SynReset,
        state::UPGRADING | state::GREETED => Count::ResetBeforeGrant,
        state::JOINED => Count::Reset,
        // The end of what was counted.
        _ => return,
    };
    count(what, 1);
    client.state = state::RESET;
}

#[inline(always)]
fn close(client: &mut Client) {
    match client.state {
        state::UPGRADING | state::GREETED => count(Count::ClosedBeforeGrant, 1),
        state::JOINED => count(Count::Closed, 1),
        _ => {}
    }
    client.state = state::CLOSED;
}

/// How far `one` is ahead of `other` in the circle of sequence numbers.
#[inline(always)]
pub fn ahead(one: u32, other: u32) -> i32 {
    one.wrapping_sub(other) as i32
}
