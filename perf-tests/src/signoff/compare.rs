//! Two reports side by side: what moved, and whether by more than the noise.
//!
//! The bounds of a figure are the lowest and the highest of its repeats, and at least a little around the median, for a
//! few repeats know little of the noise. Two figures differ when their bounds do not meet. A count of what went wrong has no
//! noise.

use serde::Serialize;

use super::figures::{Better, Values, describe};
use super::report::Report;

/// Noise that is taken for granted around a median of several repeats.
const LEAST_NOISE: f64 = 0.05;

/// The same when there was one repeat only, which says nothing of it.
const NOISE_OF_ONE: f64 = 0.20;

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// Better by more than the noise.
    Better,
    /// Worse by more than the noise.
    Worse,
    /// Within the noise.
    Noise,
    /// Only in the first report.
    Gone,
    /// Only in the second.
    New,
}

/// A figure in both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Full name; `NAME / OF` for a ratio that is budgeted.
    pub figure: String,
    /// Whether the second report's budget has a row for it.
    pub budgeted: bool,
    /// Median in the first.
    pub a: Option<f64>,
    /// Median in the second.
    pub b: Option<f64>,
    /// The second by the first, less one; `null` when there is no such number.
    pub change: Option<f64>,
    /// The bounds in the first.
    pub a_bounds: Option<[f64; 2]>,
    /// The bounds in the second.
    pub b_bounds: Option<[f64; 2]>,
    /// What became of it.
    pub moved: Move,
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Why the two may not be comparable.
    pub warnings: Vec<String>,
    /// Every figure of either, budgeted ones first.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// From the first report to the second.
    #[must_use]
    pub fn of(a: &Report, b: &Report) -> Self {
        let mut rows = Vec::new();
        let mut absolute = Vec::new();
        for verdict in &b.verdicts {
            let name = &verdict.figure;
            match &verdict.limit.of {
                None => absolute.push(name.as_str()),
                Some(of) => {
                    let ratio = |report: &Report| report.figures.get(name)?.ratio(report.figures.get(of)?);
                    rows.extend(row(&format!("{name} / {of}"), name, true, ratio(a).as_ref(), ratio(b).as_ref()));
                }
            }
        }
        let mut names: Vec<&str> = a.figures.iter().chain(b.figures.iter()).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            rows.extend(row(name, name, absolute.contains(&name), a.figures.get(name), b.figures.get(name)));
        }
        rows.sort_by_key(|row| !row.budgeted);
        Self { warnings: warnings(a, b), rows }
    }

    /// Budgeted figures that got worse by more than the noise, or are gone.
    pub fn worse(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.budgeted && matches!(row.moved, Move::Worse | Move::Gone))
    }
}

fn row(name: &str, figure: &str, budgeted: bool, a: Option<&Values>, b: Option<&Values>) -> Option<Row> {
    let known = describe(figure);
    let exact = known.is_some_and(super::figures::Figure::is_count);
    let bounds = |values: &Values| {
        let noise = match values.values.len() {
            _ if exact => 0.0,
            1 => NOISE_OF_ONE,
            _ => LEAST_NOISE,
        };
        let around = values.median.abs() * noise;
        [values.min.min(values.median - around), values.max.max(values.median + around)]
    };
    let (a_bounds, b_bounds) = (a.map(bounds), b.map(bounds));
    let moved = match (a_bounds, b_bounds) {
        (None, None) => return None,
        (Some(_), None) => Move::Gone,
        (None, Some(_)) => Move::New,
        (Some([_, a_high]), Some([b_low, _])) if a_high < b_low => direction(known.map(|known| known.better), true),
        (Some([a_low, _]), Some([_, b_high])) if b_high < a_low => direction(known.map(|known| known.better), false),
        _ => Move::Noise,
    };
    let (a, b) = (a.map(|values| values.median), b.map(|values| values.median));
    let change = a.zip(b).map(|(a, b)| b / a - 1.0).filter(|change| change.is_finite());
    Some(Row { figure: name.to_owned(), budgeted, a, b, change, a_bounds, b_bounds, moved })
}

fn direction(better: Option<Better>, rose: bool) -> Move {
    if rose == (better == Some(Better::Higher)) { Move::Better } else { Move::Worse }
}

