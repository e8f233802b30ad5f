//! A request and its answer through a protected port, while packets from denied hosts pour in at the same interface.
//!
//! The sender of a flood, and the veth pair that it is sent over, cost CPU time that has nothing to do with the filter. So
//! each round measures four states: no flood; the same flood into a sink, an XDP program that drops whatever comes, on an
//! interface of its own; the flood at the filter; and the flood at the filter without the rules, as it would be without one.
//! Client and server share a CPU. The flood comes in on the other one, as fast as that one can; then, at a pace, on theirs.
//!
//! Layout: `site` namespaces, interfaces, programs · `sender` the flood · `exchange` request and answer

mod exchange;
pub(crate) mod sender;
pub(crate) mod site;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use exchange::Exchange;
use sender::Target;
use site::{Site, Where};

use crate::report::{Limit, Report, median};

/// What is kept of the rate.
const KEPT: f64 = 0.9;

/// Rounds of which the medians are shown.
const ROUNDS: usize = 5;

/// How long a state is measured in a round, and left to settle before.
const WINDOW: Duration = Duration::from_millis(1500);
const SETTLE: Duration = Duration::from_millis(200);

/// Packets a second that the server's own CPU takes in.
const PACE: u64 = 100_000;

/// What the packets meet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Quiet,
    Sink,
    Denied,
    NoRule,
}

const STATES: [State; 4] = [State::Quiet, State::Sink, State::Denied, State::NoRule];

/// Figures of the states, one a round each.
#[derive(Default)]
struct Figures {
    /// Exchanges a second.
    rates: [Vec<f64>; STATES.len()],
    /// Packets a second that were sent.
    sent: [Vec<f64>; STATES.len()],
    /// Share of the packets that the filter counted as denied.
    denied: Vec<f64>,
}

/// Measures with the flood on either CPU.
pub(crate) fn measure(object: &Path, report: &mut Report) -> Result<(), String> {
    println!("\n== a request and its answer under a flood: medians of {ROUNDS} rounds");
    let mut site = Site::build(object)?;
    let mut exchange = Exchange::start(&site)?;
    site.take_in(Where::SendersCpu)?;
    let apart = take(&mut site, &mut exchange, None)?;
    apart.report("on a CPU of its own", State::Quiet, report);
    site.take_in(Where::ServersCpu)?;
    let together = take(&mut site, &mut exchange, Some(PACE))?;
    together.report("on the server's CPU", State::Sink, report);
    Ok(())
}

fn take(site: &mut Site, exchange: &mut Exchange, pace: Option<u64>) -> Result<Figures, String> {
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        for state in STATES {
            site.deny(state != State::NoRule)?;
            let before = site.denied()?;
            let (rate, sent) = window(site, exchange, state, pace)?;
            if state == State::Denied {
                figures.denied.push((site.denied()? - before) as f64 / sent as f64);
            }
            figures.rates[state as usize].push(rate);
            figures.sent[state as usize].push(sent as f64 / (WINDOW + SETTLE).as_secs_f64());
        }
    }
    Ok(figures)
}

/// Exchanges a second in one state, and how many packets were sent meanwhile.
fn window(site: &Site, exchange: &mut Exchange, state: State, pace: Option<u64>) -> Result<(f64, u64), String> {
    let target = match state {
        State::Quiet => Target::Nowhere,
        State::Sink => Target::Sink,
        State::Denied | State::NoRule => Target::Filter,
    };
    let (over, clients) = (&AtomicBool::new(false), site.clients());
    thread::scope(|scope| {
        let sender = scope.spawn(move || sender::flood(clients, target, pace, over));
        thread::sleep(SETTLE);
        let rate = exchange.rate(WINDOW);
        over.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| "the sender panicked".to_owned())??;
        Ok((rate?, sent))
    })
}

impl Figures {
    /// Judges what is kept of the rate in `reference`.
    fn report(self, place: &str, reference: State, report: &mut Report) {
        let rates = self.rates.map(median);
        let sent = self.sent.map(median);
        let [quiet, sink, denied, no_rule] = rates;
        let text = |rate: f64| format!("{rate:.0} a second");
        let name = match reference {
            State::Quiet => format!("without a flood {quiet:.0}"),
            _ => format!("the flood into a sink {sink:.0}"),
        };
        report.add(
            format!("exchanges, {:.0}k denied packets a second {place}", sent[State::Denied as usize] / 1000.0),
            text(denied),
            name,
            denied / rates[reference as usize],
            Some(Limit::AtLeast(KEPT)),
        );
        let beside_quiet = format!("without a flood {quiet:.0}");
        if reference != State::Quiet {
            report.add("    of the rate without a flood", text(denied), beside_quiet.clone(), denied / quiet, None);
        }
        let into_sink = format!("    {:.0}k a second into a sink", sent[State::Sink as usize] / 1000.0);
        report.add(into_sink, text(sink), beside_quiet.clone(), sink / quiet, None);
        let unfiltered = format!("    {:.0}k a second without the rules", sent[State::NoRule as usize] / 1000.0);
        report.add(unfiltered, text(no_rule), beside_quiet, no_rule / quiet, None);
        let counted = median(self.denied);
        report.add("    of those sent, counted as denied", format!("{:.1} %", counted * 100.0), "", counted, None);
    }
}
