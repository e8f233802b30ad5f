//! What each SYN of a flood costs, and who else still gets in: dropped by a rule, answered by the kernel with and without cookies,
//! and answered by a prototype of cookies in XDP. The figures say which of them a protected port should have.
//!
//! A veth pair's receive side runs on the sender's CPU, and the answer goes back on the same one. So the time that a sender takes for
//! a SYN is all that the SYN costs, its own making included; the same SYN sent into a sink costs just that, and is taken off.
//! The pair with the kernel's and the prototype's answers has no filter: both sides would have to bear the same one.
//!
//! An answer costs more on a veth pair than on a network card when it is the kernel's: the other end copies it for XDP to drop. So
//! the kernel is measured a second time, with its answers dropped before they are sent. The truth lies between the two.
//!
//! Layout: `site` namespaces, interfaces, programs · `sender` the flood · `honest` those who want to get in

mod honest;
mod sender;
mod site;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use honest::{Arrivals, Door};
use site::{Pair, Site};

use crate::{
    cpus,
    report::{Report, median},
};

/// Rounds of which the medians are shown.
const ROUNDS: usize = 5;

/// How long costs are measured in a round.
const WINDOW: Duration = Duration::from_millis(700);

/// Clients that want to get in, one after the other, in each round.
const CLIENTS: u32 = 100;
/// Of those who have to wait in vain there are fewer.
const HOPELESS: u32 = 5;

/// What becomes of a SYN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sink,
    Denied,
    /// The kernel's, with `net.ipv4.tcp_syncookies` = 0: dropped, as the queue is full.
    QueueFull,
    /// With 1: a cookie because the queue is full.
    Kernel,
    /// With 2: a cookie in any case.
    KernelAlways,
    /// With 1, and the answer dropped before it is sent.
    KernelUnsent,
    Xdp,
}

const FATES: [Fate; 7] =
    [Fate::Sink, Fate::Denied, Fate::QueueFull, Fate::Kernel, Fate::KernelAlways, Fate::KernelUnsent, Fate::Xdp];

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::Sink => "a sink",
            Self::Denied => "denied by the filter",
            Self::QueueFull => "queue full, no cookies",
            Self::Kernel => "the kernel's cookies",
            Self::KernelAlways => "the kernel's cookies for every SYN",
            Self::KernelUnsent => "the kernel's cookies, dropped unsent",
            Self::Xdp => "cookies from XDP (prototype)",
        }
    }

    fn pair(self) -> Pair {
        if self == Self::Denied { Pair::Filtered } else { Pair::Answered }
    }

    /// What is attached where the SYNs come in.
    fn program(self) -> &'static str {
        match self {
            Self::Sink => "sink",
            Self::Xdp => "cookies",
            _ => "pass",
        }
    }

    fn syncookies(self) -> u8 {
        match self {
            Self::QueueFull => 0,
            Self::KernelAlways => 2,
            _ => 1,
        }
    }
}

/// What was seen of one fate, one figure a round.
#[derive(Default)]
struct Seen {
    ns: Vec<f64>,
    answered: Vec<f64>,
    arrived: Vec<f64>,
    arrivals_per_s: Vec<f64>,
    with_options: Vec<f64>,
}

/// Measures all fates by turns.
pub(crate) fn measure(object: &Path, report: &mut Report) -> Result<(), String> {
    println!("\n== a SYN of a flood: medians of {ROUNDS} rounds");
    let mut site = Site::build(object)?;
    let door = Door::open(site.server())?;
    cpus::pin(None, cpus::WORKER)?;
    let mut seen = FATES.map(|_| Seen::default());
    for _ in 0..ROUNDS {
        for (fate, seen) in FATES.into_iter().zip(&mut seen) {
            site.prepare(fate)?;
            take(&site, &door, fate, seen)?;
        }
    }
    tell(seen, report);
    Ok(())
}

fn take(site: &Site, door: &Door, fate: Fate, seen: &mut Seen) -> Result<(), String> {
    let before = site.refused()?;
    let (flood, ()) = during_flood(site, fate, || thread::sleep(WINDOW))?;
    seen.ns.push(flood.ns_per_syn());
    seen.answered.push((site.refused()? - before) as f64 / flood.sent as f64);
    if fate == Fate::Sink {
        return Ok(());
    }
    let clients = if fate == Fate::QueueFull { HOPELESS } else { CLIENTS };
    let (_, arrivals) = during_flood(site, fate, || door.let_in(site, fate.pair(), clients))?;
    let Arrivals { arrived, with_options, elapsed } = arrivals?;
    seen.arrived.push(f64::from(arrived) / f64::from(clients));
    seen.arrivals_per_s.push(f64::from(arrived) / elapsed.as_secs_f64());
    seen.with_options.push(f64::from(with_options) / f64::from(arrived.max(1)));
    Ok(())
}

/// Does `work` while SYNs pour in.
fn during_flood<T>(site: &Site, fate: Fate, work: impl FnOnce() -> T) -> Result<(sender::Flood, T), String> {
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(move || sender::send(site.clients(), fate.pair(), over));
        let done = work();
        over.store(true, Ordering::Relaxed);
        Ok((flood.join().map_err(|_| "the sender panicked".to_owned())??, done))
    })
}

fn tell(seen: [Seen; FATES.len()], report: &mut Report) {
    let ns: Vec<f64> = seen.iter().map(|seen| median(seen.ns.clone())).collect();
    let of = |fate: Fate| ns[FATES.iter().position(|other| *other == fate).unwrap_or(0)];
    let sink = of(Fate::Sink);
    let kernel = of(Fate::Kernel) - sink;
    let xdp = of(Fate::Xdp) - sink;
    for (fate, seen) in FATES.into_iter().zip(seen) {
        let cost = of(fate) - sink;
        if fate == Fate::Sink {
            report.add("a SYN sent into a sink, ns", format!("{sink:.0} ns"), "taken off below", sink, None);
            continue;
        }
        let beside = format!("the kernel's cookies {kernel:.0} ns");
        report.add(format!("a SYN: {}", fate.name()), format!("{cost:.0} ns"), beside, cost / kernel, None);
        let answered = median(seen.answered);
        report.add("    of them answered", format!("{:.1} %", answered * 100.0), "", answered, None);
        let arrived = median(seen.arrived);
        let rate = format!("{:.0} a second", median(seen.arrivals_per_s));
        report.add("    honest clients that got in", format!("{:.1} %", arrived * 100.0), rate, arrived, None);
        let options = median(seen.with_options);
        let what = "    of those, with scaling, SACK, timestamps";
        report.add(what, format!("{:.1} %", options * 100.0), "", options, None);
    }
    let unsent = of(Fate::KernelUnsent) - sink;
    let mut ratio = |what: &str, ours: f64| {
        report.add(what, format!("{ours:.0} ns"), format!("from XDP {xdp:.0} ns"), ours / xdp, None);
    };
    ratio("the kernel's cookies by XDP's", kernel);
    ratio("    dropped unsent, by XDP's", unsent);
}
