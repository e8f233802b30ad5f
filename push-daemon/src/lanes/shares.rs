//! One rate among several shards.
//!
//! A lane has one bucket on the edge, and each shard takes out of it what it needs, when it needs it: together they
//! cannot take more than flows in, and what a shard with nothing to send does not take is there for the others. While
//! clients wait, a shard takes the part of what there is that its own are of all that wait.
//!
//! The bucket is one word, the moment up to which the lane's time is spent: what has passed since then is what there is.
//! So taking is one exchange, no shard waits for another, and a rate may change in between.
//!
//! Nothing here reads a clock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Lane, MAX_LANES};

const NS_PER_S: u128 = 1_000_000_000;

/// Time before the first moment, so that every bucket begins full.
const HEAD_START: Duration = Duration::from_secs(24 * 3_600);

/// The part of its rate that a lane leaves to what only the kernel sees.
const SPARED_PART: u64 = 32;

/// What flows in this long is the least that a bucket holds: a loop that is busy elsewhere comes back later than asked.
const LEAST_BURST_MS: u64 = 20;

/// Two full frames, the least that a bucket holds.
const LEAST_BURST_BYTES: u64 = 2 * 1_514;

/// The most that a bucket holds: sums of it are far from what an integer takes.
const MOST_BURST_BYTES: u64 = 1 << 60;

/// How far control alone may spend a lane's time in advance.
const LONGEST_CONTROL_NS: u64 = 100_000_000;

/// How fast a lane goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pace {
    /// Bytes per second, a little below the lane's rate; 0 is no bound.
    pub(crate) rate: u64,
    /// Bytes that the bucket holds.
    pub(crate) burst: u64,
}

impl Pace {
    pub(crate) fn of(lane: &Lane) -> Self {
        let rate = lane.rate - lane.rate / SPARED_PART;
        let least = (rate / 1_000).saturating_mul(LEAST_BURST_MS).max(LEAST_BURST_BYTES);
        Self { rate, burst: lane.burst.max(least).min(MOST_BURST_BYTES) }
    }

    pub(crate) fn is_bounded(self) -> bool {
        self.rate > 0
    }

    /// What flows in within `ns`.
    fn bytes_in(self, ns: u64) -> u64 {
        u64::try_from(u128::from(ns) * u128::from(self.rate) / NS_PER_S).unwrap_or(u64::MAX)
    }

    /// How long `bytes` take to flow in.
    fn ns_for(self, bytes: u64) -> u64 {
        let ns = (u128::from(bytes) * NS_PER_S).div_ceil(u128::from(self.rate.max(1)));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// The buckets of all lanes of an edge.
#[derive(Debug)]
pub(crate) struct Shares {
    /// One a lane.
    buckets: Box<[Bucket]>,
    began: Instant,
}

/// On a cache line of its own, so that lanes do not share one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    /// Nanoseconds of the lane's time that are spent.
    spent_until: AtomicU64,
    /// Clients that wait for the lane, on all shards.
    waiting: AtomicU32,
}

impl Shares {
    /// Full buckets.
    pub(crate) fn new() -> Self {
        Self { buckets: (0..MAX_LANES).map(|_| Bucket::default()).collect(), began: Instant::now() }
    }

    /// The time that buckets go by, at `moment`.
    pub(crate) fn time(&self, moment: Instant) -> u64 {
        (HEAD_START + moment.saturating_duration_since(self.began)).as_nanos() as u64
    }

    /// Takes up to `most` bytes out of the bucket of `lane`, for a shard that last did so `since_ns` ago and where `mine`
    /// clients wait. While others wait elsewhere, it gets its part of what has flowed in since, and of what nobody fetches;
    /// so a shard that comes more often gets no more.
    pub(crate) fn take(&self, lane: u8, pace: Pace, now: u64, most: u64, mine: u32, since_ns: u64) -> u64 {
        let bucket = &self.buckets[usize::from(lane)];
        let waiting = bucket.waiting.load(Relaxed);
        // Who has nobody waiting yet, and is not among them.
        let (mine, all) = if mine == 0 { (1, waiting.saturating_add(1)) } else { (mine, waiting.max(mine)) };
        let part = |there: u64| {
            if mine == all {
                return there;
            }
            let part_of = |bytes: u64| (u128::from(bytes) * u128::from(mine) / u128::from(all)) as u64;
            let part = part_of(pace.bytes_in(since_ns)).min(there);
            part + part_of((there - part).saturating_sub(pace.burst / 4))
        };
        let mut taken = 0;
        self.update(lane, pace, now, |from| {
            taken = part(pace.bytes_in(now.saturating_sub(from)).min(pace.burst)).min(most);
            (taken > 0).then(|| from.saturating_add(pace.ns_for(taken)))
        });
        taken
    }

