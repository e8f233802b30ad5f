//! Internet service providers: who a prefix belongs to, what his traffic may take, and what it took.
//!
//! An ISP is a small number. Number 0 stands for everybody whose address is in no ISP's prefixes; it has no rates.

/// ISPs of one rule set, number 0 included. A connection and a lane remember the number in one byte.
pub const MAX_ISPS: u32 = 256;

/// The number of those who belong to no ISP.
pub const NO_ISP: u32 = 0;

/// Room for an ISP's name with its closing zero.
pub const NAME_BYTES: usize = 32;

/// Below this a rate is a slip of the pen, and the programs' arithmetic would overflow on a long packet.
pub const LEAST_BYTES_PER_S: u64 = 1_000;

/// A rate, as said and as the kernel computes with it. All zeros: no limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second; 0 = no limit.
    pub bytes_per_s: u64,
    /// Bytes at once.
    pub burst_bytes: u64,
    /// Nanoseconds that 2^20 bytes take at the rate.
    pub ns_per_mib: u64,
    /// Nanoseconds that the burst takes at the rate.
    pub credit_ns: u64,
}

const _: () = assert!(size_of::<Rate>() == 32);

impl Rate {
    /// The rate of `bytes_per_s` with a burst of `burst_bytes`.
    #[must_use]
    pub const fn new(bytes_per_s: u64, burst_bytes: u64) -> Self {
        if bytes_per_s == 0 {
            return Self { bytes_per_s: 0, burst_bytes: 0, ns_per_mib: 0, credit_ns: 0 };
        }
        Self {
            bytes_per_s,
            burst_bytes,
            ns_per_mib: scale(1 << 20, bytes_per_s),
            credit_ns: scale(burst_bytes, bytes_per_s),
        }
    }

    /// Nanoseconds that `bytes` take at the rate.
    #[inline(always)]
    #[must_use]
    pub const fn ns_of(&self, bytes: u64) -> u64 {
        (bytes * self.ns_per_mib) >> 20
    }
}

/// Nanoseconds for `bytes` at `bytes_per_s`.
const fn scale(bytes: u64, bytes_per_s: u64) -> u64 {
    let ns = bytes as u128 * 1_000_000_000 / bytes_per_s as u128;
    if ns > u64::MAX as u128 { u64::MAX } else { ns as u64 }
}

/// One ISP of one rule set. An empty name: there is none of this number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Isp {
    /// What operators call it, closed by a zero.
    pub name: [u8; NAME_BYTES],
    /// What its clients may send to the protected ports; the rest is dropped.
    pub ingress: Rate,
    /// What its clients are sent; the rest waits.
    pub egress: Rate,
}

const _: () = assert!(size_of::<Isp>() == 96);

/// The moment that an ISP's policer has reached (see [`limits`](crate::limits)), alone in its cache line: CPUs contend for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policer {
    /// Theoretical arrival time, `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Zeros.
    pub reserved: [u64; 7],
}

const _: () = assert!(size_of::<Policer>() == 64);

/// What came from one ISP as far as the ISP's look-up, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IspCounter {
    /// Packets that passed.
    pub passed_packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub passed_bytes: u64,
    /// Packets over the ingress rate.
    pub policed_packets: u64,
    /// Their bytes.
    pub policed_bytes: u64,
}

const _: () = assert!(size_of::<IspCounter>() == 32);

/// Place of an ISP of one generation in the table of ISPs.
#[inline(always)]
#[must_use]
pub const fn place(generation: u32, isp: u32) -> u32 {
    (generation & 1) * MAX_ISPS + (isp & (MAX_ISPS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_turns_bytes_into_time() {
        let rate = Rate::new(6_250_000, 62_500);
        assert_eq!(rate.credit_ns, 10_000_000);
        assert_eq!(rate.ns_of(1_500), 240_000);
        assert_eq!(Rate::new(0, 5), Rate::default());
        // The slowest rate and the longest packet do not overflow.
        assert_eq!(Rate::new(LEAST_BYTES_PER_S, 0).ns_of(65_535), 65_535_000_000);
    }
}
