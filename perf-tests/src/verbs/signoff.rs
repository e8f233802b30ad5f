//! `perf-tests signoff`: from a profile to a verdict, a page and a report.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use perf_tests::floor::SendPath;
use perf_tests::signoff::html;
use perf_tests::signoff::judge::{Outcome, Verdict};
use perf_tests::signoff::profile::{Profile, Repeats};
use perf_tests::signoff::report::{Report, write};

use super::process::{raise_descriptor_limit, stop_on_signals};

const EXAMPLES: &str = "\
Examples:
  Does this host hold what CI asks of it? Under two minutes, on daemons that it starts itself:
    perf-tests signoff --profile perf-tests/profiles/10k.toml
  A million connections, with the page where the web server finds it:
    perf-tests signoff --profile perf-tests/profiles/1m.toml --html /srv/www/capacity.html --json /srv/www/capacity.json
  Only see whether a profile is right:
    perf-tests signoff --profile mine.toml --dry-run

Exit code 0: every row of the budget holds. 1: one does not, or was not measured, or the run was interrupted. 2: it could
not be begun. Ctrl-C ends a run early, and still writes what was found; a second one ends it at once.
docs/CAPACITY.md explains profiles and figures.";

/// Walks through a profile, judges it against its budget, and writes a report and a page.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to do and what must come of it
    #[arg(long, value_name = "FILE.toml")]
    profile: PathBuf,
    /// Where the report goes [default: signoff-NAME.json, NAME being the profile's]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the page goes [default: signoff-NAME.html]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How the edge sends, whatever the profile says; the floor is then that of the same path alone
    #[arg(long, value_name = "PATH")]
    send: Option<Send>,
    /// How often everything is done, whatever the profile says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    repeats: Option<u64>,
    /// Read the profile, say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// The words of the edge's setting `shard.send`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Send {
    /// A system call for each send
    Plain,
    /// io_uring, or no start
    Ring,
}

/// Whether the host may be signed off.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let mut profile = Profile::load(&arguments.profile)?;
    if let Some(send) = arguments.send {
        if profile.target.is_some() {
            return Err("--send is a setting of daemons that the sign-off starts: running ones have theirs".into());
        }
        profile.send_by(match send {
            Send::Plain => SendPath::Send,
            Send::Ring => SendPath::Ring,
        });
    }
    if let Some(repeats) = arguments.repeats {
        profile.repeats = Repeats::new(repeats);
    }
    let name: String = profile.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let path = |given: &Option<PathBuf>, end: &str| given.clone().unwrap_or(format!("signoff-{name}.{end}").into());
    let (json, html) = (path(&arguments.json, "json"), path(&arguments.html, "html"));
    if arguments.dry_run {
        plan(&profile, &json, &html);
        return Ok(true);
    }
    raise_descriptor_limit();
    // What cannot be written is better known before than after an hour.
    for path in [&json, &html] {
        write(path, "")?;
    }
    let stop = stop_on_signals()?;
    let report = perf_tests::signoff::run(profile, &stop)?;
    report.save(&json)?;
    write(&html, &html::page(&report))?;
    show(&report, &json, &html);
    Ok(report.passed)
}

fn plan(profile: &Profile, json: &Path, html: &Path) {
    println!("{}: {} clients, {} repeats", profile.name, profile.clients.count.get(), profile.repeats.get());
    for phase in &profile.phases {
        let floor = if phase.floor { ", beside the floor" } else { "" };
        let messages = match phase.message_count() {
            0 => String::new(),
            count => format!(", {count} messages"),
        };
        println!("  {:24} {:?}{messages}{floor}, {} times", phase.name, phase.kind, phase.repeats(profile));
    }
    let rows: usize = profile.budget.values().map(std::collections::BTreeMap::len).sum();
    println!("{rows} rows in the budget; it would write {} and {}", json.display(), html.display());
}

/// The verdict on stdout, row by row.
fn show(report: &Report, json: &Path, html: &Path) {
    for verdict in &report.verdicts {
        println!("{}", row(verdict));
    }
    for trouble in &report.troubles {
        println!("note          {trouble}");
    }
    let interrupted = if report.interrupted { "interrupted; " } else { "" };
    let (passed, all) = (report.count(Outcome::Passed), report.verdicts.len());
    let verdict = if report.passed { "signed off" } else { "not signed off" };
    println!("{verdict}: {interrupted}{passed} of {all} rows of the budget hold");
    println!("report: {}  page: {}", json.display(), html.display());
}

fn row(verdict: &Verdict) -> String {
    let outcome = match verdict.outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::NotMeasured => "NOT MEASURED",
    };
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let mut limit: Vec<String> = Vec::new();
    limit.extend(verdict.limit.min.map(|min| format!("at least {min}")));
    limit.extend(verdict.limit.max.map(|max| format!("at most {max}")));
    let limit = limit.join(", ");
    match &verdict.limit.of {
        None => format!("{outcome:13} {} = {}: {limit}", verdict.figure, number(verdict.value)),
        Some(of) => format!(
            "{outcome:13} {} = {} is {} times {of} = {}: {limit}",
            verdict.figure,
            number(verdict.value),
            number(verdict.ratio),
            number(verdict.of_value)
        ),
    }
}