    /// What went beyond what was taken: nobody gets anything until it has flowed in.
    pub(crate) fn charge(&self, lane: u8, pace: Pace, now: u64, bytes: u64) {
        self.update(lane, pace, now, |from| Some(from.saturating_add(pace.ns_for(bytes))));
    }

    /// The same for control, which is sent whatever there is; that others wait for it no longer than a moment is bound to.
    pub(crate) fn charge_control(&self, lane: u8, pace: Pace, now: u64, bytes: u64) {
        self.update(lane, pace, now, |from| {
            let until = from.saturating_add(pace.ns_for(bytes)).min(now + LONGEST_CONTROL_NS);
            (until > from).then_some(until)
        });
    }

    /// Gives back what was taken and not needed.
    pub(crate) fn give_back(&self, lane: u8, pace: Pace, bytes: u64) {
        // One byte less, which is more than taking it had been rounded up by.
        let ns = pace.ns_for(bytes.saturating_sub(1));
        self.buckets[usize::from(lane)].spent_until.fetch_sub(ns, Relaxed);
    }

    /// What is spent beyond `now` is forgotten: the lane goes at another pace from here.
    pub(crate) fn forget(&self, lane: u8, now: u64) {
        self.buckets[usize::from(lane)].spent_until.fetch_min(now, Relaxed);
    }

    /// Moves the moment up to which a lane's time is spent.
    fn update(&self, lane: u8, pace: Pace, now: u64, mut until: impl FnMut(u64) -> Option<u64>) {
        let earliest = now.saturating_sub(pace.ns_for(pace.burst));
        // Nothing to be told: what the closure found out it has kept.
        let _as_it_was = self.buckets[usize::from(lane)]
            .spent_until
            .fetch_update(Relaxed, Relaxed, |spent| until(spent.max(earliest)));
    }

    /// A shard has now `mine` clients that wait for `lane`, where it had `before`.
    pub(crate) fn tell_waiting(&self, lane: u8, before: u32, mine: u32) {
        self.buckets[usize::from(lane)].waiting.fetch_add(mine.wrapping_sub(before), Relaxed);
    }

