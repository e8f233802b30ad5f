//! How much a client takes that does not read as it should, and what it lets get lost.

use abi::clients::{Client, Count, Late, RATES, Script, chance, reading, reading::Reading, state};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::{
    maps::{LATE, SEGMENTS, count},
    websocket,
};

/// What a client says that has room for everything. Without window scaling, no more may be under way to it.
const ALL: u16 = u16::MAX;

/// Bytes that the client has room for.
#[inline(always)]
pub fn free(script: &Script, client: &mut Client) -> u32 {
    match rate(script, client) {
        None => u32::MAX,
        Some(bytes_per_second) => free_at(script, client, bytes_per_second),
    }
}

/// The window that the client offers.
#[inline(always)]
pub fn window(script: &Script, client: &mut Client) -> u16 {
    match rate(script, client) {
        None => ALL,
        Some(bytes_per_second) => reading::window(free_at(script, client, bytes_per_second), script.room_bytes),
    }
}

/// Whether this segment gets lost: by counting them, so that a run can be run again.
#[inline(always)]
pub fn gets_lost(script: &Script) -> bool {
    if script.lost == 0 {
        return false;
    }
    let Some(segments) = SEGMENTS.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let segment = unsafe { &mut *segments };
    *segment = segment.wrapping_add(1);
    chance(*segment) < script.lost
}

/// The rate at which the client reads; `None` when it reads whatever comes.
#[inline(always)]
fn rate(script: &Script, client: &Client) -> Option<u32> {
    // Hidden, or the compiler knows that the mask does nothing, and leaves it out; the verifier does not know.
    let rate = core::hint::black_box(state::rate_of(client.state)?);
    (script.all_read == 0).then(|| script.bytes_per_second[rate as usize & (RATES - 1)])
}

/// A function of its own, as the next one: the stack of one would not do for everything.
#[inline(never)]
fn free_at(script: &Script, client: &mut Client, bytes_per_second: u32) -> u32 {
    // SAFETY: the helper reads a clock.
    let now_ms = (unsafe { bpf_ktime_get_ns() } / 1_000_000) as u32;
    let room = script.room_bytes;
    let reading = Reading::of(client.sent_ns).at(client.next_in, now_ms, bytes_per_second, room);
    websocket::forget_behind(script, client);
    client.sent_ns = reading.word();
    reading.free(client.next_in, now_ms, bytes_per_second, room)
}

/// Hands the acknowledgement of everything before `next_in` over to userspace. 0 when there is no room: then it is said at once.
#[inline(never)]
pub fn put_off(number: u32, next_in: u32) -> u32 {
    // SAFETY: the helper reads a clock.
    let late = Late { came_ns: unsafe { bpf_ktime_get_ns() }, number, next_in };
    let is_put_off = LATE.output(late, 0).is_ok();
    count(Count::Late, u64::from(is_put_off));
    u32::from(is_put_off)
}
