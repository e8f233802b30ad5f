//! Until when a phase goes on: each wait has its condition, and a deadline.

use std::thread;
use std::time::{Duration, Instant};

use super::{Conductor, LOOK_EVERY, RunError};
use crate::load::course::Course;
use crate::load::publish::{Published, Publishing};
use crate::load::watch::Step;

impl Conductor<'_> {
    /// Waits, between phases, until everybody who is on the way back is there, or nobody has come for the scenario's `settle`.
    /// Says how many are not.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn await_returns(&mut self) -> Result<u64, RunError> {
        let mut course = Course::begin(&[], self.engine.gauges());
        loop {
            let gauges = self.note(&mut course, Step::Settle, 0)?;
            if gauges.returning == 0 || course.quiet_since.elapsed() >= self.scenario.settle || self.stopped() {
                return Ok(gauges.returning);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Until all is published and all orders are given.
    pub(super) fn feed(
        &mut self,
        course: &mut Course,
        publishing: Publishing,
        planned: u64,
    ) -> Result<Published, RunError> {
        course.published_from = publishing.started();
        while !(publishing.is_done() && (course.all_given() || self.stopped())) {
            if self.stopped() {
                publishing.stop();
            }
            self.give_due_orders(course)?;
            self.note(course, Step::Listen, planned)?;
            thread::sleep(LOOK_EVERY);
        }
        Ok(publishing.finish())
    }

    /// Until all that is owed has come and everybody is back, and nothing more comes for a while.
    pub(super) fn await_all(&mut self, course: &mut Course, ends: Option<&[u32]>) -> Result<(), RunError> {
        course.quiet_since = Instant::now();
        let mut outstanding = None;
        loop {
            let expected = course.last_received - course.received_before + outstanding.unwrap_or(0);
            let quiet_since = course.quiet_since;
            let gauges = self.note(course, Step::Settle, expected)?;
            if course.quiet_since != quiet_since {
                outstanding = None;
            }
            let quiet = course.quiet_since.elapsed();
            if quiet >= self.scenario.settle || self.stopped() {
                return Ok(());
            }
            // With everything there, only what should not come can still come.
            if quiet >= self.scenario.linger && gauges.returning == 0 {
                let count = match (outstanding, ends) {
                    (Some(count), _) => count,
                    (None, Some(ends)) => self.engine.outstanding(ends)?,
                    (None, None) => 0,
                };
                if count == 0 {
                    return Ok(());
                }
                outstanding = Some(count);
            }
            thread::sleep(LOOK_EVERY.min(self.scenario.linger).min(self.scenario.settle));
        }
    }

    /// Until the server has closed all who are astray, or had the time to; then looks for closes behind unread data.
    pub(super) fn await_closes(&mut self, course: &mut Course, within: Duration) -> Result<(), RunError> {
        let began = Instant::now();
        while self.note(course, Step::Settle, 0)?.astray > 0 {
            if began.elapsed() >= within || self.stopped() {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        if self.engine.gauges().astray == 0 {
            return Ok(());
        }
        self.engine.look_into_unread()?;
        let (mut closed, mut quiet_since) = (0, Instant::now());
        loop {
            let gauges = self.note(course, Step::Settle, 0)?;
            if gauges.closed_astray != closed {
                (closed, quiet_since) = (gauges.closed_astray, Instant::now());
            }
            if gauges.astray == 0 || quiet_since.elapsed() >= self.scenario.linger {
                return Ok(());
            }
            thread::sleep(LOOK_EVERY.min(self.scenario.linger));
        }
    }
}
