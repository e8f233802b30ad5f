//! Which traffic is ours to look at: the protected ports of the protected addresses.

use abi::{
    rules::V6,
    settings::{ONLY_LISTED_ADDRESSES, Settings},
};

use crate::{
    maps::{ADDRESSES, PROTECTED},
    packet::Address,
};

/// Whether `port` is one of the protected TCP ports.
#[inline(always)]
pub fn is_protected(port: u16) -> bool {
    let (word, bit) = abi::maps::port_bit(port);
    matches!(PROTECTED.get(word), Some(ports) if ports & bit != 0)
}

/// Whether this host is to be guarded at `address`.
#[inline(always)]
pub fn is_guarded(settings: &Settings, address: &Address) -> bool {
    settings.addresses != ONLY_LISTED_ADDRESSES || is_listed(&address.mapped())
}

/// Whether `address`, IPv4 mapped, is among those listed.
#[inline(always)]
pub fn is_listed(address: &V6) -> bool {
    // SAFETY: only its presence is asked for.
    unsafe { ADDRESSES.get(address) }.is_some()
}
