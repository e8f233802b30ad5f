//! What a segment does to the client that it goes to, as far as TCP is concerned.
//!
//! `next_in` moves only with bytes that come in order, so the server repeats what was lost, and every byte is read once.
//! `next_out` is what the server says that it awaits: whatever we have under way beyond is repeated by whoever sent it.

use abi::clients::{Client, Count, Late, Script, initial_sequence, state};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::bpf_ktime_get_ns,
    programs::XdpContext,
};

use crate::{
    answer::{self, Answer},
    endings,
    frame::{ACK, FIN, NoSegment, PSH, RST, SYN, Segment},
    maps::{CLIENTS, LATE, SCRIPT, count},
    room,
    stream::{self, Bytes},
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
    // writes only a client's `state`, one byte, and the whole of one that has no connection. (In place, because what stands in a map is unknown to the verifier: of a copy it would
    // follow every value that a loop may have left there.)
    let client = unsafe { &mut *place };
    match take(ctx, script, number, client, &segment) {
        Some(answer) if waits(script, number, client, &segment, &answer) => XDP_DROP,
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
    if client.state == state::VANISHED {
        count(Count::AfterGoodbye, 1);
        return None;
    }
    if segment.has(RST) {
        endings::reset(client, segment);
        return None;
    }
    if client.state == state::ABORTED {
        count(Count::AfterGoodbye, 1);
        return Some(Answer::reset(segment));
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
            return Some(Answer::reset(segment));
        }
        _ => {}
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
        return (is_news || old_bytes > 0).then(|| Answer::plain(ACK, room::window(script, client)));
    }
    if old_bytes < 0 {
        count(Count::BehindHole, 1);
        return Some(Answer::plain(ACK, room::window(script, client)));
    }
    let old_bytes = old_bytes as u32;
    if old_bytes >= bytes + u32::from(fin) {
        count(Count::Repeated, 1);
        let flags = if client.state == state::CLOSED { FIN | ACK } else { ACK };
        return Some(Answer::plain(flags, room::window(script, client)));
    }
    let mut fin = fin;
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
            stream::take(&mut Bytes { ctx, script, client, number, at: from, to: from + new_bytes })
        };
        client.next_in = client.next_in.wrapping_add(taken);
        count(Count::Bytes, u64::from(taken));
    }
    if !fin {
        return Some(Answer::plain(ACK, room::window(script, client)));
    }
    client.next_in = client.next_in.wrapping_add(1);
    endings::close(client);
    Some(Answer::plain(FIN | ACK, room::ALL))
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
    if script.acknowledges_late == 0 || segment.payload_bytes == 0 || answer.flags != ACK {
        return false;
    }
    // SAFETY: the helper reads a clock.
    let late = Late { came_ns: unsafe { bpf_ktime_get_ns() }, number, next_in: client.next_in };
    // When the ring is full it is said at once.
    let waits = LATE.output(late, 0).is_ok();
    count(Count::Late, u64::from(waits));
    waits
}

/// What a client may have said since its SYN when that is answered once more: its auth packet and many heartbeats.
const MOST_SAID: u32 = 1 << 16;

/// SYN and ACK: answered by the auth packet, again when the server says it again.
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
            let state = if is_first { state::GREETED } else { state::GREETED_AGAIN };
            *client = Client { next_in, next_out: after_syn, state, ..Client::default() };
        }
        // Another sequence number: the server has forgotten the first attempt, and nothing has come on it.
        state::GREETED | state::GREETED_AGAIN if said_since == 0 => client.next_in = next_in,
        state::CLOSED | state::RESET | state::RETURNING => {
            count(Count::Stray, 1);
            return None;
        }
        _ => return Some(Answer::plain(ACK, room::window(script, client))),
    }
    Some(Answer { greets: Some(number), ..Answer::plain(PSH | ACK, room::ALL) })
}

/// How far `one` is ahead of `other` in the circle of sequence numbers.
#[inline(always)]
fn ahead(one: u32, other: u32) -> i32 {
    one.wrapping_sub(other) as i32
}