fn warnings(a: &Report, b: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            warnings.push(format!("{what} differs: {a}, then {b}"));
        }
    };
    differ("profile", &a.profile.name, &b.profile.name);
    differ("CPU", &a.machine.cpu, &b.machine.cpu);
    differ("number of CPUs", &a.machine.cpus.to_string(), &b.machine.cpus.to_string());
    differ("kernel", &a.machine.kernel, &b.machine.kernel);
    differ("send path", &a.send_path, &b.send_path);
    for (name, value) in &a.machine.sysctls {
        let other = b.machine.sysctls.get(name).map_or("not there", String::as_str);
        differ(name, value, other);
    }
    if a.profile.name == b.profile.name
        && (&a.profile.clients, &a.profile.phases) != (&b.profile.clients, &b.profile.phases)
    {
        warnings.push("the profiles have one name, but not the same clients and phases".to_owned());
    }
    for (which, report) in [("first", a), ("second", b)] {
        if report.interrupted {
            warnings.push(format!("the {which} was interrupted"));
        }
        if report.profile.repeats.get() == 1 {
            warnings.push(format!("the {which} has one repeat, so that its noise is guessed"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signoff::sample;

    #[test]
    fn bounds_tell_a_move_from_noise() {
        let low = "x.cpu_us_per_message";
        let high = "x.delivered_per_second";
        let count = "x.missing";
        type Case = (&'static str, &'static str, &'static [f64], &'static [f64], Move);
        let rows: [Case; 12] = [
            ("the same", low, &[10.0, 11.0, 12.0], &[10.0, 11.0, 12.0], Move::Noise),
            ("bounds that meet", low, &[10.0, 11.0, 12.0], &[12.0, 13.0, 14.0], Move::Noise),
            ("bounds that do not", low, &[10.0, 11.0, 12.0], &[13.0, 14.0, 15.0], Move::Worse),
            ("the other way", low, &[13.0, 14.0, 15.0], &[10.0, 11.0, 12.0], Move::Better),
            ("higher is better here", high, &[10.0, 11.0, 12.0], &[13.0, 14.0, 15.0], Move::Better),
            ("and lower worse", high, &[13.0, 14.0, 15.0], &[10.0, 11.0, 12.0], Move::Worse),
            ("repeats that agree too well: 5 %", low, &[10.0, 10.0], &[10.9, 10.9], Move::Noise),
            ("beyond the 5 %", low, &[10.0, 10.0], &[11.2, 11.2], Move::Worse),
            ("one repeat knows no noise: 20 %", low, &[10.0], &[14.0], Move::Noise),
            ("beyond the 20 %", low, &[10.0], &[16.0], Move::Worse),
            ("a count has no noise", count, &[0.0], &[1.0], Move::Worse),
            ("nor the other way", count, &[1.0, 1.0], &[0.0, 0.0], Move::Better),
        ];
        for (name, figure, a, b, expected) in rows {
            let (a, b) = (Values::of(a), Values::of(b));
            let row = row(figure, figure, true, a.as_ref(), b.as_ref()).unwrap();
            assert_eq!(row.moved, expected, "{name}");
        }
        let one = Values::of(&[1.0]);
        assert_eq!(row(low, low, true, one.as_ref(), None).unwrap().moved, Move::Gone);
        assert_eq!(row(low, low, true, None, one.as_ref()).unwrap().moved, Move::New);
        assert_eq!(row(low, low, true, None, None), None);
    }

    #[test]
    fn a_ratio_in_the_budget_counts_as_a_ratio() {
        let (a, b) = (sample::report(1.0), sample::report(1.5));
        let comparison = Comparison::of(&a, &b);
        let worse: Vec<&str> = comparison.worse().map(|row| row.figure.as_str()).collect();
        let expected = [
            "connect.cpu_us / floor.connect.cpu_us",
            "broadcast_1.cpu_us_per_message / floor.broadcast_1.cpu_us_per_message",
            "idle.bytes_per_connection",
            "idle.cpu_share",
        ];
        assert_eq!(worse, expected);
        assert_eq!(Comparison::of(&a, &a).worse().count(), 0);
        assert_eq!(comparison.warnings, Vec::<String>::new());
        // Not in the budget: it moved, and it does not count.
        let row = comparison.rows.iter().find(|row| row.figure == "broadcast_1.delivered_per_second").unwrap();
        assert_eq!((row.budgeted, row.moved), (false, Move::Better));
    }

    #[test]
    fn what_makes_two_reports_incomparable_is_said() {
        let (a, mut b) = (sample::report(1.0), sample::report(1.0));
        b.machine.kernel = "99.0".to_owned();
        b.interrupted = true;
        b.profile.clients.heartbeat_seconds = 3.0;
        let expected = [
            format!("kernel differs: {}, then 99.0", a.machine.kernel),
            "the profiles have one name, but not the same clients and phases".to_owned(),
            "the second was interrupted".to_owned(),
        ];
        assert_eq!(Comparison::of(&a, &b).warnings, expected);
    }
}
