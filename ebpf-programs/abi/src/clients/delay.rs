//! The histogram of delays: eight steps to each doubling, so that a bucket is at most an eighth wide.

const STEPS: u32 = 8;
const STEP_BITS: u32 = STEPS.ilog2();

/// Doublings that are told apart: from 8 ns to more than an hour.
const DOUBLINGS: u32 = 40;

/// Buckets of the histogram. The last takes all that is longer.
pub const DELAY_BUCKETS: u32 = (DOUBLINGS + 1) * STEPS;

/// The bucket of a delay.
#[inline(always)]
#[must_use]
pub const fn delay_bucket(delay_ns: u64) -> u32 {
    if delay_ns < STEPS as u64 {
        return delay_ns as u32;
    }
    // Not `ilog2`, which panics at 0.
    let doubling = u64::BITS - 1 - delay_ns.leading_zeros() - STEP_BITS;
    let bucket = (doubling + 1) * STEPS + ((delay_ns >> doubling) as u32 & (STEPS - 1));
    if bucket < DELAY_BUCKETS { bucket } else { DELAY_BUCKETS - 1 }
}

/// The shortest delay of a bucket.
#[must_use]
pub const fn delay_bucket_start_ns(bucket: u32) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    ((STEPS + bucket % STEPS) as u64) << (bucket / STEPS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delay_is_in_the_bucket_that_begins_at_it_or_before() {
        for delay in (0..64).chain((3..62).flat_map(|power| [(1 << power) - 1, 1 << power, 3 << (power - 1)])) {
            let bucket = delay_bucket(delay);
            assert!(delay_bucket_start_ns(bucket) <= delay, "{delay}");
            let is_last = bucket == DELAY_BUCKETS - 1;
            assert!(is_last || delay < delay_bucket_start_ns(bucket + 1), "{delay}");
        }
        assert!((0..DELAY_BUCKETS).all(|bucket| delay_bucket(delay_bucket_start_ns(bucket)) == bucket));
    }
}
