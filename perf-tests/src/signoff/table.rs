//! Reports side by side, one per send path and kind of clients: what the edge costs, what the raw loop of sends costs, and how
//! many times that it is.
//!
//! Limits and ratios are those of the reports' own budgets; this only shows them, and adds up what was lost. A message that
//! one of three repeats has lost makes no median, so every repeat counts here.
//!
//! The columns are figures of the phases `connect`, `idle`, `broadcast_1`, `broadcast_40`, `broadcast_40_200ms`,
//! `broadcast_40_1s` and `flat_out`, as `perf-tests/profiles/bench.toml` has them. What a report does not have is a dash.

use std::fmt;

use super::figures::figures_of;
use super::judge::{Outcome, Verdict};
use super::plot::short;
use super::profile::EngineKind;
use super::report::Report;

/// What went wrong for a client; none of it is ever noise.
const LOSSES: [&str; 5] = ["missing", "faults", "refused", "not_joined", "closed"];

/// Why reports do not make a table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TableError {
    /// Two rows would have the same name.
    #[error(
        "two reports are of an edge that sends by {0}: give one for each send path (`perf-tests signoff --send`) and kind of clients"
    )]
    SameWay(String),
}

/// How a column's figure is written.
#[derive(Clone, Copy)]
enum Shown {
    Bytes,
    Micros,
    /// CPU, with packets per write and writes per second and core.
    Merged,
    Rate,
    /// Half of the times, and 99 of 100.
    Times,
}

