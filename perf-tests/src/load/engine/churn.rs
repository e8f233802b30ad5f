//! A churn: so many goodbyes a second, one after another, each followed by a return.

use std::time::{Duration, Instant};

use crate::load::behaviour::Goodbye;

/// One under way.
#[derive(Debug)]
pub(in crate::load::engine) struct Churning {
    per_second: f64,
    /// How each says goodbye.
    pub(in crate::load::engine) goodbye: Goodbye,
    /// How long each is away.
    pub(in crate::load::engine) away: Duration,
    since: Instant,
    done: u64,
}

impl Churning {
    /// Begins; a rate of 0 is none.
    pub(in crate::load::engine) fn begin(per_second: f64, goodbye: Goodbye, away: Duration) -> Option<Self> {
        (per_second > 0.0).then(|| Self { per_second, goodbye, away, since: Instant::now(), done: 0 })
    }

    /// Goodbyes whose turn has come, at most `most`. They count as said: a turn that finds nobody is gone.
    pub(in crate::load::engine) fn take_due(&mut self, most: u64) -> u64 {
        let due = (self.since.elapsed().as_secs_f64() * self.per_second) as u64;
        let turns = due.saturating_sub(self.done).min(most);
        self.done += turns;
        turns
    }
}
