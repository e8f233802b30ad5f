//! From an engine's tallies and a publisher's counts to a report.

use std::thread;
use std::time::Duration;

use super::engine::{Fate, Returns, Tally};
use super::publish::Published;
use super::report::{
    AstrayReport, Connections, FateReport, Heartbeats, Host, Messages, OrderReport, Percentiles, PhaseReport,
    PublishedReport, Report, ReturnsReport, SCHEMA,
};
use super::scenario::{Publish, Scenario};

/// What a phase found.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) seconds: f64,
    pub(super) publish: Option<&'a Publish>,
    pub(super) orders: Vec<OrderReport>,
    pub(super) members: u64,
    pub(super) published: Option<PublishedReport>,
    pub(super) listened: Duration,
    pub(super) peak_per_second: f64,
    pub(super) tally: &'a Tally,
}

/// What a run found beside its tally.
pub(super) struct Parts {
    pub(super) engine: &'static str,
    pub(super) build_seconds: f64,
    pub(super) listened: Duration,
    pub(super) peak_per_second: f64,
    pub(super) interrupted: bool,
    pub(super) phases: Vec<PhaseReport>,
}

/// The report of one phase.
pub(super) fn phase(line: Line<'_>) -> PhaseReport {
    let tally = line.tally;
    PhaseReport {
        name: line.name.to_owned(),
        seconds: line.seconds,
        publish: line.publish.cloned(),
        orders: line.orders,
        members: line.members,
        published: line.published,
        messages: messages(tally, line.listened, line.peak_per_second),
        delay_us: Percentiles::of(&tally.delay_us),
        last_receiver_us: Percentiles::of(&tally.last_receiver_us),
        heartbeats: heartbeats(tally),
        segments: tally.segments,
        closed: tally.closed.clone().into_map(),
        astray: astray(tally),
        returns: returns(&tally.returns),
    }
}

/// The report of a run whose lines add up to `tally`.
pub(super) fn report(scenario: Scenario, tally: Tally, parts: Parts) -> Report {
    let mut report = Report {
        schema: SCHEMA,
        engine: parts.engine.to_owned(),
        host: Host {
            cpus: thread::available_parallelism().map_or(0, usize::from),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        },
        run: tally.run,
        interrupted: parts.interrupted,
        connections: connections(&scenario, &tally, parts.build_seconds),
        published: published(&parts.phases),
        messages: messages(&tally, parts.listened, parts.peak_per_second),
        delay_us: Percentiles::of(&tally.delay_us),
        last_receiver_us: Percentiles::of(&tally.last_receiver_us),
        heartbeats: heartbeats(&tally),
        segments: tally.segments,
        astray: astray(&tally),
        returns: returns(&tally.returns),
        phases: parts.phases,
        faults: Vec::new(),
        scenario,
    };
    report.faults = report.judge(false);
    report
}

/// Connecting and joining.
pub(super) fn connections(scenario: &Scenario, tally: &Tally, build_seconds: f64) -> Connections {
    Connections {
        wanted: u64::from(scenario.clients),
        joined: tally.joined,
        refused: tally.failed.clone().into_map(),
        closed: tally.closed.clone().into_map(),
        build_seconds,
        joined_per_second: rate(tally.joined, build_seconds),
        join_us: Percentiles::of(&tally.join_us),
        begun_by_second: tally.begun_by_second.clone(),
    }
}

impl From<Published> for PublishedReport {
    fn from(published: Published) -> Self {
        let accepted = published.accepted.iter().map(|accepted| u64::from(*accepted)).sum();
        let seconds = published.took.as_secs_f64();
        Self {
            accepted,
            refused: published.refused.into_map(),
            unanswered: published.unanswered.into_map(),
            unsent: published.unsent,
            seconds,
            accepted_per_second: rate(accepted, seconds),
        }
    }
}

fn published(phases: &[PhaseReport]) -> Option<PublishedReport> {
    let mut parts = phases.iter().filter_map(|phase| phase.published.as_ref());
    let mut sum = parts.next()?.clone();
    for part in parts {
        sum.accepted += part.accepted;
        for (of_sum, of_part) in [(&mut sum.refused, &part.refused), (&mut sum.unanswered, &part.unanswered)] {
            for (reason, count) in of_part {
                *of_sum.entry(reason.clone()).or_default() += count;
            }
        }
        sum.unsent += part.unsent;
        sum.seconds += part.seconds;
    }
    sum.accepted_per_second = rate(sum.accepted, sum.seconds);
    Some(sum)
}

fn messages(tally: &Tally, listened: Duration, peak_per_second: f64) -> Messages {
    let (counts, apart, balance) = (tally.counts, tally.astray.counts, tally.balance);
    let seconds = listened.as_secs_f64();
    let received_per_second = rate(counts.received, seconds);
    Messages {
        due: balance.due,
        received: counts.received,
        missing: balance.missing,
        completeness: (balance.due > 0).then(|| 1.0 - balance.missing as f64 / balance.due as f64),
        gaps: counts.gaps,
        // Whoever reads too slowly may miss messages, but never get one twice or too early.
        duplicates: counts.duplicates + apart.duplicates,
        order_faults: counts.order_faults + apart.order_faults,
        unremembered: counts.unremembered,
        misrouted: tally.misrouted,
        foreign: tally.foreign,
        in_doubt: balance.in_doubt,
        stragglers: tally.stragglers,
        incomplete_clients: balance.incomplete_clients,
        silent_clients: balance.silent_clients,
        seconds,
        received_per_second,
        // A run of less than a second has no best one; its mean is all there is.
        peak_per_second: peak_per_second.max(received_per_second),
        bytes_received: tally.bytes_received,
    }
}

fn heartbeats(tally: &Tally) -> Heartbeats {
    Heartbeats {
        sent: tally.heartbeats_sent,
        answered: tally.heartbeats_answered,
        unasked: tally.heartbeats_unasked,
        overdue: tally.heartbeats_overdue,
    }
}

fn astray(tally: &Tally) -> AstrayReport {
    let fate = |fate: &Fate| FateReport {
        clients: fate.clients,
        closed_by_server: fate.closed.clone().into_map(),
        stuck: fate.stuck,
    };
    AstrayReport {
        stopped: fate(&tally.astray.stopped),
        slow: fate(&tally.astray.slow),
        silent: fate(&tally.astray.silent),
        vanished: tally.astray.vanished,
        received: tally.astray.counts.received,
        gaps: tally.astray.counts.gaps,
    }
}

fn returns(returns: &Returns) -> ReturnsReport {
    ReturnsReport {
        left_orderly: returns.left_orderly,
        unanswered: returns.unanswered,
        left_reset: returns.left_reset,
        back: returns.back,
        failed: returns.failed.clone().into_map(),
        not_back: returns.not_back,
        back_us: Percentiles::of(&returns.back_us),
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
