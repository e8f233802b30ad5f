//! Whose client sent a packet, and whether his ISP still may.

use abi::{
    isps::{self, IspCounter, MAX_ISPS, NO_ISP},
    rules::v4_in_trie,
    verdict::Reason,
};
use aya_ebpf::btf_maps::lpm_trie::Key;

use crate::{
    clock::Moment,
    counting::take,
    maps::{ISP_COUNTS, ISPS, ISPS_V4, ISPS_V6, POLICERS},
    packet::Address,
    rules::{V4_BITS, V6_BITS},
};

/// What one packet has at most, as far as it matters: one that costs more than the credit may leave the moment that much ahead.
const LONGEST_BYTES: u64 = 65_535;

/// The number of the ISP that `address` belongs to.
#[inline(always)]
pub fn isp_of(generation: u32, address: &Address) -> u32 {
    let isp = if address.is_v4 {
        ISPS_V4.get(generation).and_then(|table| table.get(&Key::new(V4_BITS, v4_in_trie(address.v4()))))
    } else {
        ISPS_V6.get(generation).and_then(|table| table.get(&Key::new(V6_BITS, address.v6())))
    };
    match isp {
        Some(isp) => *isp & (MAX_ISPS - 1),
        None => NO_ISP,
    }
}

/// Charges a packet to the ISP of its source, and says whether it is over the ingress rate.
#[inline(always)]
pub fn exceeded(generation: u32, isp: u32, bytes: u64, moment: &mut Moment) -> Option<Reason> {
    let over = is_over(generation, isp, bytes, moment);
    if let Some(counter) = ISP_COUNTS.get_ptr_mut(isp) {
        count(counter, over, bytes);
    }
    if over { Some(Reason::IspPoliced) } else { None }
}

#[inline(always)]
fn is_over(generation: u32, isp: u32, bytes: u64, moment: &mut Moment) -> bool {
    let Some(entry) = ISPS.get(isps::place(generation, isp)) else { return false };
    if entry.ingress.bytes_per_s == 0 {
        return false;
    }
    let Some(policer) = POLICERS.get_ptr_mut(isp) else { return false };
    let rate = &entry.ingress;
    let most_ahead_ns = rate.credit_ns.saturating_add(rate.ns_of(LONGEST_BYTES));
    // SAFETY: an array's entry lives as long as the program, and `at_ns` is its first word.
    !unsafe { take(&raw mut (*policer).at_ns, moment.ns(), rate.ns_of(bytes), rate.credit_ns, most_ahead_ns) }
}

#[inline(always)]
fn count(counter: *mut IspCounter, over: bool, bytes: u64) {
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    unsafe {
        if over {
            (*counter).policed_packets += 1;
            (*counter).policed_bytes += bytes;
        } else {
            (*counter).passed_packets += 1;
            (*counter).passed_bytes += bytes;
        }
    }
}
