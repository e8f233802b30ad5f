//! Flat out: the edge is stopped while messages are published, and then goes on with all of them.
//!
//! One message after another into one room, each answered when it is on disk, feeds no edge to its peak on a machine where
//! tier, edge and clients share the CPUs. What has piled up in the tier and in the trunk does. The edge sees what it sees
//! after a stall of its host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Crowd, EDGE, PhaseError, Stage, closed};
use crate::load::conduct;
use crate::signoff::profile::Phase;
use crate::signoff::site::{DaemonFigures, SiteError};

/// How often the tier is asked whether it has everything.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The longest that the edge is held. Lines of the trunk and clients bear that.
const HOLD_AT_MOST: Duration = Duration::from_secs(20);

impl Stage<'_> {
    pub(super) fn backlog(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        let publish = self.publish(Some(phase));
        let before = self.moment()?;
        let wanted = pushes(&self.site.tier)? + publish.messages as f64;
        let Some(held) = self.site.processes.get(EDGE).and_then(|pid| Held::stop(*pid)) else { return Ok(()) };
        let (tier, ended, began) = (&self.site.tier, AtomicBool::new(false), Instant::now());
        let (report, held_for) = thread::scope(|scope| {
            let holding = scope.spawn(|| {
                let all = || pushes(tier).is_ok_and(|pushes| pushes >= wanted);
                while began.elapsed() < HOLD_AT_MOST && !ended.load(Ordering::Acquire) && !all() {
                    thread::sleep(LOOK_EVERY);
                }
                drop(held);
                began.elapsed()
            });
            let report = crowd.conductor.publish(&conduct::Phase::new(&phase.name, publish));
            ended.store(true, Ordering::Release);
            (report, holding.join().unwrap_or_default())
        });
        let report = report?;
        let cost = self.cost_since(&before)?;
        if self.stopped() {
            return Ok(());
        }
        self.record_costs(phase, &report, &cost);
        let seconds = report.messages.seconds - held_for.as_secs_f64();
        self.record(phase, "delivered_per_second", report.messages.received as f64 / seconds);
        self.record(phase, "closed", closed(&report));
        self.tell_troubles(phase, &report);
        Ok(())
    }
}

/// Pushes that the tier has answered.
fn pushes(tier: &DaemonFigures) -> Result<f64, SiteError> {
    let figures = tier.read()?;
    Ok(figures.iter().filter(|(name, _)| name.ends_with("_pushes_total")).map(|(_, count)| count).sum())
}

/// A process that does not run until this is dropped.
struct Held(Pid);

impl Held {
    fn stop(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        kill_process(pid, Signal::STOP).ok()?;
        Some(Self(pid))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It fails only when the process is gone, and then there is nothing to let go on.
        let _ = kill_process(self.0, Signal::CONT);
    }
}
