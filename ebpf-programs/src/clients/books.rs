//! Message numbers: what was due, what came, and how long it took.

use abi::clients::{
    Broadcast, Client, Count, LAST_BEHIND_NS, Script, UNHEARD, broadcast_index, delay_bucket, habit, mark, state,
};
use aya_ebpf::bindings::BPF_NOEXIST;

use crate::maps::{BROADCASTS, HEARD_FROM, HEARD_RUN, count, count_delay, now_ns};

/// What messages are counted as.
struct Columns {
    messages: Count,
    gaps: Count,
    order_faults: Count,
    duplicates: Count,
}

/// To those who are owed them.
const OWED: Columns = Columns {
    messages: Count::Messages,
    gaps: Count::Gaps,
    order_faults: Count::OrderFaults,
    duplicates: Count::Duplicates,
};

/// To the others.
const ASTRAY: Columns = Columns {
    messages: Count::AstrayMessages,
    gaps: Count::AstrayGaps,
    order_faults: Count::AstrayOrderFaults,
    duplicates: Count::AstrayDuplicates,
};

/// Begins the books of a client that has come back, in the middle of the phase.
#[inline(always)]
pub fn begin_anew(script: &Script, client: &mut Client) {
    client.marks = client.marks & !mark::PHASE | (script.phase << mark::PHASE_SHIFT) as u8;
    client.next_number = UNHEARD;
    client.missed = 0;
}

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
pub fn enter(script: &Script, stream: u32, client_number: u32, client: &mut Client) {
    let is_owed = !state::is_astray(client.state);
    let columns = if is_owed { OWED } else { ASTRAY };
    let phase = (script.phase << mark::PHASE_SHIFT) as u8;
    if client.marks & mark::PHASE != phase {
        client.marks = client.marks & !mark::PHASE | phase;
        client.next_number = 0;
        client.missed = 0;
    }
    let number = client.field;
    if client.next_number == UNHEARD {
        client.next_number = number;
        if let Some(from) = HEARD_FROM.get_ptr_mut(client_number) {
            // SAFETY: the pointer is into a live map value, which one client's segments write one at a time.
            unsafe { *from = number };
        }
    }
    let next = client.next_number;
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
            count(columns.gaps, 1);
            count(Count::Missing, if is_owed { u64::from(left_out) } else { 0 });
        }
    } else {
        let back = next - 1 - number;
        let bit = if back < 8 { 1_u8 << back } else { 0 };
        if client.missed & bit == 0 {
            count(columns.duplicates, 1);
            return;
        }
        client.missed &= !bit;
        count(columns.order_faults, 1);
        count(Count::Missing, if is_owed { u64::MAX } else { 0 });
    }
    count(columns.messages, 1);
    if !is_owed {
        return;
    }
    let now_ns = now_ns();
    count_delay(delay_bucket(now_ns.saturating_sub(client.sent_ns)));
    if let Some(broadcast) = BROADCASTS.get_ptr_mut(broadcast_index(script.streams, stream, number)) {
        // SAFETY: the pointer is into a live map value. Of two CPUs that write it at once, one may be behind by as much as
        // that takes.
        let broadcast = unsafe { &mut *broadcast };
        if now_ns > broadcast.last_ns + LAST_BEHIND_NS {
            *broadcast = Broadcast { sent_ns: client.sent_ns, last_ns: now_ns };
        }
    }
}
