//! `perf-tests compare`: two reports of a sign-off, and what moved between them.

use std::path::PathBuf;

use clap::Args;
use perf_tests::signoff::compare::{Comparison, Move, Row};
use perf_tests::signoff::report::Report;

const EXAMPLES: &str = "\
Examples:
  What did the new kernel change?
    perf-tests compare before.json after.json
  The same for a program, all figures:
    perf-tests compare before.json after.json --json

Two figures differ when their bounds do not meet: the lowest and the highest of the repeats, and at least 5 % around the
median (20 % where there was one repeat). A count of what went wrong has no such bounds.
Exit code 0: no budgeted figure got worse by more than that. 1: one did, or is gone. 2: a report could not be read.";

/// What moved between two sign-offs, and whether by more than the noise.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The report to compare with
    a: PathBuf,
    /// The report to judge; its budget says which figures count
    b: PathBuf,
    /// Print all figures as JSON
    #[arg(long)]
    json: bool,
    /// Also show what stayed within the noise
    #[arg(long)]
    all: bool,
}

/// Whether nothing that counts got worse.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let comparison = Comparison::of(&Report::load(&arguments.a)?, &Report::load(&arguments.b)?);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        show(&comparison, arguments.all);
    }
    Ok(comparison.worse().next().is_none())
}

fn show(comparison: &Comparison, all: bool) {
    for warning in &comparison.warnings {
        println!("note: {warning}");
    }
    let shown = |row: &&Row| all || row.moved != Move::Noise;
    let rows: Vec<&Row> = comparison.rows.iter().filter(shown).collect();
    let width = rows.iter().map(|row| row.figure.len()).max().unwrap_or(0);
    for row in &rows {
        let moved = match row.moved {
            Move::Better => "better",
            Move::Worse => "WORSE",
            Move::Noise => "noise",
            Move::Gone => "gone",
            Move::New => "new",
        };
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let change = row.change.map_or(String::new(), |change| format!("{:+.1} %", change * 100.0));
        let budget = if row.budgeted { "  budget" } else { "" };
        println!(
            "{moved:7} {:width$}  {:>14} -> {:>14}  {change:>9}{budget}",
            row.figure,
            number(row.a),
            number(row.b)
        );
    }
    let within = comparison.rows.len() - rows.len();
    if within > 0 {
        println!("{within} figures moved within the noise, if at all");
    }
}
