//! How what is sent to an ISP's clients is held to his egress rate, and what came of it.
//!
//! Per ISP one moment, as in [`limits`](crate::limits): each packet moves it by the time that its bytes take at the rate. As far
//! as the burst allows it may run ahead of the clock at no cost; what runs ahead further is delayed by just that, and what would be
//! delayed beyond a horizon is refused. The delaying is a queue's work: `fq` holds a packet until its departure time; else
//! a class of HTB, whose rate userspace keeps equal to the ISP's, does the arithmetic too.

/// Value of [`Shaping::backend`]: nothing is shaped, nothing counted.
pub const OFF: u32 = 0;
/// Value of [`Shaping::backend`]: packets get departure times, which `fq` observes.
pub const DEPARTURES: u32 = 1;
/// Value of [`Shaping::backend`]: packets get classes, which HTB observes.
pub const CLASSES: u32 = 2;

/// Delay from which on packets are marked as having met congestion, where the connection takes such marks.
pub const MARK_AFTER_NS: u64 = 1_000_000;

/// Upper half of the handles of queues that we set up. By it we know them again.
pub const HANDLE: u32 = 0x5053;

/// One entry: which back-end works where.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shaping {
    /// [`OFF`], [`DEPARTURES`] or [`CLASSES`].
    pub backend: u32,
    /// Interface that the program was attached to. Only userspace reads this and what follows, except the horizon.
    pub interface_index: u32,
    /// Inode of its network namespace.
    pub namespace: u64,
    /// Delay at which packets are refused instead.
    pub horizon_ns: u64,
    /// 1: the root queue is ours, and goes when shaping does.
    pub queue_is_ours: u32,
    /// 1: the `clsact` that holds the program is ours, likewise.
    pub clsact_is_ours: u32,
}

const _: () = assert!(size_of::<Shaping>() == 32);

/// The moment that an ISP's egress has reached, and the burst that it was computed with; alone in its cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shaper {
    /// Departure time of the next packet, did none go ahead (`CLOCK_MONOTONIC`, which is what `fq` goes by).
    pub at_ns: u64,
    /// How far ahead packets could go at no cost.
    pub credit_ns: u64,
    /// Zeros.
    pub reserved: [u64; 6],
}

impl Shaper {
    /// The moment for another credit. No packet departs before one that got its time earlier, or they would arrive out of order,
    /// which TCP takes for a loss.
    #[inline(always)]
    #[must_use]
    pub const fn moved(at_ns: u64, old_credit_ns: u64, credit_ns: u64, now_ns: u64) -> u64 {
        let departure_ns = at_ns.saturating_sub(old_credit_ns);
        if departure_ns > now_ns {
            return departure_ns.saturating_add(credit_ns);
        }
        // Nothing waits. What was spent of the credit stays spent, as far as the new one goes.
        let most_ns = now_ns.saturating_add(credit_ns);
        if at_ns < most_ns { at_ns } else { most_ns }
    }
}

const _: () = assert!(size_of::<Shaper>() == 64);

/// What went to one ISP's clients from the protected ports, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapeCounter {
    /// Packets on the wire, those of an aggregate each.
    pub packets: u64,
    /// Their bytes, each with its headers from Ethernet on.
    pub bytes: u64,
    /// Those of the packets that got a later departure time. With classes nobody but HTB knows.
    pub delayed_packets: u64,
    /// Those of them that were marked.
    pub marked_packets: u64,
    /// Packets refused because they would have waited beyond the horizon; not counted above.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

const _: () = assert!(size_of::<ShapeCounter>() == 48);

/// Handle of the class that holds an ISP to his rate.
#[inline(always)]
#[must_use]
pub const fn class_of(isp: u32) -> u32 {
    (HANDLE << 16) | isp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_credit_lets_no_packet_overtake_one_that_waits() {
        let now_ns = 1_000;
        // The last one departs at 1,200.
        for credit_ns in [0, 50, 5_000] {
            assert_eq!(Shaper::moved(1_500, 300, credit_ns, now_ns) - credit_ns, 1_200);
        }
        assert_eq!(Shaper::moved(1_250, 300, 500, now_ns), 1_250, "spent stays spent");
        assert_eq!(Shaper::moved(1_250, 300, 100, now_ns), 1_100, "as far as the new credit goes");
        assert_eq!(Shaper::moved(0, 0, 500, now_ns), 0, "whoever never sent has all of it");
    }
}
