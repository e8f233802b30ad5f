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

/// What the kernel is given to free what was let go of: it does so behind our back.
const FREED: Duration = Duration::from_secs(5);

/// A look may take so much longer while rules go than the longest before: what a network card's queue of 2048 packets
/// holds at a million packets a second.
const STALL_LIMIT_MS: f64 = 2.0;

/// Loads everything, and times it.
pub(crate) fn coming(subject: &mut Subject, report: &mut Report) -> Result<(), String> {
    println!("\n== {HOSTS} hosts and {PREFIXES} prefixes come");
    let started = Instant::now();
    subject.load()?;
    let took = started.elapsed().as_secs_f64();
    let what = format!("{HOSTS} hosts and {PREFIXES} prefixes put in force, seconds");
    report.add(what, format!("{took:.1} s"), "", took, Some(Limit::AtMost(LOAD_LIMIT_S)));
    Ok(())
}

/// Removes some rules one by one and then all at once, while another thread looks at the packet path.
pub(crate) fn going(subject: &mut Subject, report: &mut Report) -> Result<(), String> {
    println!("\n== they go, while packets are judged on another CPU");
    let frame = later_packet(subject.rules.unknown[0]);
    let calm = {
        let started = Instant::now();
        look(&subject.program, &frame, || started.elapsed() > BEFORE)?
    };
    let mut removed = 0;
    let (took, looks) = watched(subject, &frame, |subject| {
        removed = subject.unload_some()?;
        Ok(())
    })?;
    let us = took.as_secs_f64() * 1e6 / removed as f64;
    report.add(format!("{removed} rules removed one by one, us for each"), format!("{us:.1} us"), "", us, None);
    looks.report("meanwhile", &calm, report);

    let mut took = Duration::ZERO;
    let (_, looks) = watched(subject, &frame, |subject| {
        let started = Instant::now();
        subject.unload()?;
        took = started.elapsed();
        thread::sleep(FREED);
        Ok(())
    })?;
    let took = took.as_secs_f64();
    report.add("all others removed in one step, seconds", format!("{took:.2} s"), "", took, None);
    looks.report("meanwhile, and until they are freed", &calm, report);
    Ok(())
}

/// Does `work` on one CPU while the other looks at the packet path; says how long it took, and what was seen.
fn watched(
    subject: &mut Subject,
    frame: &[u8],
    work: impl FnOnce(&mut Subject) -> Result<(), String>,
) -> Result<(Duration, Looks), String> {
    let program = subject.open_program()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let looker = scope.spawn(|| look(&program, frame, || over.load(Ordering::Relaxed)));
        let started = Instant::now();
        let done = cpus::pin(None, cpus::OTHER).and_then(|()| work(subject));
        let took = started.elapsed();
        over.store(true, Ordering::Relaxed);
        let looks = looker.join().map_err(|_| "the looker panicked".to_owned())?;
        done?;
        Ok((took, looks?))
    })
}

/// How long the packet path took for [`LOOK`] packets, time and again.
struct Looks {
    looks: usize,
    middle_us: f64,
    longest_us: f64,
}

impl Looks {
    fn report(&self, when: &str, calm: &Looks, report: &mut Report) {
        report.add(
            format!("    the longest {LOOK} packets {when}, ms more than before"),
            format!("{:.0} us of {}", self.longest_us, self.looks),
            format!("before: {:.0} us of {}", calm.longest_us, calm.looks),
            (self.longest_us - calm.longest_us) / 1000.0,
            Some(Limit::AtMost(STALL_LIMIT_MS)),
        );
        let before = format!("before: {:.0} us", calm.middle_us);
        let figure = self.middle_us / calm.middle_us;
        report.add(format!("    the middle {LOOK} packets"), format!("{:.0} us", self.middle_us), before, figure, None);
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
