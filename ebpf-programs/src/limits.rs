//! What one source may do: packets per second, new connections per second, connections at once.
//!
//! A source that was not seen lately starts with its whole burst, so its first packet always passes. What it owes lives in an
//! LRU table: under a flood of invented sources an honest one may be forgotten, which forgives it, and never blames it.

use abi::{
    limits::{Limits, SourceState},
    rules::{V4, V6},
    verdict::Reason,
};
use aya_ebpf::bindings::BPF_ANY;

use crate::{
    clock::Moment,
    counting::{add_atomically, take},
    maps::{LIMITS, OPEN_V4, OPEN_V6, SOURCES_V4, SOURCES_V6},
    packet::Address,
};

/// The limit that a packet of `source` is over, if any.
#[inline(always)]
pub fn exceeded(generation: u32, source: &Address, is_connect: bool, moment: &mut Moment) -> Option<Reason> {
    let limits = LIMITS.get(generation)?;
    match source {
        Address::V4(address) => {
            let key = masked_v4(address, &limits.v4_mask);
            if has_rates(limits) {
                match SOURCES_V4.get_ptr_mut(key) {
                    Some(state) => {
                        if let Some(reason) = over_rate(limits, state, is_connect, moment.ns()) {
                            return Some(reason);
                        }
                    }
                    // Refused when the table is full of sources that are all busy: not remembered, hence not limited.
                    None => drop(SOURCES_V4.insert(key, newcomer(limits, is_connect, moment.ns()), BPF_ANY.into())),
                }
            }
            if !is_connect || limits.most_open == 0 {
                return None;
            }
            // SAFETY: one aligned word that other CPUs may change, read once.
            over_open(limits, unsafe { OPEN_V4.get(key) })
        }
        Address::V6(address) => {
            let key = masked_v6(address, &limits.v6_mask);
            if has_rates(limits) {
                match SOURCES_V6.get_ptr_mut(key) {
                    Some(state) => {
                        if let Some(reason) = over_rate(limits, state, is_connect, moment.ns()) {
                            return Some(reason);
                        }
                    }
                    // As above.
                    None => drop(SOURCES_V6.insert(key, newcomer(limits, is_connect, moment.ns()), BPF_ANY.into())),
                }
            }
            if !is_connect || limits.most_open == 0 {
                return None;
            }
            // SAFETY: as above.
            over_open(limits, unsafe { OPEN_V6.get(key) })
        }
    }
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
    }
}

#[inline(always)]
fn over_rate(limits: &Limits, state: *mut SourceState, is_connect: bool, now_ns: u64) -> Option<Reason> {
    // SAFETY: the fields are 8-byte aligned words of a live map value; an entry that is reused meanwhile charges another source
    // with one packet.
    unsafe {
        add_atomically(&raw mut (*state).packets, 1);
        let reason =
            if !take(&raw mut (*state).packets_at_ns, now_ns, limits.packet_interval_ns, limits.packet_credit_ns) {
                Reason::PacketRate
            } else if is_connect
                && !take(&raw mut (*state).connects_at_ns, now_ns, limits.connect_interval_ns, limits.connect_credit_ns)
            {
                Reason::ConnectRate
            } else {
                return None;
            };
        add_atomically(&raw mut (*state).over, 1);
        Some(reason)
    }
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