    /// Milliseconds until there is something again.
    pub(crate) fn ms_until_more(&self, lane: u8, now: u64) -> u32 {
        let spent = self.buckets[usize::from(lane)].spent_until.load(Relaxed);
        u32::try_from(spent.saturating_sub(now) / 1_000_000).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    fn pace(rate: u64, burst: u64) -> Pace {
        Pace::of(&Lane { id: 1, name: "telecom".to_owned(), rate, burst })
    }

    fn start(shares: &Shares) -> u64 {
        shares.time(shares.began)
    }

    #[test]
    fn a_pace_stays_below_its_rate_and_its_bucket_outlasts_a_busy_loop() {
        assert_eq!(pace(32_000_000, 0), Pace { rate: 31_000_000, burst: 620_000 });
        assert_eq!(pace(32_000_000, 1 << 20), Pace { rate: 31_000_000, burst: 1 << 20 });
        assert_eq!(pace(1, 0), Pace { rate: 1, burst: 3_028 });
        assert_eq!(pace(1, u64::MAX).burst, 1 << 60);
        assert!(!pace(0, 5).is_bounded());
    }

    /// A microsecond a byte.
    const PLAIN: Pace = Pace { rate: 1_000_000, burst: 32_000 };

    #[test]
    fn what_one_shard_leaves_is_there_for_another() {
        let shares = Shares::new();
        let now = start(&shares);
        let take = |lane, moment, most| shares.take(lane, PLAIN, moment, most, 0, 0);
        assert_eq!(take(1, now, 20_000), 20_000, "it begins full");
        assert_eq!(take(1, now, 20_000), 12_000);
        assert_eq!(take(1, now, 20_000), 0);
        assert_eq!(take(1, now + 10 * MS, u64::MAX), 10_000);
        shares.give_back(1, PLAIN, 5_001);
        assert_eq!(take(1, now + 10 * MS, u64::MAX), 5_000);
        assert_eq!(take(1, now + 3_600 * SECOND, u64::MAX), 32_000, "it holds no more than its burst");
        assert_eq!(take(2, now, u64::MAX), 32_000, "lanes are apart");
    }

    #[test]
    fn what_went_beyond_has_to_flow_in_first_and_what_was_at_another_pace_is_forgotten() {
        let shares = Shares::new();
        let now = start(&shares);
        shares.charge(1, PLAIN, now, 32_000 + 50_000);
        assert_eq!((shares.take(1, PLAIN, now + 50 * MS, 9, 0, 0), shares.ms_until_more(1, now)), (0, 50));
        assert_eq!(shares.take(1, PLAIN, now + 51 * MS, 9_999, 0, 0), 1_000);
        shares.charge(1, PLAIN, now + 51 * MS, 5_000_000);
        shares.forget(1, now + 51 * MS);
        assert_eq!(shares.take(1, PLAIN, now + 52 * MS, 9_999, 0, 0), 1_000);
    }

    #[test]
    fn control_spends_no_more_than_a_moment_in_advance() {
        let shares = Shares::new();
        let now = start(&shares);
        shares.charge_control(1, PLAIN, now, 40_000);
        assert_eq!(shares.ms_until_more(1, now), 8);
        shares.charge_control(1, PLAIN, now, 5_000_000);
        assert_eq!(shares.ms_until_more(1, now), 100);
        shares.charge(1, PLAIN, now, 100_000);
        shares.charge_control(1, PLAIN, now, 1_000);
        assert_eq!(shares.ms_until_more(1, now), 200, "and takes nothing back");
    }

    #[test]
    fn shards_where_clients_wait_take_by_their_number_however_often_they_come() {
        let shares = Shares::new();
        let now = start(&shares);
        shares.tell_waiting(1, 0, 3);
        shares.tell_waiting(1, 0, 1);
        shares.charge(1, PLAIN, now, 32_000);
        let (mut often, mut seldom) = (0, 0);
        for ms in 1..=1_000 {
            often += shares.take(1, PLAIN, now + ms * MS, u64::MAX, 3, MS);
            if ms % 10 == 0 {
                seldom += shares.take(1, PLAIN, now + ms * MS, u64::MAX, 1, 10 * MS);
            }
        }
        assert_eq!((often, seldom), (750_000, 250_000));
        shares.tell_waiting(1, 3, 0);
        assert_eq!(shares.take(1, PLAIN, now + 1_010 * MS, u64::MAX, 1, 10 * MS), 10_000);
        let newcomer = shares.take(1, PLAIN, now + 1_020 * MS, u64::MAX, 0, 10 * MS);
        assert_eq!(newcomer, 5_000, "beside one who waits elsewhere");
    }

    proptest! {
        /// Shards that come when they like, want what they like, and give back a part of it or go beyond it.
        #[test]
        fn together_they_never_take_more_than_flows_in(
            rate in prop_oneof![1_u64..1_000_000, 1_000_000_u64..20_000_000_000],
            burst in 0_u64..1_000_000,
            steps in prop::collection::vec((0_u64..50_000_000, 0_u64..200_000, 0_u32..20, 0_u64..6), 1..200),
        ) {
            let shares = Shares::new();
            let pace = pace(rate, burst);
            let began = start(&shares);
            let (mut now, mut all) = (began, 0_u64);
            shares.tell_waiting(1, 0, 10);
            for (later, most, mine, then) in steps {
                now += later;
                let taken = shares.take(1, pace, now, most, mine, later);
                prop_assert!(taken <= most);
                all += taken;
                prop_assert!(taken == 0 || all <= pace.burst + pace.bytes_in(now - began), "{} by then", all);
                match then {
                    0..4 if taken > 0 => {
                        let back = taken * then / 4;
                        shares.give_back(1, pace, back);
                        all -= back;
                    }
                    4 => {
                        shares.charge(1, pace, now, most);
                        all += most;
                    }
                    _ => shares.charge_control(1, pace, now, most),
                }
            }
        }

        /// One shard that is always hungry, beside others that say that they wait and never come.
        #[test]
        fn a_shard_that_is_alone_gets_the_whole_rate(rate in 10_000_u64..10_000_000_000, others in 0_u32..3) {
            let shares = Shares::new();
            let pace = pace(rate, 0);
            let began = start(&shares);
            shares.tell_waiting(1, 0, 1 + others);
            let turns: u64 = 2_000;
            let got: u64 = (1..=turns).map(|turn| shares.take(1, pace, began + turn * 5_000_000, u64::MAX, 1, 5_000_000)).sum();
            let due = pace.bytes_in(turns * 5_000_000);
            prop_assert!(got + pace.burst >= due - due / 50, "{} of {}", got, due);
            prop_assert!(got <= due + pace.burst);
        }
    }
}
