//! Follows the kernel's tables, which `pushctl` edits beside us: takes expired rules out, and turns the ISPs into lanes.
//!
//! A thread of its own: an edit waits for the lock under which a set of a million rules is built, and nobody who serves may.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::kernel::{KernelError, Tables};
use crate::lanes::{Lane, LanePlan};

/// How soon lanes follow a change of the ISPs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The kernel ignores an expired rule at once; this only frees its place.
const SWEEP_EVERY_LOOKS: u32 = 10;

/// Follows while it lives.
pub(super) struct Follower {
    plans: watch::Receiver<LanePlan>,
    // Dropped, it ends the thread, which is not waited for: it may wait for a lock.
    _end: Option<Sender<()>>,
}

impl Follower {
    /// Follows the tables under `pin_root`.
    pub(super) fn start(pin_root: PathBuf) -> std::io::Result<Self> {
        let (tell, plans) = watch::channel(LanePlan::default());
        let (end, ends) = channel();
        thread::Builder::new().name("kernel-tables".into()).spawn(move || {
            let mut seen = None;
            let mut failure = String::new();
            let mut looks = 0_u32;
            loop {
                let looked = look(&pin_root, &mut seen, &tell, looks.is_multiple_of(SWEEP_EVERY_LOOKS));
                // Tried again at the next look, and said once per reason.
                let reason = looked.err().map(|error| error.to_string()).unwrap_or_default();
                if !reason.is_empty() && reason != failure {
                    tracing::warn!(reason, "cannot follow the kernel's tables; will try again");
                }
                failure = reason;
                looks = looks.wrapping_add(1);
                if ends.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self { plans, _end: Some(end) })
    }

    /// Follows nothing: there is no kernel plane.
    pub(super) fn of_nothing() -> Self {
        Self { plans: watch::channel(LanePlan::default()).1, _end: None }
    }

    /// The plan as the tables have it, and when it changes.
    pub(super) fn plans(&self) -> watch::Receiver<LanePlan> {
        self.plans.clone()
    }
}

fn look(
    pin_root: &Path,
    seen: &mut Option<u64>,
    tell: &watch::Sender<LanePlan>,
    sweep: bool,
) -> Result<(), KernelError> {
    let mut tables = Tables::open(pin_root)?;
    let revision = tables.isp_revision()?;
    if *seen != Some(revision) {
        match plan_of(&tables)? {
            Some(plan) => {
                tell.send_if_modified(|before| {
                    let is_new = *before != plan;
                    *before = plan;
                    is_new
                });
                *seen = Some(revision);
            }
            // Somebody was in the middle of a change: the next look sees the end of it.
            None => tracing::debug!("the ISPs are being changed"),
        }
    }
    if sweep {
        let count = tables.sweep_expired()?;
        if count > 0 {
            tracing::info!(count, "rules of the filter have expired");
        }
    }
    Ok(())
}

/// The lanes of the ISPs in force; none where no ISP has an egress rate, for then there is nothing to keep to. `None` when the ISPs
/// and their prefixes do not fit together.
fn plan_of(tables: &Tables) -> Result<Option<LanePlan>, KernelError> {
    let isps = tables.isps()?;
    if isps.iter().all(|isp| isp.egress.bytes_per_s == 0) {
        return Ok(Some(LanePlan::default()));
    }
    let lanes = isps.into_iter().filter_map(|isp| {
        let id = u8::try_from(isp.number).ok()?;
        Some(Lane { id, name: isp.name, rate: isp.egress.bytes_per_s, burst: isp.egress.burst_bytes })
    });
    let prefixes = tables.isp_prefixes()?.into_iter();
    let prefixes: Vec<_> = prefixes.filter_map(|(prefix, isp)| Some((prefix, u8::try_from(isp).ok()?))).collect();
    Ok(LanePlan::new(lanes.collect(), &prefixes).ok())
}
