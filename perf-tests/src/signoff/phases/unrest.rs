//! Phases in which some clients are trouble: they leave and come back, stop reading, or reconnect all at once.

use std::time::Duration;

use super::{Crowd, PhaseError, Stage, closed};
use crate::load::behaviour::{Goodbye, Order, TimedOrder};
use crate::load::conduct;
use crate::load::report::PhaseReport;
use crate::signoff::profile::Phase;

/// How long a client stays away that comes back.
const AWAY_MS: u32 = 100;

/// A storm begins when the messages have.
const STORM_AFTER_MS: u32 = 500;

/// Age that a debt may have when the profile says nothing: the edge's own default.
const DEBT_AGE_MS: u64 = 10_000;

/// How long the edge may take beyond that to close a client that does not read.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);

impl Stage<'_> {
    pub(super) fn churn(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        let per_second = phase.share.unwrap_or(0.0) * f64::from(self.set_up.clients);
        let order = Order::Churn { per_second, goodbye: Goodbye::Mixed, away_ms: AWAY_MS };
        let Some(report) = self.under(phase, crowd, TimedOrder { after_ms: 0, order })? else { return Ok(()) };
        self.record(phase, "not_joined", report.returns.not_back as f64);
        self.record(phase, "returns", report.returns.back as f64);
        Ok(())
    }

    pub(super) fn storm(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        let share = phase.share.unwrap_or(0.0);
        let order = Order::Reconnect { share, goodbye: Goodbye::Reset, away_ms: 0 };
        let Some(report) = self.under(phase, crowd, TimedOrder { after_ms: STORM_AFTER_MS, order })? else {
            return Ok(());
        };
        self.record(phase, "not_joined", report.returns.not_back as f64);
        self.record(phase, "returns", report.returns.back as f64);
        if let Some(back) = &report.returns.back_us {
            self.record(phase, "recovered_seconds", back.max as f64 / 1e6);
        }
        Ok(())
    }

    /// The same messages twice: while everybody reads, and while some do not.
    pub(super) fn slow(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        let publish = self.publish(Some(phase));
        let calm = crowd.conductor.publish(&conduct::Phase::new(&phase.name, publish.clone()))?;
        let before = self.moment()?;
        self.recorder.watch_debts(&self.site.edge);
        let order = Order::StopReading { share: phase.share.unwrap_or(0.0) };
        let slow = conduct::Phase {
            orders: vec![TimedOrder { after_ms: 0, order }],
            closes_within: Duration::from_millis(self.debt_age_ms()) + CLOSES_WITHIN,
            ..conduct::Phase::new(&phase.name, publish)
        };
        let report = crowd.conductor.publish(&slow);
        let owed_mb = self.recorder.most_owed_bytes() / 1e6;
        let report = report?;
        let cost = self.cost_since(&before)?;
        if self.stopped() {
            return Ok(());
        }
        self.record_messages(phase, &report, &cost);
        self.tell_troubles(phase, &report);
        let p99 = |report: &PhaseReport| report.delay_us.as_ref().map_or(f64::NAN, |delay| delay.p99 as f64);
        let stopped = &report.astray.stopped;
        let closed_by_edge = stopped.closed_by_server.values().sum::<u64>() as f64;
        for (figure, value) in [
            ("others_p99_growth", p99(&report) / p99(&calm)),
            ("owed_mb", owed_mb),
            ("stuck", stopped.stuck as f64),
            ("uncounted", (closed_by_edge - cost.edge("push_closed_total")).max(0.0)),
            ("closed", closed(&report)),
        ] {
            self.record(phase, figure, value);
        }
        Ok(())
    }

    fn debt_age_ms(&self) -> u64 {
        let limits = self.profile.daemons.push_daemon.get("limits");
        let age = limits.and_then(|limits| limits.get("debt_age_ms")?.as_integer());
        age.and_then(|age| u64::try_from(age).ok()).unwrap_or(DEBT_AGE_MS)
    }

    /// Publishes while the order is in force. `None`: interrupted.
    fn under(
        &mut self,
        phase: &Phase,
        crowd: &mut Crowd<'_>,
        order: TimedOrder,
    ) -> Result<Option<PhaseReport>, PhaseError> {
        let before = self.moment()?;
        let what =
            conduct::Phase { orders: vec![order], ..conduct::Phase::new(&phase.name, self.publish(Some(phase))) };
        let report = crowd.conductor.publish(&what)?;
        let cost = self.cost_since(&before)?;
        if self.stopped() {
            return Ok(None);
        }
        self.record_messages(phase, &report, &cost);
        self.record(phase, "closed", closed(&report));
        self.tell_troubles(phase, &report);
        Ok(Some(report))
    }
}
