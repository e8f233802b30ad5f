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
    /// Zero.
    pub reserved: u32,
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
}

const _: () = assert!(size_of::<SourceState>() == 32);

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
    fn a_mask_is_leading_ones() {
        assert_eq!(mask::<4>(32), [255; 4]);
        assert_eq!(mask::<4>(24), [255, 255, 255, 0]);
        assert_eq!(mask::<4>(9), [255, 128, 0, 0]);
        assert_eq!(mask::<4>(0), [0; 4]);
        assert_eq!(mask::<16>(64), [255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(mask::<16>(200), [255; 16]);
    }
}
