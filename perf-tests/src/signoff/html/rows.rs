//! Tables: the budget, and every figure beside its budget and its floor.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::words::{self, Escaped, Name, with_unit};
use crate::signoff::figures::{CATALOGUE, Values, describe};
use crate::signoff::judge::Verdict;
use crate::signoff::plot::short;
use crate::signoff::profile::Limit;
use crate::signoff::report::Report;

/// The budget, what failed first.
pub(super) fn budget(out: &mut String, report: &Report) {
    if report.verdicts.is_empty() {
        return;
    }
    out.push_str(
        "<h2>The budget</h2>\n<table>\n<thead><tr><th>What</th><th class=\"n\">Measured</th><th class=\"n\">Compared with</th>\
         <th class=\"n\">Ratio</th><th class=\"n\">Budget</th><th>Verdict</th></tr></thead>\n<tbody>\n",
    );
    let mut verdicts: Vec<&Verdict> = report.verdicts.iter().collect();
    // Failed and unmeasured before passed; within that, the order of the phases.
    verdicts.sort_by_key(|verdict| verdict.outcome == crate::signoff::judge::Outcome::Passed);
    let mut explained = BTreeSet::new();
    for verdict in verdicts {
        let (class, word) = words::outcome(verdict.outcome);
        let known = describe(&verdict.figure);
        let unit = known.map_or("", |known| known.unit);
        let (of_name, of_value) = match &verdict.limit.of {
            None => (String::new(), String::new()),
            Some(of) => (
                format!(" <span class=\"small soft\"><code>{}</code></span>", Name(of)),
                verdict.of_value.map_or("not measured".to_owned(), |value| with_unit(value, unit)),
            ),
        };
        let measured = verdict.value.map_or("not measured".to_owned(), |value| with_unit(value, unit));
        let ratio = verdict.ratio.map_or(String::new(), |ratio| format!("{} ×", short(ratio)));
        let _ = writeln!(
            out,
            "<tr class=\"{class}\"><td><code>{}</code><span class=\"small soft\">{}</span></td>\
             <td class=\"n\" data-name=\"Measured\">{measured}</td><td class=\"n\" data-name=\"Compared with\">{of_value}{of_name}</td>\
             <td class=\"n\" data-name=\"Ratio\">{ratio}</td><td class=\"n\" data-name=\"Budget\">{}{}</td>\
             <td><span class=\"tag {class}\">{word}</span></td></tr>",
            Name(&verdict.figure),
            // The same figure of another phase means the same.
            Escaped(known.filter(|known| explained.insert(known.name)).map_or("", |known| known.meaning)),
            limit(&verdict.limit, unit),
            bar(verdict),
        );
    }
    out.push_str("</tbody>\n</table>\n");
}

/// How much of the budget is used up, as a bar; nothing where there is no upper limit to fill.
fn bar(verdict: &Verdict) -> String {
    match (verdict.judged(), verdict.limit.max) {
        (Some(judged), Some(max)) if max > 0.0 => {
            let percent = (judged / max * 100.0).clamp(0.0, 100.0);
            format!("<span class=\"bar\"><i style=\"width: {percent:.0}%\"></i></span>")
        }
        _ => String::new(),
    }
}

fn limit(limit: &Limit, unit: &str) -> String {
    let is_ratio = limit.of.is_some();
    let text = |value: f64| if is_ratio { format!("{} ×", short(value)) } else { with_unit(value, unit) };
    let parts =
        [limit.min.map(|min| format!("at least {}", text(min))), limit.max.map(|max| format!("at most {}", text(max)))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Every figure, phase by phase.
pub(super) fn figures(out: &mut String, report: &Report) {
    out.push_str("<h2>All figures</h2>\n<p class=\"soft small\">Medians over the repeats, with the lowest and the highest; the floor is the raw \
         loop of sends, by the same send path as the edge.</p>\n");
    for phase in &report.profile.phases {
        let found: Vec<(&str, &Values)> = CATALOGUE
            .iter()
            .filter_map(|figure| Some((figure.name, report.figures.get(&format!("{}.{}", phase.name, figure.name))?)))
            .collect();
        let _ = writeln!(out, "<h3><code>{}</code></h3>", Escaped(&phase.name));
        if found.is_empty() {
            out.push_str("<p class=\"soft\">Not measured.</p>\n");
            continue;
        }
        out.push_str(
            "<table>\n<thead><tr><th>Figure</th><th class=\"n\">Median</th><th class=\"n\">Lowest – highest</th>",
        );
        out.push_str("<th class=\"n\">Floor</th><th class=\"n\">By floor</th><th>Budget</th></tr></thead>\n<tbody>\n");
        for (name, values) in found {
            figure(out, report, &phase.name, name, values);
        }
        out.push_str("</tbody>\n</table>\n");
    }
}

fn figure(out: &mut String, report: &Report, phase: &str, name: &str, values: &Values) {
    let full = format!("{phase}.{name}");
    let known = describe(name);
    let unit = known.map_or("", |known| known.unit);
    let spread = match values.values.len() {
        1 => String::new(),
        _ => format!("{} – {}", short(scaled(values.min, unit)), short(scaled(values.max, unit))),
    };
    let floor = report.figures.get(&format!("floor.{full}"));
    let ratio =
        floor.and_then(|floor| values.ratio(floor)).map_or(String::new(), |ratio| format!("{} ×", short(ratio.median)));
    let floor = floor.map_or(String::new(), |floor| with_unit(floor.median, unit));
    let verdict = report.verdicts.iter().find(|verdict| verdict.figure == full);
    let budget = verdict.map_or(String::new(), |verdict| {
        let (class, word) = words::outcome(verdict.outcome);
        format!(
            "<span class=\"tag {class}\">{word}</span> <span class=\"small soft\">{}</span>",
            limit(&verdict.limit, unit)
        )
    });
    let _ = write!(
        out,
        "<tr><td><code>{name}</code><span class=\"small soft\">{}</span></td><td class=\"n\" data-name=\"Median\">{}</td>",
        Escaped(known.map_or("", |known| known.meaning)),
        with_unit(values.median, unit)
    );
    for (heading, text) in [("Lowest – highest", spread), ("Floor", floor), ("By floor", ratio)] {
        let name = if text.is_empty() { String::new() } else { format!(" data-name=\"{heading}\"") };
        let _ = write!(out, "<td class=\"n\"{name}>{text}</td>");
    }
    let _ = writeln!(out, "<td>{budget}</td></tr>");
}

/// As [`with_unit`] shows it, without the unit.
fn scaled(value: f64, unit: &str) -> f64 {
    if unit == "of a core" { value * 100.0 } else { value }
}
