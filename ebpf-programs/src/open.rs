//! How many connections a source has open, which the filter limits new ones by.
//!
//! Counted whether or not there is a limit, so that one that is set holds at once. Connections from before the program was there
//! are not counted. The count errs towards forgiving: a source whose last connection closes in the same instant as another opens
//! may lose that one from its count.

use abi::limits::Limits;
use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap};

use crate::{
    counting::{add_atomically, take_one},
    limits::{masked_v4, masked_v6},
    maps::{LIMITS, OPEN_V4, OPEN_V6},
    socket::Peer,
};

/// A connection of `source` opened.
#[inline(always)]
pub fn opened(generation: u32, source: &Peer) {
    let Some(limits) = LIMITS.get(generation) else { return };
    match source.v4() {
        Some(address) => add(&OPEN_V4, &source_v4(limits, &address)),
        None => add(&OPEN_V6, &source_v6(limits, &source.mapped())),
    }
}

/// One closed that [`opened`] was told of.
#[inline(always)]
pub fn closed(generation: u32, source: &Peer) {
    let Some(limits) = LIMITS.get(generation) else { return };
    match source.v4() {
        Some(address) => take(&OPEN_V4, &source_v4(limits, &address)),
        None => take(&OPEN_V6, &source_v6(limits, &source.mapped())),
    }
}

/// A rule set that nobody wrote limits to has no masks either; then each address is a source, and in IPv6 each network of 64 bits.
#[inline(always)]
fn source_v4(limits: &Limits, address: &[u8; 4]) -> [u8; 4] {
    if limits.v4_bits == 0 { *address } else { masked_v4(address, &limits.v4_mask) }
}

#[inline(always)]
fn source_v6(limits: &Limits, address: &[u8; 16]) -> [u8; 16] {
    const USUAL: [u8; 16] = abi::limits::mask(abi::limits::V6_BITS);
    masked_v6(address, if limits.v6_bits == 0 { &USUAL } else { &limits.v6_mask })
}

#[inline(always)]
fn add<K, const N: usize, const F: usize>(open: &HashMap<K, u64, N, F>, source: &K) {
    if let Some(count) = open.get_ptr_mut(source) {
        // SAFETY: an aligned word of a live map value; an entry that is reused meanwhile miscounts one connection.
        return unsafe { add_atomically(count, 1) };
    }
    if open.insert(source, 1, BPF_NOEXIST.into()).is_ok() {
        return;
    }
    // Another CPU was quicker, or the table is full.
    if let Some(count) = open.get_ptr_mut(source) {
        // SAFETY: as above.
        unsafe { add_atomically(count, 1) };
    }
}

#[inline(always)]
fn take<K, const N: usize, const F: usize>(open: &HashMap<K, u64, N, F>, source: &K) {
    let Some(count) = open.get_ptr_mut(source) else { return };
    // SAFETY: as in `add`.
    let left = unsafe { take_one(count) };
    // SAFETY: as in `add`; volatile because other CPUs write it.
    if left == Some(0) && unsafe { count.read_volatile() } == 0 {
        // Gone already when another CPU did the same.
        let _ = open.remove(source);
    }
}
