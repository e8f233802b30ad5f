//! What is measured of connections, by the ISP of the client.
//!
//! Openings, closings and retransmissions are counted for every connection: they are rare. What would cost something for each
//! acknowledgement (round-trip times, segments) is taken of one connection in [`Measuring::one_in`], chosen at random when it
//! opens, so the others pay nothing. Shares and distributions are the same.

/// Buckets of the round-trip times. Bucket `b` counts those of `2^b` microseconds up to the next power of two; the first and
/// the last take what lies beyond.
pub const RTT_BUCKETS: usize = 24;

/// One entry: how closely to look.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measuring {
    /// One connection in so many is sampled; 0 = none.
    pub one_in: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Measuring>() == 8);

/// What one ISP's connections saw, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Connections opened by clients.
    pub opened: u64,
    /// Those of them that closed.
    pub closed: u64,
    /// Segments sent again, of all connections.
    pub retransmissions: u64,
    /// Data segments sent, of sampled connections; those sent again included.
    pub sampled_segments: u64,
    /// Segments sent again, of sampled connections: their share of the segments is the loss.
    pub sampled_retransmissions: u64,
    /// Round-trip times: one of each connection's opening, and one for each acknowledgement that told a sampled connection's.
    pub rtt_count: u64,
    /// Their sum in microseconds, smoothed as TCP does it.
    pub rtt_sum_us: u64,
    /// Zero.
    pub reserved: u64,
    /// Their distribution.
    pub rtt: [u64; RTT_BUCKETS],
}

const _: () = assert!(size_of::<Measured>() == 256);

/// What a sampled connection had sent when it was last looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Data segments.
    pub segments: u32,
    /// Segments sent again.
    pub retransmissions: u32,
}

const _: () = assert!(size_of::<Sampled>() == 8);

/// Bucket of a round-trip time.
#[inline(always)]
#[must_use]
pub const fn rtt_bucket(rtt_us: u32) -> usize {
    let bucket = 31 - (rtt_us | 1).leading_zeros() as usize;
    if bucket < RTT_BUCKETS { bucket } else { RTT_BUCKETS - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_time_lies_between_two_powers_of_two() {
        for (rtt_us, bucket) in
            [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (1_000, 9), (1_024, 10), (8_388_608, 23), (u32::MAX, 23)]
        {
            assert_eq!(rtt_bucket(rtt_us), bucket, "{rtt_us} us");
        }
    }
}
