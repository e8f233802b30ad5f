//! How a phase goes: which orders are due, what was heard last, since when it has been quiet, and at what rate it went.

use std::time::{Duration, Instant};

use super::behaviour::TimedOrder;
use super::engine::Gauges;
use super::report::OrderReport;

/// How a phase goes.
pub(super) struct Course {
    pub(super) began: Instant,
    pub(super) published_from: Instant,
    /// By time.
    orders: Vec<TimedOrder>,
    /// orders[..given.len()] have been given.
    pub(super) given: Vec<OrderReport>,
    /// The engine's count when the phase began.
    pub(super) received_before: u64,
    pub(super) last_received: u64,
    last_received_at: Option<Instant>,
    returning: u64,
    /// Since when nothing was heard and nobody came back.
    pub(super) quiet_since: Instant,
}

impl Course {
    pub(super) fn begin(orders: &[TimedOrder], gauges: Gauges) -> Self {
        let now = Instant::now();
        let mut orders = orders.to_vec();
        orders.sort_by_key(|timed| timed.after_ms);
        Self {
            began: now,
            published_from: now,
            orders,
            given: Vec::new(),
            received_before: gauges.received,
            last_received: gauges.received,
            last_received_at: None,
            returning: gauges.returning,
            quiet_since: now,
        }
    }

    pub(super) fn due_order(&self) -> Option<&TimedOrder> {
        let next = self.orders.get(self.given.len())?;
        (self.began.elapsed() >= Duration::from_millis(u64::from(next.after_ms))).then_some(next)
    }

    pub(super) fn all_given(&self) -> bool {
        self.given.len() == self.orders.len()
    }

    pub(super) fn note(&mut self, gauges: &Gauges) {
        let now = Instant::now();
        if gauges.received > self.last_received {
            (self.last_received, self.last_received_at, self.quiet_since) = (gauges.received, Some(now), now);
        }
        if gauges.returning != self.returning {
            (self.returning, self.quiet_since) = (gauges.returning, now);
        }
    }

    /// From the start of publishing, or listening, to the last message heard.
    pub(super) fn listened(&self) -> Duration {
        self.last_received_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(self.published_from))
    }
}

/// A rate per second over about a second, and the highest of them.
#[derive(Default)]
pub(super) struct Meter {
    since: Option<(Instant, u64)>,
    pub(super) rate: f64,
    pub(super) peak: f64,
}

impl Meter {
    pub(super) fn note(&mut self, count: u64) {
        let now = Instant::now();
        let (at, before) = *self.since.get_or_insert((now, count));
        let seconds = (now - at).as_secs_f64();
        if seconds >= 1.0 {
            self.rate = count.saturating_sub(before) as f64 / seconds;
            self.peak = self.peak.max(self.rate);
            self.since = Some((now, count));
        }
    }
}
