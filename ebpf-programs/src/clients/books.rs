//! Message numbers: what was due, what came, and how long it took.

use abi::clients::{Broadcast, Client, Count, Script, broadcast_index, delay_bucket, habit, mark};
use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};

use crate::maps::{BROADCASTS, HEARD_RUN, count, count_delay};

/// Whether `run` is the one whose messages count. When the script names none, the first that anybody hears becomes it.
#[inline(always)]
pub fn is_of_run(script: &Script, run: u32) -> bool {
    if script.run != 0 {
        return run == script.run;
    }
    // One of several CPUs puts it in; for all others it is there already.
    if HEARD_RUN.get_ptr(0).is_none() {
        let _ = HEARD_RUN.insert(0, run, u64::from(BPF_NOEXIST));
    }
    // SAFETY: the pointer is into a live map value, which nobody writes once it is there.
    HEARD_RUN.get_ptr(0).is_some_and(|heard| unsafe { *heard } == run)
}

/// Enters the message of `stream` whose number and time stand in the client's state.
#[inline(always)]
pub fn enter(script: &Script, stream: u32, client: &mut Client) {
    let phase = (script.phase << mark::PHASE_SHIFT) as u8;
    if client.marks & mark::PHASE != phase {
        client.marks = client.marks & !mark::PHASE | phase;
        client.next_number = 0;
        client.missed = 0;
    }
    let (number, next) = (client.field, client.next_number);
    if number >= next {
        let is_first = next == 0 && script.habits & habit::FROM_FIRST_HEARD != 0;
        let left_out = if is_first { 0 } else { number - next };
        client.next_number = number.wrapping_add(1);
        client.missed = if left_out < 7 {
            // The new number is bit 0, which came; below it stand those that were left out.
            let left_out_bits = (1_u8 << left_out) - 1;
            client.missed << left_out << 1 | left_out_bits << 1
        } else {
            u8::MAX << 1
        };
        if left_out > 0 {
            count(Count::Gaps, 1);
            count(Count::Missing, u64::from(left_out));
        }
    } else {
        let back = next - 1 - number;
        let bit = if back < 8 { 1_u8 << back } else { 0 };
        if client.missed & bit == 0 {
            count(Count::Duplicates, 1);
            return;
        }
        client.missed &= !bit;
        count(Count::OrderFaults, 1);
        count(Count::Missing, u64::MAX);
    }
    count(Count::Messages, 1);
    // SAFETY: the helper reads a clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    count_delay(delay_bucket(now_ns.saturating_sub(client.sent_ns)));
    if let Some(broadcast) = BROADCASTS.get_ptr_mut(broadcast_index(script.streams, stream, number)) {
        // SAFETY: the pointer is into a live map value. Of two CPUs that write it at once, one may be behind by as much as
        // that takes.
        unsafe { *broadcast = Broadcast { sent_ns: client.sent_ns, last_ns: now_ns } };
    }
}
