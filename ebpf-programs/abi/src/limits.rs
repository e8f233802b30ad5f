//! What one source may do to the protected ports, and what the kernel remembers of it.
//!
//! A rate is held by the generic cell rate algorithm (ITU-T I.371): per source one moment, the *theoretical arrival time*,
//! which each packet moves by the interval of the rate. A packet that would move it further ahead of the clock than the
//! burst allows is over the limit. It is a token bucket in one word.

use crate::rules::{V4, V6};

/// Width of a source in IPv4, unless set otherwise: one address.
pub const V4_BITS: u16 = 32;
/// Width of a source in IPv6, unless set otherwise: one subscriber's network.
pub const V6_BITS: u16 = 64;

/// The limits of one rule set. All zeros: none.
///
/// Rates and bursts are kept as the operator said them, beside what the kernel computes with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Nanoseconds between packets at the rate; 0 = packets are not limited.
    pub packet_interval_ns: u64,
    /// How far the packets may run ahead: the burst in intervals.
    pub packet_credit_ns: u64,
    /// Nanoseconds between new connections at the rate; 0 = they are not limited.
    pub connect_interval_ns: u64,
    /// How far the new connections may run ahead.
    pub connect_credit_ns: u64,
    /// Packets per second, as said.
    pub packets_per_s: u32,
    /// Packets at once, as said.
    pub packet_burst: u32,
    /// New connections per second, as said.
    pub connects_per_s: u32,
    /// New connections at once, as said.
    pub connect_burst: u32,
    /// Connections that a source may have open; 0 = as many as it likes.
    pub most_open: u32,
    /// Bits of an IPv4 address that make a source.
    pub v4_bits: u16,
    /// Bits of an IPv6 address that make a source.
    pub v6_bits: u16,
    /// `v4_bits` as a mask, in network byte order.
    pub v4_mask: V4,
    /// [`REMEMBER_V4`] and [`REMEMBER_V6`]: whether all addresses of a source get the same answer from this set's tries.
    pub remember: u32,
    /// `v6_bits` as a mask, in network byte order.
    pub v6_mask: V6,
}

const _: () = assert!(size_of::<Limits>() == 80);

/// What the kernel remembers of a source. The least recently seen make room for new ones, which then start afresh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Theoretical arrival time of its packets, `CLOCK_BOOTTIME`.
    pub packets_at_ns: u64,
    /// The same of its new connections.
    pub connects_at_ns: u64,
    /// Packets that came as far as the limits.
    pub packets: u64,
    /// Those of them that a limit stopped.
    pub over: u64,
    /// What the tries said of it, see [`known`]; 0 = they were not asked.
    pub known: u64,
}

const _: () = assert!(size_of::<SourceState>() == 40);

/// No prefix of a rule or an ISP is longer than an IPv4 source is wide: what holds for one of its addresses holds for all.
pub const REMEMBER_V4: u32 = 1;
/// The same for IPv6.
pub const REMEMBER_V6: u32 = 2;

/// "No prefix's rule, and this ISP", as of an edition of the tables and a generation; never 0.
///
/// A walk through a large trie misses the cache at every step, and an established client sends many packets: what the tries
/// said of its source stands beside its limits until something in the tries changes.
#[inline(always)]
#[must_use]
pub const fn known(edition: u64, generation: u32, isp: u32) -> u64 {
    stamp(edition, generation) << 8 | (isp & 0xff) as u64
}

/// The ISP that `known` tells, if it is of this edition and generation.
#[inline(always)]
#[must_use]
pub const fn known_isp(known: u64, edition: u64, generation: u32) -> Option<u32> {
    if known >> 8 == stamp(edition, generation) & (u64::MAX >> 8) { Some((known & 0xff) as u32) } else { None }
}

/// One more than it need be, so that it is not 0.
#[inline(always)]
const fn stamp(edition: u64, generation: u32) -> u64 {
    (edition + 1) << 1 | (generation & 1) as u64
}

/// `bits` leading ones, as bytes in network order.
#[must_use]
pub const fn mask<const BYTES: usize>(bits: u16) -> [u8; BYTES] {
    let mut mask = [0; BYTES];
    let mut at = 0;
    while at < BYTES {
        let left = (bits as usize).saturating_sub(at * 8);
        mask[at] = if left >= 8 { 0xff } else { !(0xff_u8 >> left) };
        at += 1;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_holds_for_its_edition_and_generation_only() {
        for (edition, generation, isp) in [(0, 0, 0), (0, 1, 255), (7, 0, 3), (1 << 50, 1, 1)] {
            let known = known(edition, generation, isp);
            assert_ne!(known, 0);
            assert_eq!(known_isp(known, edition, generation), Some(isp));
            assert_eq!(known_isp(known, edition + 1, generation), None);
            assert_eq!(known_isp(known, edition, 1 - generation), None);
            assert_eq!(known_isp(0, edition, generation), None);
        }
    }

    #[test]
    fn a_mask_is_leading_ones() {
        assert_eq!(mask::<4>(32), [255; 4]);
        assert_eq!(mask::<4>(24), [255, 255, 255, 0]);
        assert_eq!(mask::<4>(9), [255, 128, 0, 0]);
        assert_eq!(mask::<4>(0), [0; 4]);
        assert_eq!(mask::<16>(64), [255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(mask::<16>(200), [255; 16]);
    }
}
