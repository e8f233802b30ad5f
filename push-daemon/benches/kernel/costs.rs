//! Nanoseconds a packet: both programs by turns, on the same frames, by `BPF_PROG_TEST_RUN`.

use aya::programs::Xdp;

use crate::{
    cpus,
    report::{Limit, Report, median},
    subject::{DROP, HOSTS, PASS, PREFIXES, SOURCES, Subject, first_packet, later_packet, nanoseconds},
    xdp_filter::XdpFilter,
};

/// Times that a frame is judged in a round.
const REPEATS: u32 = 1_000_000;

/// Three ways of the filter, each beside one of xdp-filter's two.
struct Ways {
    denied_host: Vec<f64>,
    denied_prefix: Vec<f64>,
    passes: Vec<f64>,
    connects: Vec<f64>,
    their_denied_host: Vec<f64>,
    their_pass: Vec<f64>,
}

/// Measures with all rules loaded, limits for every source, and ISPs that are policed.
pub(crate) fn measure(subject: &Subject, rounds: u32, report: &mut Report) -> Result<(), String> {
    cpus::pin(None, cpus::WORKER)?;
    let theirs = XdpFilter::load()?;
    for host in &subject.rules.hosts[..SOURCES] {
        theirs.deny((*host).into())?;
    }
    let mut ways = Ways {
        denied_host: Vec::new(),
        denied_prefix: Vec::new(),
        passes: Vec::new(),
        connects: Vec::new(),
        their_denied_host: Vec::new(),
        their_pass: Vec::new(),
    };
    println!("\n== nanoseconds a packet: medians of {rounds} rounds of {REPEATS} packets for each");
    for round in 0..rounds as usize {
        ways.take_round(subject, &theirs.program, round % SOURCES)?;
    }
    ways.report(report);
    Ok(())
}

impl Ways {
    fn take_round(&mut self, subject: &Subject, theirs: &Xdp, source: usize) -> Result<(), String> {
        let (ours, rules) = (&subject.program, &subject.rules);
        let host = first_packet(rules.hosts[source]);
        let in_prefix = first_packet(rules.prefixes[source].addr());
        let unknown = later_packet(rules.unknown[source]);
        self.their_denied_host.push(nanoseconds(theirs, &host, REPEATS, DROP)?);
        self.denied_host.push(nanoseconds(ours, &host, REPEATS, DROP)?);
        self.denied_prefix.push(nanoseconds(ours, &in_prefix, REPEATS, DROP)?);
        self.their_pass.push(nanoseconds(theirs, &unknown, REPEATS, PASS)?);
        self.passes.push(nanoseconds(ours, &unknown, REPEATS, PASS)?);
        self.connects.push(nanoseconds(ours, &first_packet(rules.unknown[source]), REPEATS, PASS)?);
        Ok(())
    }

    fn report(self, report: &mut Report) {
        let host = median(self.their_denied_host);
        let pass = median(self.their_pass);
        let mut row = |what: String, ours: Vec<f64>, theirs: f64, their_way: &str, most: f64| {
            let ours = median(ours);
            report.add(
                what,
                format!("{ours:.0} ns"),
                format!("xdp-filter's {their_way} {theirs:.0} ns"),
                ours / theirs,
                Some(Limit::AtMost(most)),
            );
        };
        row(format!("a denied host, of {HOSTS} and {PREFIXES} prefixes"), self.denied_host, host, "denied host", 1.0);
        row("a denied prefix, of the same".to_owned(), self.denied_prefix, host, "denied host", 1.5);
        row("the full pass path, of an open connection".to_owned(), self.passes, pass, "pass", 2.5);
        row("the full pass path, of a new one".to_owned(), self.connects, pass, "pass", 2.5);
    }
}
