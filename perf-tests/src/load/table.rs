//! A report for people: aligned lines, most important first, nothing that is zero and fine.

use std::collections::BTreeMap;
use std::fmt;

use super::report::{AstrayReport, FateReport, Percentiles, Report, ReturnsReport};

/// Displays a report.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a>(pub &'a Report);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let (connections, messages) = (&report.connections, &report.messages);
        let mut row = |name: &str, value: String| writeln!(f, "{name:<14} {value}");
        row(
            "clients",
            format!(
                "{} of {} joined in {:.2} s, {:.0}/s",
                connections.joined, connections.wanted, connections.build_seconds, connections.joined_per_second
            ),
        )?;
        row("join time", times(connections.join_us.as_ref()))?;
        reasons(&mut row, "  refused", &connections.refused)?;
        reasons(&mut row, "  closed", &connections.closed)?;
        if let Some(published) = &report.published {
            row(
                "published",
                format!(
                    "{} accepted in {:.2} s, {:.1}/s",
                    published.accepted, published.seconds, published.accepted_per_second
                ),
            )?;
            reasons(&mut row, "  refused", &published.refused)?;
            reasons(&mut row, "  unanswered", &published.unanswered)?;
            if published.unsent > 0 {
                row("  unsent", published.unsent.to_string())?;
            }
        }
        row(
            "received",
            format!(
                "{} of {} due, {:.0}/s (best second {:.0}), {} bytes",
                messages.received,
                messages.due,
                messages.received_per_second,
                messages.peak_per_second,
                messages.bytes_received
            ),
        )?;
        let completeness = messages.completeness.map_or("nothing was due".to_owned(), |share| format!("{share:.9}"));
        row("completeness", completeness)?;
        let counts = [
            ("  missing", messages.missing),
            ("  gaps", messages.gaps),
            ("  duplicates", messages.duplicates),
            ("  out of order", messages.order_faults),
            ("  wrong room", messages.misrouted),
            ("  foreign", messages.foreign),
            ("  stragglers", messages.stragglers),
            ("  in doubt", messages.in_doubt),
            ("  incomplete", messages.incomplete_clients),
            ("  silent", messages.silent_clients),
        ];
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            row(name, count.to_string())?;
        }
        row("delay", times(report.delay_us.as_ref()))?;
        row("last receiver", times(report.last_receiver_us.as_ref()))?;
        let beats = report.heartbeats;
        if beats.sent > 0 {
            row("heartbeats", format!("{} sent, {} answered, {} overdue", beats.sent, beats.answered, beats.overdue))?;
        }
        astray(&mut row, &report.astray)?;
        returns(&mut row, &report.returns)?;
        if report.interrupted {
            row("interrupted", "the counts are those up to then".to_owned())?;
        }
        let verdict = if report.faults.is_empty() { "passed".to_owned() } else { report.faults.join(", ") };
        row("verdict", verdict)
    }
}

fn astray(row: &mut impl FnMut(&str, String) -> fmt::Result, astray: &AstrayReport) -> fmt::Result {
    for (name, fate) in [("stopped", &astray.stopped), ("slow readers", &astray.slow), ("silent ones", &astray.silent)]
    {
        if fate.clients > 0 {
            let closed: u64 = fate.closed_by_server.values().sum();
            let FateReport { clients, stuck, .. } = fate;
            row(name, format!("{clients}: {closed} closed by the server, {stuck} still connected"))?;
            reasons(row, "  closed", &fate.closed_by_server)?;
        }
    }
    if astray.vanished > 0 {
        row("vanished", astray.vanished.to_string())?;
    }
    Ok(())
}

fn returns(row: &mut impl FnMut(&str, String) -> fmt::Result, returns: &ReturnsReport) -> fmt::Result {
    let ReturnsReport { left_orderly, left_reset, unanswered, back, not_back, .. } = returns;
    if left_orderly + left_reset == 0 {
        return Ok(());
    }
    row("goodbyes", format!("{left_orderly} in order ({unanswered} not answered), {left_reset} by reset"))?;
    row("came back", format!("{back}, {not_back} did not"))?;
    reasons(row, "  failed", &returns.failed)?;
    row("  time", times(returns.back_us.as_ref()))
}

fn times(percentiles: Option<&Percentiles>) -> String {
    let Some(p) = percentiles else { return "none taken".to_owned() };
    let ms = |us: u64| format!("{:.2}", us as f64 / 1000.0);
    let (p50, p90, p99, p99_9, max) = (ms(p.p50), ms(p.p90), ms(p.p99), ms(p.p99_9), ms(p.max));
    format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p99_9}  max {max} ms")
}

fn reasons(
    row: &mut impl FnMut(&str, String) -> fmt::Result,
    name: &str,
    reasons: &BTreeMap<String, u64>,
) -> fmt::Result {
    reasons.iter().try_for_each(|(reason, count)| row(name, format!("{count} x {reason}")))
}
