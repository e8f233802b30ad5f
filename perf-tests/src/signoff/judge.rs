//! Figures against the budget, row by row.
//!
//! A figure that is missing fails: what was not measured was not shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::figures::{CATALOGUE, Figure, Figures, describe};
use super::profile::{Limit, Profile};

/// What a row of the budget came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Within its limits.
    Passed,
    /// Not within.
    Failed,
    /// The figure, or that which it is a multiple of, is not there.
    NotMeasured,
}

/// A row of the budget with what was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Full name of the figure.
    pub figure: String,
    /// What it has to be.
    pub limit: Limit,
    /// Its median, or of what went wrong the worst repeat; `null` when it was not measured.
    pub value: Option<f64>,
    /// The median of what it is a multiple of; `null` when it stands alone or that was not measured.
    pub of_value: Option<f64>,
    /// How many times that it is: the median over the repeats.
    pub ratio: Option<f64>,
    /// The judgement.
    pub outcome: Outcome,
}

impl Verdict {
    /// What is held against the limits: the ratio where there is one to take, else the value.
    #[must_use]
    pub fn judged(&self) -> Option<f64> {
        if self.limit.of.is_some() { self.ratio } else { self.value }
    }
}

/// Judges every row of the profile's budget, in the order of its phases and of the catalogue.
#[must_use]
pub fn judge(profile: &Profile, figures: &Figures) -> Vec<Verdict> {
    let phase_at = |name: &str| profile.phases.iter().position(|phase| phase.name == name);
    let figure_at = |name: &str| CATALOGUE.iter().position(|figure| figure.name == name);
    let rows = |(phase, limits): (&String, &BTreeMap<String, Limit>)| {
        let row = |(figure, limit): (&String, &Limit)| {
            ((phase_at(phase), figure_at(figure)), row(&format!("{phase}.{figure}"), limit, figures))
        };
        limits.iter().map(row).collect::<Vec<_>>()
    };
    let mut verdicts: Vec<_> = profile.budget.iter().flat_map(rows).collect();
    verdicts.sort_by_key(|(place, _)| *place);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

fn row(name: &str, limit: &Limit, figures: &Figures) -> Verdict {
    let value = figures.get(name);
    let of = limit.of.as_deref().and_then(|of| figures.get(of));
    // A message that one of three repeats has lost makes no median.
    let counts = describe(name).is_some_and(Figure::is_count);
    let ratio = value.zip(of).and_then(|(value, of)| value.ratio(of)).map(|ratio| ratio.median);
    let mut verdict = Verdict {
        figure: name.to_owned(),
        limit: limit.clone(),
        value: value.map(|value| if counts { value.max } else { value.median }),
        of_value: of.map(|of| of.median),
        ratio,
        outcome: Outcome::NotMeasured,
    };
    if let Some(judged) = verdict.judged() {
        let within = limit.max.is_none_or(|max| judged <= max) && limit.min.is_none_or(|min| judged >= min);
        verdict.outcome = if within { Outcome::Passed } else { Outcome::Failed };
    }
    verdict
}

#[cfg(test)]
mod tests {
    use settings::Source;

    use super::Outcome::{Failed, NotMeasured, Passed};
    use super::*;

    const PROFILE: &str = r#"
        name = "rows"
        clients.count = 10
        floor.paths = ["send"]
        [[phase]]
        name = "one"
        kind = "broadcast"
        messages = 1
        per_second = 1
        floor = true
    "#;

    #[test]
    fn rows() {
        let cost = "one.cpu_us_per_message";
        let floor = "floor.one.cpu_us_per_message";
        let rows = [
            ("below the most", "{ max = 5 }", &[(cost, &[3.0, 4.0, 9.0][..])][..], Some(4.0), Passed),
            ("at the most", "{ max = 4 }", &[(cost, &[4.0])], Some(4.0), Passed),
            ("above the most", "{ max = 3.9 }", &[(cost, &[4.0])], Some(4.0), Failed),
            ("below the least", "{ min = 5 }", &[(cost, &[4.0])], Some(4.0), Failed),
            ("between", "{ min = 3, max = 5 }", &[(cost, &[4.0])], Some(4.0), Passed),
            ("not measured", "{ max = 5 }", &[], None, NotMeasured),
            ("no number", "{ max = 5 }", &[(cost, &[f64::NAN])], None, NotMeasured),
            ("a multiple", "{ max = 2.0, of = \"F\" }", &[(cost, &[4.0]), (floor, &[2.0])], Some(2.0), Passed),
            (
                "too great a multiple",
                "{ max = 1.9, of = \"F\" }",
                &[(cost, &[4.0]), (floor, &[2.0])],
                Some(2.0),
                Failed,
            ),
            (
                "repeat by repeat",
                "{ max = 2.0, of = \"F\" }",
                &[(cost, &[4.0, 40.0, 9.0]), (floor, &[2.0, 20.0, 1.0])],
                Some(2.0),
                Passed,
            ),
            ("a multiple of what is not there", "{ max = 2, of = \"F\" }", &[(cost, &[4.0])], None, NotMeasured),
            ("a multiple of nothing", "{ max = 2, of = \"F\" }", &[(cost, &[4.0]), (floor, &[0.0])], None, NotMeasured),
        ];
        for (name, limit, measured, judged, outcome) in rows {
            let text = format!("{PROFILE}\n[budget]\n{cost} = {}", limit.replace('F', floor));
            let profile = Profile::parse(&Source::new("rows.toml", text)).unwrap();
            let mut figures = Figures::default();
            for (figure, values) in measured {
                let (phase, figure) = figure.rsplit_once('.').unwrap();
                values.iter().for_each(|value| figures.record(phase, figure, *value));
            }
            let verdicts = judge(&profile, &figures);
            let found: Vec<_> = verdicts.iter().map(|verdict| (verdict.judged(), verdict.outcome)).collect();
            assert_eq!(found, [(judged, outcome)], "{name}");
        }
    }

    #[test]
    fn what_went_wrong_is_judged_by_the_worst_repeat() {
        let text = format!("{PROFILE}\n[budget]\none.missing = {{ max = 0 }}");
        let profile = Profile::parse(&Source::new("rows.toml", text)).unwrap();
        let mut figures = Figures::default();
        for missing in [0.0, 3.0, 0.0] {
            figures.record("one", "missing", missing);
        }
        let verdicts = judge(&profile, &figures);
        assert_eq!((verdicts[0].judged(), verdicts[0].outcome), (Some(3.0), Failed));
    }
}
