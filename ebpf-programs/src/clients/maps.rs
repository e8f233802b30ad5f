//! The tables. Userspace sizes `CLIENTS` and what goes with it when it loads the object; nothing is pinned.

use abi::clients::{Broadcast, COUNTS, Client, Count, DELAY_BUCKETS, GREETING_BYTES, Late, STAMP_END, Script};
use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};

/// Userspace may map the table (`BPF_F_MMAPABLE`, Linux 5.5).
const MMAPABLE: usize = 1 << 10;
/// Replaced by userspace with the number of clients.
const CLIENTS_UNTIL_SIZED: usize = 1024;
/// 43,690 acknowledgements with the kernel's header of each: 0.2 s of 200,000 segments a second.
const LATE_BYTES: usize = 1 << 20;
/// Replaced by userspace with the messages of the largest phase.
const BROADCASTS_UNTIL_SIZED: usize = 1024;

/// 0 to what the clients do. Written by userspace, before the first SYN and between phases. Unwritten: nobody is there.
#[btf_map]
pub static SCRIPT: Array<Script, 1> = Array::new();

/// A client's number to how it stands. Written here, and by userspace as [`abi::clients::state`] says, which maps it into its
/// memory because it looks at all of them often.
#[btf_map]
pub static CLIENTS: Array<Client, CLIENTS_UNTIL_SIZED, MMAPABLE> = Array::new();

/// A client's number to the first message that it heard after it had come back in the middle of a phase. Written here; read by
/// userspace.
#[btf_map]
pub static HEARD_FROM: Array<u32, CLIENTS_UNTIL_SIZED> = Array::new();

/// Acknowledgements that userspace says later. Written here; a client that finds no room in it says it at once.
#[btf_map]
pub static LATE: RingBuf<Late, LATE_BYTES> = RingBuf::new();

/// 0 to how many segments have come that could get lost, per CPU.
#[btf_map]
pub static SEGMENTS: PerCpuArray<u32, 1> = PerCpuArray::new();

/// [`Count`] to how often, per CPU. Written here only.
#[btf_map]
pub static CLIENT_COUNTS: PerCpuArray<u64, { COUNTS as usize }> = PerCpuArray::new();

/// Bucket to how many delays, per CPU. Written here only.
#[btf_map]
pub static DELAYS: PerCpuArray<u64, { DELAY_BUCKETS as usize }> = PerCpuArray::new();

/// A message to when it was sent and when the last client heard it. Written here; read by userspace. Messages beyond are
/// not timed.
#[btf_map]
pub static BROADCASTS: Array<Broadcast, BROADCASTS_UNTIL_SIZED> = Array::new();

/// 0 to the run that was heard first, when the script names none. Written here, once; a hash map, because only one of those
/// makes sure of that.
#[btf_map]
pub static HEARD_RUN: HashMap<u32, u32, 1> = HashMap::new();

/// 0 to the auth packet in the making: this CPU's own.
#[btf_map]
pub static GREETING: PerCpuArray<[u8; GREETING_BYTES], 1> = PerCpuArray::new();

/// 0 to the beginning of a packet that a segment cut: this CPU's own. On the stack, the compiler would reach for its bytes
/// in ways that the verifier does not follow.
#[btf_map]
pub static PIECE: PerCpuArray<[u8; STAMP_END as usize], 1> = PerCpuArray::new();

/// 0 to when the segment came that is being read, on the clock of the time stamps: this CPU's own. One look at the clock serves
/// all messages of a segment, and the stack has no room for it.
#[btf_map]
pub static NOW: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Begins a segment.
#[inline(always)]
pub fn look_at_the_clock() {
    if let Some(now_ns) = NOW.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU; the helper reads a clock.
        unsafe { *now_ns = bpf_ktime_get_ns() };
    }
}

/// When the segment came.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: this CPU's own slot, as above.
    NOW.get_ptr(0).map_or(0, |now_ns| unsafe { *now_ns })
}

/// Counts `times` more of `what`.
#[inline(always)]
pub fn count(what: Count, times: u64) {
    add(CLIENT_COUNTS.get_ptr_mut(what as u32), times);
}

/// Counts a delay.
#[inline(always)]
pub fn count_delay(bucket: u32) {
    add(DELAYS.get_ptr_mut(bucket), 1);
}

#[inline(always)]
fn add(counter: Option<*mut u64>, more: u64) {
    if let Some(counter) = counter {
        // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
        unsafe { *counter = (*counter).wrapping_add(more) };
    }
}

/// 0 to how many frames went to sources that a bench invented, per CPU. Written here only.
#[btf_map]
pub static REFUSED: PerCpuArray<u64, 1> = PerCpuArray::new();
