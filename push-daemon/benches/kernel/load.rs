//! How long a million rules take to come and to go, and whether packets notice their going.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::programs::Xdp;

use crate::{
    cpus,
    report::{Limit, Report},
    subject::{HOSTS, PASS, PREFIXES, Subject, later_packet, nanoseconds},
};

/// All rules are loaded within this.
const LOAD_LIMIT_S: f64 = 10.0;

/// Packets of one look at the packet path.
const LOOK: u32 = 1_000;

/// What the path is looked at for before rules go.
const BEFORE: Duration = Duration::from_secs(3);

/// A look may take so much longer while rules go than the longest before: what a network card's queue of 2048 packets
/// holds at a million packets a second.
const STALL_LIMIT_MS: f64 = 2.0;

/// Loads everything, and times it.
pub(crate) fn coming(subject: &mut Subject, report: &mut Report) -> Result<(), String> {
    println!("\n== {HOSTS} hosts and {PREFIXES} prefixes come and go");
    let started = Instant::now();
    subject.load()?;
    let took = started.elapsed().as_secs_f64();
    let what = format!("{HOSTS} hosts and {PREFIXES} prefixes loaded, seconds");
    report.add(what, format!("{took:.1} s"), "", took, Some(Limit::AtMost(LOAD_LIMIT_S)));
    Ok(())
}

/// Removes everything, while another thread looks at the packet path.
pub(crate) fn going(subject: &mut Subject, report: &mut Report) -> Result<(), String> {
    let frame = later_packet(subject.rules.unknown[0]);
    let program = subject
        .program
        .fd()
        .and_then(|fd| Ok(fd.try_clone()?))
        .map_err(|error| format!("cannot open the filter again: {error}"))?;
    let _ = program;
    let path = subject.plane.pin_dir().join(abi::maps::FILTER);
    let watched = Xdp::from_pin(path, aya_obj::programs::XdpAttachType::Interface)
        .map_err(|error| format!("cannot open the filter's pin: {error}"))?;
    let over = AtomicBool::new(false);
    let calm = {
        let started = Instant::now();
        look(&watched, &frame, || started.elapsed() > BEFORE)?
    };
    let started = Instant::now();
    let (removed, busy) = thread::scope(|scope| {
        let looker = scope.spawn(|| look(&watched, &frame, || over.load(Ordering::Relaxed)));
        cpus::pin(None, cpus::OTHER)?;
        let removed = subject.unload();
        let took = started.elapsed();
        over.store(true, Ordering::Relaxed);
        cpus::pin(None, cpus::WORKER)?;
        let busy = looker.join().map_err(|_| "the looker panicked".to_owned())?;
        Ok::<_, String>((removed.map(|()| took), busy))
    })?;
    let (removed, busy) = (removed?, busy?);
    report.add(
        "all of them removed, seconds",
        format!("{:.1} s", removed.as_secs_f64()),
        "",
        removed.as_secs_f64(),
        None,
    );
    report.add(
        format!("the longest {LOOK} packets meanwhile, ms more than before"),
        format!("{} of {}", busy.longest_text(), busy.looks),
        format!("before: {} of {}", calm.longest_text(), calm.looks),
        (busy.longest_us - calm.longest_us) / 1000.0,
        Some(Limit::AtMost(STALL_LIMIT_MS)),
    );
    report.add(
        format!("the middle {LOOK} packets meanwhile"),
        format!("{:.0} us", busy.middle_us),
        format!("before: {:.0} us", calm.middle_us),
        busy.middle_us / calm.middle_us,
        None,
    );
    Ok(())
}

/// How long the packet path took for [`LOOK`] packets, time and again.
struct Looks {
    looks: usize,
    middle_us: f64,
    longest_us: f64,
}

impl Looks {
    fn longest_text(&self) -> String {
        format!("{:.0} us", self.longest_us)
    }
}

/// Looks until it is over. The kernel leaves out of a look the time in which it let others run, as packets would have it.
fn look(program: &Xdp, frame: &[u8], over: impl Fn() -> bool) -> Result<Looks, String> {
    cpus::pin(None, cpus::WORKER)?;
    let mut all = Vec::new();
    while !over() {
        all.push(nanoseconds(program, frame, LOOK, PASS)? * f64::from(LOOK) / 1000.0);
    }
    all.sort_by(f64::total_cmp);
    Ok(Looks {
        looks: all.len(),
        middle_us: all.get(all.len() / 2).copied().unwrap_or(f64::NAN),
        longest_us: all.last().copied().unwrap_or(f64::NAN),
    })
}
