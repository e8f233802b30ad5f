//! The shard's coarse time: milliseconds since it began, in 32 bits that wrap, less what it was not there for.
//!
//! Nothing here reads a clock: the loop does that once per turn and passes the moment on.

use std::time::{Duration, Instant};

/// A moment. Differences are right as long as they are below 24 days; the longest time-out is far below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tick(pub(crate) u32);

impl Tick {
    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> u32 {
        let difference = self.0.wrapping_sub(earlier.0);
        if difference > u32::MAX / 2 { 0 } else { difference }
    }

    /// The moment `ms` from here.
    pub(crate) fn after(self, ms: u32) -> Self {
        Self(self.0.wrapping_add(ms))
    }

    /// Whether this moment has come by `now`.
    pub(crate) fn is_due(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) <= u32::MAX / 2
    }
}

/// Makes ticks of the moments at which the loop turns.
///
/// A loop that stood still (its process was stopped, its host suspended) has heard nobody meanwhile: what clients said
/// lies unread in their sockets. So one turn counts for no more than `longest_step`, however long it was, and nobody is
/// closed for a silence that was ours. The time of day is not asked at all, and a moment before the last one counts for
/// nothing, so a clock that is set disturbs nobody.
pub(crate) struct Clock {
    now: Tick,
    last: Instant,
    /// Of the time that was counted, what makes no millisecond yet.
    rest: Duration,
    longest_step: Duration,
}

impl Clock {
    /// A clock at 0 that counts at most `longest_step_ms` from one turn to the next.
    pub(crate) fn new(began: Instant, longest_step_ms: u32) -> Self {
        let longest_step = Duration::from_millis(u64::from(longest_step_ms));
        Self { now: Tick(0), last: began, rest: Duration::ZERO, longest_step }
    }

    /// The time of a turn that begins at `moment`, and how much of what passed since the last turn does not count.
    pub(crate) fn turn(&mut self, moment: Instant) -> (Tick, Duration) {
        let passed = moment.saturating_duration_since(self.last);
        self.last = moment;
        let counted = passed.min(self.longest_step);
        self.rest += counted;
        let ms = self.rest.as_millis() as u32;
        self.rest -= Duration::from_millis(u64::from(ms));
        self.now = self.now.after(ms);
        (self.now, passed - counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_as_it_passes_and_no_part_of_it_is_lost() {
        let began = Instant::now();
        let mut clock = Clock::new(began, 100);
        for turn in 1..=3_000 {
            let (now, skipped) = clock.turn(began + Duration::from_micros(333 * turn));
            assert_eq!((u64::from(now.0), skipped), (333 * turn / 1_000, Duration::ZERO));
        }
    }

    #[test]
    fn a_standstill_counts_for_one_step() {
        let began = Instant::now();
        let mut clock = Clock::new(began, 2_000);
        let day = Duration::from_secs(24 * 3_600);
        assert_eq!(clock.turn(began + day), (Tick(2_000), day - Duration::from_secs(2)));
        let after = began + day + Duration::from_millis(5);
        assert_eq!(clock.turn(after), (Tick(2_005), Duration::ZERO), "then it goes on as before");
    }

    #[test]
    fn a_step_back_counts_for_nothing_and_stops_nothing() {
        let began = Instant::now();
        let mut clock = Clock::new(began, 2_000);
        let late = began + Duration::from_millis(1_500);
        assert_eq!(clock.turn(late).0, Tick(1_500));
        assert_eq!(clock.turn(began), (Tick(1_500), Duration::ZERO));
        assert_eq!(clock.turn(began + Duration::from_millis(10)).0, Tick(1_510), "it goes on from there");
    }

    #[test]
    fn differences_survive_the_wrap() {
        let before = Tick(u32::MAX - 9);
        let after = before.after(30);
        assert_eq!(after, Tick(20));
        assert_eq!(after.since(before), 30);
        assert_eq!(before.since(after), 0);
        assert!(before.is_due(after) && !after.is_due(before) && after.is_due(after));
    }
}
