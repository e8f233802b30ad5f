//! The report as one page: what a manager reads first, then what an engineer asks next.
//!
//! Self-contained: no script, no font, no image, no address. It is XML too, so that any parser can check it.
//!
//! Layout: the page and its sections here · `rows` tables of figures and their budget · `words` numbers and names as text

mod rows;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::judge::Outcome;
use super::plot::{COLOURS, Line, plot};
use super::report::Report;
use super::series::Point;
use words::{Escaped, date, duration};

const STYLE: &str = include_str!("style.css");

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    let name = Escaped(&report.profile.name);
    let verdict = words::verdict(report);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{verdict}: capacity sign-off {name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    head(&mut out, report);
    rows::budget(&mut out, report);
    troubles(&mut out, report);
    plots(&mut out, report);
    rows::figures(&mut out, report);
    machine(&mut out, report);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

// Writing to a string does not fail, so what `write!` says is not looked at in this module.

fn head(out: &mut String, report: &Report) {
    let profile = &report.profile;
    let _ = write!(
        out,
        "<h1>Capacity sign-off: {}</h1>\n<p class=\"soft\">{}</p>\n",
        Escaped(&profile.name),
        Escaped(&profile.about)
    );
    let class = if report.passed { "good" } else { "bad" };
    let _ = write!(out, "<section class=\"verdict {class}\">\n<strong>{}</strong>\n", words::verdict(report));
    let (passed, all) = (report.count(Outcome::Passed), report.verdicts.len());
    let mut sentence = format!("{passed} of {all} rows of the budget hold");
    for (outcome, what) in [(Outcome::Failed, "failed"), (Outcome::NotMeasured, "not measured, which counts as failed")]
    {
        match report.count(outcome) {
            0 => {}
            count => {
                let _ = write!(sentence, "; {count} {what}");
            }
        }
    }
    if report.interrupted {
        sentence.push_str(". The run was interrupted: the figures are those up to then");
    }
    let _ = write!(out, "<p>{sentence}.</p>\n</section>\n");
    let _ = writeln!(
        out,
        "<p class=\"soft small\">{} clients on {}, {}, {} on {}, in {}.</p>",
        words::grouped(profile.clients.count.get()),
        words::transport(profile.clients.transport),
        match profile.repeats.get() {
            1 => "one repeat".to_owned(),
            repeats => format!("{repeats} repeats"),
        },
        date(report.began_unix_s),
        Escaped(&report.machine.cpu),
        duration(report.seconds)
    );
}

fn troubles(out: &mut String, report: &Report) {
    if report.troubles.is_empty() {
        return;
    }
    out.push_str("<h2>What went wrong</h2>\n<ul class=\"troubles\">\n");
    for trouble in &report.troubles {
        let _ = writeln!(out, "<li>{}</li>", Escaped(trouble));
    }
    out.push_str("</ul>\n");
}

/// A plot: its heading, and its lines with their names.
type Plot<'a> = (&'a str, Vec<(String, Line)>);

fn plots(out: &mut String, report: &Report) {
    let points = &report.samples;
    let one = |name: &str, of: fn(&Point) -> f64| {
        vec![(name.to_owned(), points.iter().map(|point| (point.at_seconds, of(point))).collect())]
    };
    let plots: [Plot<'_>; 6] = [
        ("CPU, in cores", by_process(points, |point| &point.cpu_cores)),
        ("Memory (RSS), in MB", by_process(points, |point| &point.rss_mb)),
        ("Connections", one("clients that are in", |point| point.connections)),
        ("Messages delivered per second", one("messages that clients received", |point| point.delivered_per_second)),
        (
            "Kernel memory, in MB",
            [one("slab", |point| point.slab_mb), one("TCP buffers", |point| point.tcp_memory_mb)].concat(),
        ),
        ("TCP segments sent again per second", one("retransmits", |point| point.retransmits_per_second)),
    ];
    out.push_str("<h2>Over time</h2>\n");
    let mut drawn = false;
    for (heading, lines) in plots {
        let (names, lines): (Vec<String>, Vec<Line>) = lines.into_iter().take(COLOURS).unzip();
        let Some(svg) = plot(&lines, &report.phases) else { continue };
        drawn = true;
        let _ = write!(out, "<h3>{heading}</h3>\n<div class=\"legend\">");
        for (index, name) in names.iter().enumerate() {
            let _ = write!(out, "<span style=\"--c: var(--line{index})\">{}</span>", Escaped(name));
        }
        let _ = write!(out, "</div>\n<div class=\"plot\">{svg}</div>\n");
    }
    if !drawn {
        out.push_str("<p class=\"soft\">Nothing was sampled.</p>\n");
    }
    out.push_str("<details>\n<summary>When each phase ran</summary>\n<table>\n<thead><tr><th>Phase</th>");
    out.push_str("<th class=\"n\">Repeat</th><th class=\"n\">From</th><th class=\"n\">To</th></tr></thead>\n<tbody>\n");
    for phase in &report.phases {
        let _ = writeln!(
            out,
            "<tr><td><code>{}</code></td><td class=\"n\" data-name=\"Repeat\">{}</td>\
             <td class=\"n\" data-name=\"From\">{:.1} s</td><td class=\"n\" data-name=\"To\">{:.1} s</td></tr>",
            Escaped(&phase.name),
            phase.repeat,
            phase.from_seconds,
            phase.to_seconds
        );
    }
    out.push_str("</tbody>\n</table>\n</details>\n");
}