struct Column {
    head: [&'static str; 2],
    phase: &'static str,
    /// The figure that is judged.
    figure: &'static str,
    /// The floor's figure that it is held against.
    floor: Option<&'static str>,
    shown: Shown,
}

const fn column(
    head: [&'static str; 2],
    phase: &'static str,
    figure: &'static str,
    floor: Option<&'static str>,
    shown: Shown,
) -> Column {
    Column { head, phase, figure, floor, shown }
}

/// What a message costs the floor at 40 a second: whoever merges is held against that, too.
const FORTY: Option<&str> = Some("floor.broadcast_40.cpu_us_per_message");

const COLUMNS: [Column; 8] = [
    column(["memory per idle", "connection (RSS)"], "idle", "bytes_per_connection", None, Shown::Bytes),
    column(["CPU", "to connect"], "connect", "cpu_us", Some("floor.connect.cpu_us"), Shown::Micros),
    column(
        ["1 message", "a second"],
        "broadcast_1",
        "cpu_us_per_message",
        Some("floor.broadcast_1.cpu_us_per_message"),
        Shown::Micros,
    ),
    column(["40 a second,", "as they come"], "broadcast_40", "cpu_us_per_message", FORTY, Shown::Micros),
    column(["40 a second, within 200 ms", MERGED], "broadcast_40_200ms", "cpu_us_per_message", FORTY, Shown::Merged),
    column(["40 a second, within 1 s", MERGED], "broadcast_40_1s", "cpu_us_per_message", FORTY, Shown::Merged),
    column(
        ["peak", "delivered"],
        "flat_out",
        "delivered_per_second",
        Some("floor.flat_out.delivered_per_second"),
        Shown::Rate,
    ),
    column(
        ["last receiver", "p50 / p99 delay"],
        "broadcast_1",
        "last_receiver_p99_ms",
        Some("floor.broadcast_1.last_receiver_p99_ms"),
        Shown::Times,
    ),
];

const MERGED: &str = "CPU; in one write; writes/s/core";

impl Column {
    /// Its cell in the row of the edge, or with `floor.` before the names in that of the floor.
    fn cell(&self, report: &Report, prefix: &str) -> String {
        let median = |figure: &str| Some(report.figures.get(&format!("{prefix}{}.{figure}", self.phase))?.median);
        let shown = || {
            let value = median(self.figure)?;
            Some(match self.shown {
                Shown::Bytes => format!("{value:.0} B"),
                Shown::Micros => format!("{} us", short(value)),
                Shown::Merged => format!(
                    "{} us; {}; {}",
                    short(value),
                    short(median("messages_per_write")?),
                    short(median("writes_per_second_per_core")?)
                ),
                Shown::Rate => format!("{}/s", short(value)),
                Shown::Times => format!("{} / {} ms", short(median("last_receiver_p50_ms")?), short(value)),
            })
        };
        shown().unwrap_or_else(|| "-".to_owned())
    }

    /// How many times the floor it is, beside the limit, and whether that holds. Without a row in the budget, only the ratio.
    fn ratio(&self, report: &Report) -> String {
        let name = format!("{}.{}", self.phase, self.figure);
        if let Some(verdict) = report.verdicts.iter().find(|verdict| verdict.figure == name) {
            return judged(verdict);
        }
        let value = report.figures.get(&name).zip(self.floor.and_then(|floor| report.figures.get(floor)));
        value.and_then(|(value, floor)| value.ratio(floor)).map_or("-".to_owned(), |ratio| number(ratio.median, true))
    }
}

fn judged(verdict: &Verdict) -> String {
    let is_ratio = verdict.limit.of.is_some();
    let mark = match verdict.outcome {
        Outcome::Passed => "ok",
        Outcome::Failed => "NO",
        Outcome::NotMeasured => "NOT MEASURED",
    };
    let mut words = vec![verdict.judged().map_or("-".to_owned(), |value| number(value, is_ratio))];
    words.extend(verdict.limit.min.map(|min| format!(">= {min}")));
    words.extend(verdict.limit.max.map(|max| format!("<= {max}")));
    words.push(mark.to_owned());
    words.join(" ")
}

/// A ratio to three places, so that what is just above its limit does not look as if it were at it.
fn number(value: f64, is_ratio: bool) -> String {
    if is_ratio { format!("{value:.3}") } else { short(value) }
}

/// Reports side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Above the rows: what the reports are of.
    about: Vec<String>,
    /// Below the rows: what does not hold and is no column, and what went wrong.
    notes: Vec<String>,
    holds: bool,
}

impl Table {
    /// The table of `reports`, in their order.
    ///
    /// # Errors
    /// [`TableError`] when two are of the same send path and kind of clients.
    pub fn of(reports: &[Report]) -> Result<Self, TableError> {
        for (index, report) in reports.iter().enumerate() {
            if reports[..index].iter().any(|earlier| way(earlier) == way(report)) {
                return Err(TableError::SameWay(way(report)));
            }
        }
        let row = |name: &str, report: &Report, cell: &dyn Fn(&Column) -> String| {
            let name = format!("{name} {}", way(report));
            std::iter::once(name).chain(COLUMNS.iter().map(cell)).collect::<Vec<_>>()
        };
        let mut rows: Vec<Vec<String>> = (0..2)
            .map(|line| {
                std::iter::once(String::new())
                    .chain(COLUMNS.iter().map(|column| column.head[line].to_owned()))
                    .collect()
            })
            .collect();
        rows.extend(reports.iter().map(|report| row("floor by", report, &|column| column.cell(report, "floor."))));
        rows.extend(reports.iter().map(|report| row("us by", report, &|column| column.cell(report, ""))));
        rows.extend(reports.iter().map(|report| row("us over the floor,", report, &|column| column.ratio(report))));
        let wrong: Vec<String> = reports.iter().flat_map(wrong).collect();
        let holds = wrong.is_empty() && reports.iter().all(Report::passes);
        let troubles = reports
            .iter()
            .flat_map(|report| report.troubles.iter().map(|trouble| format!("note: {}: {trouble}", way(report))));
        let notes = wrong.iter().cloned().chain(troubles).collect();
        Ok(Self { rows, about: reports.iter().map(about).collect(), notes, holds })
    }

    /// Whether every row of every budget holds, nothing was lost, doubled or out of order in any repeat, and no run was cut
    /// short.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds
    }
}

/// How the edge sends, and to whom when these are no sockets.
fn way(report: &Report) -> String {
    let path = match report.send_path.as_str() {
        "send" => "send()",
        "ring" => "io_uring",
        other => other,
    };
    match report.profile.clients.engine {
        EngineKind::Socket => path.to_owned(),
        EngineKind::Xdp => format!("{path} to XDP"),
    }
}

fn about(report: &Report) -> String {
    let profile = &report.profile;
    format!(
        "{}: profile {}, {} clients, {} repeats, {:.0} s on {} CPUs ({}), Linux {}",
        way(report),
        profile.name,
        profile.clients.count.get(),
        profile.repeats.get(),
        report.seconds,
        report.machine.cpus,
        report.machine.cpu,
        report.machine.kernel
    )
}

