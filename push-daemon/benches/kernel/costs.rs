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
pub(crate) fn measure(subject: &mut Subject, rounds: u32, report: &mut Report) -> Result<(), String> {
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
    let pass = ways.report(report);
    take_apart(subject, rounds, pass, report)
}

/// Switches a part of the pass path on or off.
type Switch = fn(&mut Subject, bool) -> Result<(), String>;

/// What the parts of the pass path cost: what it takes without them.
fn take_apart(subject: &mut Subject, rounds: u32, pass: f64, report: &mut Report) -> Result<(), String> {
    let parts: [(&str, Switch); 2] = [("limits", Subject::limit_sources), ("policing", Subject::police_isps)];
    let mut without = String::new();
    for (part, switch) in parts {
        switch(subject, false)?;
        without = if without.is_empty() { part.to_owned() } else { format!("{without} and {part}") };
        let rounds = 0..rounds as usize;
        let figures = rounds.map(|round| {
            let frame = later_packet(subject.rules.unknown[round % SOURCES]);
            nanoseconds(&subject.program, &frame, REPEATS, PASS)
        });
        let figure = median(figures.collect::<Result<_, _>>()?);
        report.add(format!("    without {without}"), format!("{figure:.0} ns"), "", figure / pass, None);
    }
    for (_, switch) in parts {
        switch(subject, true)?;
    }
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

    /// Adds the rows, and says what an open connection's packet takes to pass.
    fn report(self, report: &mut Report) -> f64 {
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
        row("the full pass path, of a new connection".to_owned(), self.connects, pass, "pass", 2.5);
        let passes = median(self.passes.clone());
        row("the full pass path, of an open one".to_owned(), self.passes, pass, "pass", 2.5);
        passes
    }
}