/// A line for each process, the edge's first.
fn by_process(points: &[Point], of: fn(&Point) -> &BTreeMap<String, f64>) -> Vec<(String, Line)> {
    let names: BTreeSet<&String> = points.iter().flat_map(|point| of(point).keys()).collect();
    let mut lines: Vec<(String, Line)> = names
        .into_iter()
        .map(|name| {
            let values = points.iter().filter_map(|point| Some((point.at_seconds, *of(point).get(name)?)));
            (name.clone(), values.collect())
        })
        .collect();
    lines.sort_by_key(|(name, _)| words::rank_of_process(name));
    lines
}

fn machine(out: &mut String, report: &Report) {
    let machine = &report.machine;
    out.push_str("<h2>Where it ran</h2>\n<dl>\n");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", Escaped(name), Escaped(value));
    };
    row("Processor", &format!("{} × {}", machine.cpus, machine.cpu));
    row("Memory", &format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30)));
    row("System", &machine.system);
    row("Kernel", &machine.kernel);
    row("Descriptors per table", &machine.descriptors_per_table.to_string());
    row("Send path of the edge", if report.send_path.is_empty() { "unknown" } else { &report.send_path });
    for (program, version) in &report.versions {
        row(program, version);
    }
    out.push_str("</dl>\n<details>\n<summary>Kernel settings</summary>\n<dl>\n");
    for (name, value) in &machine.sysctls {
        let _ = writeln!(out, "<dt><code>{}</code></dt><dd><code>{}</code></dd>", Escaped(name), Escaped(value));
    }
    out.push_str("</dl>\n</details>\n");
    if let Ok(profile) = toml::to_string(&report.profile) {
        let _ =
            write!(out, "<details>\n<summary>The profile</summary>\n<pre>{}</pre>\n</details>\n", Escaped(&profile));
    }
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document, ParsingOptions};

    use super::*;
    use crate::signoff::sample;

    fn texts(document: &Document<'_>, tag: &str) -> Vec<String> {
        let text = |node: roxmltree::Node<'_, '_>| {
            node.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect::<String>()
        };
        document.descendants().filter(|node| node.has_tag_name(tag)).map(text).collect()
    }

    #[test]
    fn it_is_well_formed_and_needs_nothing_but_itself() {
        let page = page(&sample::report(1.0));
        for reference in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"] {
            assert!(!page.contains(reference), "{reference}");
        }
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        let document = Document::parse_with_options(&page, options).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(texts(&document, "h1"), ["Capacity sign-off: sample <&>"]);
        assert_eq!(texts(&document, "strong"), ["Not signed off"]);
        assert!(texts(&document, "li")[0].contains("the clients <broke> & \"left\""));
        assert_eq!(document.descendants().filter(|node| node.has_tag_name("svg")).count(), 5);
    }

    #[test]
    fn every_row_of_the_budget_is_there_and_failures_come_first() {
        let report = sample::report(1.0);
        let page = page(&report);
        let places: Vec<usize> = ["failed", "not_measured", "passed"]
            .iter()
            .map(|class| page.find(&format!("<tr class=\"{class}\">")).unwrap_or_else(|| panic!("no row {class}")))
            .collect();
        assert!(places[0] < places[2] && places[1] < places[2]);
        let budget = &page[..page.find("<h2>Over time").unwrap()];
        for verdict in &report.verdicts {
            assert!(
                budget.contains(&format!("<code>{}</code>", verdict.figure.replace('.', ".<wbr/>"))),
                "{}",
                verdict.figure
            );
        }
        assert!(
            budget.contains("4 of 6 rows of the budget hold; 1 failed; 1 not measured, which counts as failed"),
            "{}",
            &budget[..9000]
        );
    }

    #[test]
    fn the_verdict_is_what_the_report_says() {
        let mut report = sample::report(1.0);
        report.verdicts.retain(|verdict| verdict.outcome == Outcome::Passed);
        report.passed = report.passes();
        assert!(page(&report).contains("<strong>Signed off</strong>"));
        report.interrupted = true;
        report.passed = report.passes();
        assert!(page(&report).contains("<strong>Interrupted</strong>"));
    }
}