/// What does not hold, beyond what a column shows.
fn wrong(report: &Report) -> Vec<String> {
    let way = way(report);
    let mut wrong = Vec::new();
    if report.interrupted {
        wrong.push(format!("NO: {way}: the run was interrupted"));
    }
    for phase in &report.profile.phases {
        let repeats = phase.repeats(&report.profile);
        for figure in figures_of(phase.kind).into_iter().filter(|figure| LOSSES.contains(figure)) {
            let name = format!("{}.{figure}", phase.name);
            let values = report.figures.get(&name).map_or(&[][..], |values| &values.values);
            let lost: f64 = values.iter().filter(|value| **value > 0.0).sum();
            if lost > 0.0 {
                wrong.push(format!("NO: {way}: {name} is {lost} over {} repeats", values.len()));
            }
            if (values.len() as u64) < repeats {
                wrong.push(format!("NO: {way}: {name} was measured in {} of {repeats} repeats", values.len()));
            }
        }
    }
    let in_a_column = |verdict: &Verdict| {
        COLUMNS.iter().any(|column| verdict.figure == format!("{}.{}", column.phase, column.figure))
    };
    // Those of losses are told above, over all repeats.
    let is_loss = |verdict: &Verdict| LOSSES.iter().any(|loss| verdict.figure.ends_with(&format!(".{loss}")));
    let others = report.verdicts.iter().filter(|verdict| !in_a_column(verdict) && !is_loss(verdict));
    let failed = others.filter(|verdict| verdict.outcome != Outcome::Passed);
    wrong.extend(failed.map(|verdict| format!("NO: {way}: {} is {}", verdict.figure, judged(verdict))));
    wrong
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.about {
            writeln!(f, "{line}")?;
        }
        let widths: Vec<usize> = (0..=COLUMNS.len())
            .map(|place| self.rows.iter().map(|row| row[place].chars().count()).max().unwrap_or(0))
            .collect();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate();
            let padded = |(place, (cell, width)): (usize, (&String, &usize))| {
                if place == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            };
            writeln!(f, "{}", cells.map(padded).collect::<Vec<_>>().join(" | ").trim_end())?;
            if index == 1 {
                let lines: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(f, "{}", lines.join("-+-"))?;
            }
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let verdict = if self.holds { "every limit holds" } else { "NOT every limit holds" };
        write!(
            f,
            "{verdict}; CPU is that of the server per client or per message that one received; medians of the repeats"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signoff::figures::Figures;
    use crate::signoff::judge::judge;
    use crate::signoff::profile::Profile;
    use crate::signoff::sample;

    /// What a quiet machine shows, three repeats of each.
    const MEASURED: [(&str, f64); 17] = [
        ("idle.bytes_per_connection", 151.0),
        ("connect.cpu_us", 16.0),
        ("floor.connect.cpu_us", 8.0),
        ("broadcast_1.cpu_us_per_message", 4.4),
        ("floor.broadcast_1.cpu_us_per_message", 4.0),
        ("broadcast_1.last_receiver_p50_ms", 30.0),
        ("broadcast_1.last_receiver_p99_ms", 44.0),
        ("floor.broadcast_1.last_receiver_p50_ms", 31.0),
        ("floor.broadcast_1.last_receiver_p99_ms", 40.0),
        ("broadcast_40.cpu_us_per_message", 2.4),
        ("floor.broadcast_40.cpu_us_per_message", 4.0),
        ("broadcast_40_200ms.cpu_us_per_message", 0.6),
        ("broadcast_40_200ms.messages_per_write", 8.9),
        ("broadcast_40_200ms.writes_per_second_per_core", 181_000.0),
        ("broadcast_40_1s.cpu_us_per_message", 0.16),
        ("flat_out.delivered_per_second", 55e6),
        ("floor.flat_out.delivered_per_second", 44e6),
    ];

    /// A report of the repository's profile, with the figures as above but for those of `others`.
    fn report(send_path: &str, others: &[(&str, [f64; 3])]) -> Report {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/bench.toml");
        let profile = Profile::load(&path).unwrap();
        let mut figures = Figures::default();
        let mut record = |name: &str, values: [f64; 3]| {
            let values = others.iter().find(|(other, _)| *other == name).map_or(values, |(_, values)| *values);
            let (phase, figure) = name.rsplit_once('.').unwrap();
            values.iter().for_each(|value| figures.record(phase, figure, *value));
        };
        for (name, value) in MEASURED {
            record(name, [value; 3]);
        }
        for phase in &profile.phases {
            for figure in figures_of(phase.kind) {
                if LOSSES.contains(&figure) || figure == "heartbeats_missing" {
                    record(&format!("{}.{figure}", phase.name), [0.0; 3]);
                }
            }
        }
        let verdicts = judge(&profile, &figures);
        let (send_path, troubles) = (send_path.to_owned(), Vec::new());
        let mut report = Report { profile, figures, verdicts, send_path, troubles, ..sample::report(1.0) };
        report.passed = report.passes();
        report
    }

    /// The cells of the row that begins with `name`.
    fn cells(table: &Table, name: &str) -> Vec<String> {
        let shown = table.to_string();
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {shown}"));
        line.split(" | ").skip(1).map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn each_path_stands_beside_its_own_floor() {
        let ring = [("connect.cpu_us", [12.0, 12.0, 12.0]), ("floor.connect.cpu_us", [6.0, 6.0, 6.0])];
        let table = Table::of(&[report("send", &[]), report("ring", &ring)]).unwrap();
        assert!(table.holds(), "{table}");
        let merged = "0.6 us; 8.9; 181k";
        assert_eq!(
            cells(&table, "us by send()"),
            ["151 B", "16 us", "4.4 us", "2.4 us", merged, "-", "55M/s", "30 / 44 ms"],
            "what only half is there is not shown: {table}"
        );
        assert_eq!(cells(&table, "floor by send()"), ["-", "8 us", "4 us", "4 us", "-", "-", "44M/s", "31 / 40 ms"]);
        let ratios = cells(&table, "us over the floor, send()");
        assert_eq!(
            ratios,
            [
                "151 <= 160 ok",
                "2.000 <= 2.5 ok",
                "1.100 <= 1.15 ok",
                "0.600",
                "0.150 <= 0.55 ok",
                "0.040 <= 0.2 ok",
                "1.250 >= 0.75 ok",
                "1.100 <= 1.15 ok"
            ]
        );
        assert_eq!(cells(&table, "floor by io_uring")[1], "6 us");
        assert_eq!(cells(&table, "us by io_uring")[1], "12 us");
        assert_eq!(cells(&table, "us over the floor, io_uring"), ratios);
    }

    #[test]
    fn whatever_does_not_hold_is_said() {
        let rows: [(&str, [f64; 3], &str); 7] = [
            ("connect.cpu_us", [21.0, 20.01, 19.0], "2.501 <= 2.5 NO"),
            ("flat_out.delivered_per_second", [1e6; 3], "0.023 >= 0.75 NO"),
            ("idle.bytes_per_connection", [161.0; 3], "161 <= 160 NO"),
            ("floor.broadcast_1.cpu_us_per_message", [f64::NAN; 3], "- <= 1.15 NOT MEASURED"),
            ("broadcast_40_1s.missing", [0.0, 2.0, 0.0], "NO: send(): broadcast_40_1s.missing is 2 over 3 repeats"),
            ("flat_out.faults", [0.0, f64::NAN, 0.0], "NO: send(): flat_out.faults was measured in 2 of 3 repeats"),
            ("idle.heartbeats_missing", [3.0; 3], "NO: send(): idle.heartbeats_missing is 3 <= 0 NO"),
        ];
        for (name, values, words) in rows {
            let table = Table::of(&[report("ring", &[]), report("send", &[(name, values)])]).unwrap();
            let shown = table.to_string();
            assert!(!table.holds() && shown.contains(words), "{name}: {shown}");
            assert!(shown.contains("\nNOT every limit holds"), "{name}: {shown}");
        }
        let mut cut = report("send", &[]);
        cut.interrupted = true;
        let table = Table::of(&[cut]).unwrap();
        assert!(!table.holds() && table.to_string().contains("the run was interrupted"), "{table}");
    }

    #[test]
    fn a_path_stands_there_once() {
        let same = Table::of(&[report("send", &[]), report("send", &[])]);
        assert_eq!(same, Err(TableError::SameWay("send()".to_owned())));
    }
}
