//! How long a million rules take to come and to go, and whether packets notice their going.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::programs::Xdp;
use rustix::thread::gettid;

use crate::{
    cpus,
    report::{Limit, Report},
    subject::{HOSTS, PASS, PREFIXES, Subject, later_packet, nanoseconds},
};

/// All rules are loaded within this.
const LOAD_LIMIT_S: f64 = 10.0;

/// Packets of one look at the packet path.
const LOOK: u32 = 1_000;

/// Between two looks on a CPU.
const REST: Duration = Duration::from_millis(1);

/// What the path is looked at for before rules go.
const BEFORE: Duration = Duration::from_secs(3);

/// What the kernel is given to free what was let go of: it does so behind our back.
const FREED: Duration = Duration::from_secs(5);

/// A look may take so much longer while rules go than the longest before. A guest's CPU may be taken away for as long without a
/// word; what a million rules would hold up if they went in one piece is a multiple of it.
const STALL_LIMIT_MS: f64 = 10.0;

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
    println!("\n== they go, while packets are judged on both CPUs");
    let frame = later_packet(subject.rules.unknown[0]);
    let (_, calm) = watched(subject, &frame, |_| {
        thread::sleep(BEFORE);
        Ok(())
    })?;
    let singles: [(&str, Edit); 2] = [("removed", Subject::unload_some), ("put back", Subject::load_some)];
    for (done, work) in singles {
        let ((rules, took), looks) = watched(subject, &frame, |subject| {
            let started = Instant::now();
            Ok((work(subject)?, started.elapsed()))
        })?;
        let us = took.as_secs_f64() * 1e6 / rules as f64;
        report.add(format!("{rules} rules {done} one by one, us for each"), format!("{us:.1} us"), "", us, None);
        looks.report("meanwhile", &calm, report);
    }
    let (took, looks) = watched(subject, &frame, |subject| {
        let started = Instant::now();
        subject.unload()?;
        let took = started.elapsed().as_secs_f64();
        thread::sleep(FREED);
        Ok(took)
    })?;
    report.add("all of them removed in one step, seconds", format!("{took:.2} s"), "", took, None);
    looks.report("meanwhile, and until they are freed", &calm, report);
    Ok(())
}

/// Changes rules one by one, and says how many.
type Edit = fn(&mut Subject) -> Result<usize, String>;

/// Does `work` while the packet path of either CPU is looked at; says what it came to, and what was seen.
fn watched<T>(
    subject: &mut Subject,
    frame: &[u8],
    work: impl FnOnce(&mut Subject) -> Result<T, String>,
) -> Result<(T, Looks), String> {
    let programs = [subject.open_program()?, subject.open_program()?];
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = &over;
        let lookers = [cpus::WORKER, cpus::OTHER].into_iter().zip(&programs);
        let lookers: Vec<_> =
            lookers.map(|(cpu, program)| scope.spawn(move || look(cpu, program, frame, over))).collect();
        let done = work(subject);
        over.store(true, Ordering::Relaxed);
        let mut looks = Vec::new();
        for looker in lookers {
            looks.extend(looker.join().map_err(|_| "a looker panicked".to_owned())??);
        }
        Ok((done?, Looks::of(looks)))
    })
}

/// How long the packet path took for [`LOOK`] packets, time and again.
struct Looks {
    looks: usize,
    middle_us: f64,
    longest_us: f64,
}

impl Looks {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self {
            looks: all.len(),
            middle_us: all.get(all.len() / 2).copied().unwrap_or(f64::NAN),
            longest_us: all.last().copied().unwrap_or(f64::NAN),
        }
    }

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

/// Looks on `cpu` until it is over, and says how many microseconds each look took. As packets come before whatever else the CPU
/// does, so does this; in between it rests longer than it took, or nothing would be left to those who change the rules. Looks in
/// which the CPU was taken from this machine as a whole are left out.
fn look(cpu: usize, program: &Xdp, frame: &[u8], over: &AtomicBool) -> Result<Vec<f64>, String> {
    cpus::pin(None, cpu)?;
    cpus::put_first(gettid())?;
    let mut all = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let stolen = cpus::stolen(cpu);
        let us = nanoseconds(program, frame, LOOK, PASS)? * f64::from(LOOK) / 1000.0;
        if cpus::stolen(cpu) == stolen {
            all.push(us);
        }
        thread::sleep(REST);
    }
    Ok(all)
}
