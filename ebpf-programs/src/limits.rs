//! What one source may do: packets per second, new connections per second, connections at once.
//!
//! A source that was not seen lately starts with its whole burst, so its first packet always passes. What it owes lives in an
//! LRU table: under a flood of invented sources an honest one may be forgotten, which forgives it, and never blames it.

use abi::{
    limits::{self, Limits, REMEMBER_V4, REMEMBER_V6, SourceState},
    rules::{V4, V6},
    verdict::Reason,
};
use aya_ebpf::bindings::BPF_ANY;

use crate::{
    clock::Moment,
    counting::{add_atomically, take},
    maps::{LIMITS, OPEN_V4, OPEN_V6, SOURCES_V4, SOURCES_V6},
    packet::{Address, Packet},
};

/// A source as the limits of a generation see it: `None` and `None` where there are none.
pub struct Source {
    limits: Option<&'static Limits>,
    state: Option<*mut SourceState>,
}

/// No limits.
pub const UNLIMITED: Source = Source { limits: None, state: None };

/// Looks the source of a packet up, and writes down what it is called there.
#[inline(always)]
pub fn recall(generation: u32, packet: &mut Packet) -> Source {
    let Some(limits) = LIMITS.get(generation) else { return UNLIMITED };
    if !has_rates(limits) && limits.most_open == 0 {
        return UNLIMITED;
    }
    packet.key = packet.source.masked(&limits.v4_mask, &limits.v6_mask);
    let state = if !has_rates(limits) {
        None
    } else if packet.key.is_v4 {
        SOURCES_V4.get_ptr_mut(packet.key.v4())
    } else {
        SOURCES_V6.get_ptr_mut(packet.key.v6())
    };
    Source { limits: Some(limits), state }
}

impl Source {
    /// The ISP of the source, if it is remembered, and then no prefix's rule speaks of it.
    #[inline(always)]
    pub fn known_isp(&self, edition: u64, generation: u32) -> Option<u32> {
        // SAFETY: an aligned word of a live map value, which other CPUs write; an entry that is reused meanwhile costs one
        // misjudged packet.
        let known = unsafe { (&raw const (*self.state?).known).read_volatile() };
        limits::known_isp(known, edition, generation)
    }

    /// Remembers that no prefix's rule speaks of the source, and its ISP.
    #[inline(always)]
    pub fn remember(&self, key: &Address, edition: u64, generation: u32, isp: u32) {
        let may = if key.is_v4 { REMEMBER_V4 } else { REMEMBER_V6 };
        if let (Some(state), Some(limits)) = (self.state, self.limits)
            && limits.remember & may != 0
        {
            // SAFETY: as above.
            unsafe { (&raw mut (*state).known).write_volatile(limits::known(edition, generation, isp)) };
        }
    }

    /// Charges a packet to the source, and says which limit it is over, if any.
    #[inline(always)]
    pub fn exceeded(&self, key: &Address, is_connect: bool, moment: &mut Moment) -> Option<Reason> {
        let limits = self.limits?;
        if has_rates(limits) {
            match self.state {
                Some(state) => {
                    if let Some(reason) = over_rate(limits, state, is_connect, moment.ns()) {
                        return Some(reason);
                    }
                }
                None => begin(limits, key, is_connect, moment.ns()),
            }
        }
        if !is_connect || limits.most_open == 0 {
            return None;
        }
        // SAFETY: one aligned word that other CPUs may change, read once.
        over_open(limits, unsafe { if key.is_v4 { OPEN_V4.get(key.v4()) } else { OPEN_V6.get(key.v6()) } })
    }
}

#[inline(always)]
fn begin(limits: &Limits, key: &Address, is_connect: bool, now_ns: u64) {
    let state = newcomer(limits, is_connect, now_ns);
    // Refused when the table is full of sources that are all busy: not remembered, hence not limited.
    let _full = if key.is_v4 {
        SOURCES_V4.insert(key.v4(), state, BPF_ANY.into())
    } else {
        SOURCES_V6.insert(key.v6(), state, BPF_ANY.into())
    };
}

#[inline(always)]
fn has_rates(limits: &Limits) -> bool {
    limits.packet_interval_ns | limits.connect_interval_ns != 0
}

/// What is remembered of a source with its first packet, which passes.
#[inline(always)]
fn newcomer(limits: &Limits, is_connect: bool, now_ns: u64) -> SourceState {
    SourceState {
        packets_at_ns: now_ns + limits.packet_interval_ns,
        connects_at_ns: if is_connect { now_ns + limits.connect_interval_ns } else { 0 },
        packets: 1,
        over: 0,
        known: 0,
    }
}

#[inline(always)]
fn over_rate(limits: &Limits, state: *mut SourceState, is_connect: bool, now_ns: u64) -> Option<Reason> {
    // SAFETY: the fields are 8-byte aligned words of a live map value; an entry that is reused meanwhile charges another source
    // with one packet.
    unsafe {
        add_atomically(&raw mut (*state).packets, 1);
        // What is not limited is not asked for: its moment may be ahead, by a limit of before or by a CPU that read its clock after us.
        let over_packets = limits.packet_interval_ns != 0
            && is_over(&raw mut (*state).packets_at_ns, now_ns, limits.packet_interval_ns, limits.packet_credit_ns);
        let over_connects = is_connect
            && !over_packets
            && limits.connect_interval_ns != 0
            && is_over(&raw mut (*state).connects_at_ns, now_ns, limits.connect_interval_ns, limits.connect_credit_ns);
        let reason = match (over_packets, over_connects) {
            (true, _) => Reason::PacketRate,
            (false, true) => Reason::ConnectRate,
            (false, false) => return None,
        };
        add_atomically(&raw mut (*state).over, 1);
        Some(reason)
    }
}

/// # Safety
///
/// As for [`take`].
#[inline(always)]
unsafe fn is_over(moment: *mut u64, now_ns: u64, interval_ns: u64, credit_ns: u64) -> bool {
    // SAFETY: the caller vouches for `moment`. A packet costs no more than the credit, so that is how far ahead one leaves it.
    !unsafe { take(moment, now_ns, interval_ns, credit_ns, credit_ns) }
}

#[inline(always)]
fn over_open(limits: &Limits, open: Option<&u64>) -> Option<Reason> {
    if *open? >= u64::from(limits.most_open) { Some(Reason::OpenConnections) } else { None }
}

/// The source that an IPv4 address belongs to.
#[inline(always)]
pub fn masked_v4(address: &V4, mask: &V4) -> V4 {
    (u32::from_ne_bytes(*address) & u32::from_ne_bytes(*mask)).to_ne_bytes()
}

/// The source that an IPv6 address belongs to.
#[inline(always)]
pub fn masked_v6(address: &V6, mask: &V6) -> V6 {
    (u128::from_ne_bytes(*address) & u128::from_ne_bytes(*mask)).to_ne_bytes()
}
