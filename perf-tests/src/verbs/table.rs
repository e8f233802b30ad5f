//! `perf-tests table`: reports of a sign-off, one per send path and kind of clients, beside their floors.

use std::path::PathBuf;

use clap::Args;
use perf_tests::signoff::report::Report;
use perf_tests::signoff::table::Table;

const EXAMPLES: &str = "\
Examples:
  What `cargo xtask bench` prints, by hand:
    perf-tests signoff --profile perf-tests/profiles/bench.toml --send plain --json plain.json
    perf-tests signoff --profile perf-tests/profiles/bench.toml --send ring --json ring.json
    perf-tests table plain.json ring.json

Exit code 0: every row of the reports' budgets holds, and no repeat lost, doubled or misordered a message. 1: not so. 2: a
report could not be read, or two are of the same send path and kind of clients.";

/// What the edge costs beside the floor, by send path.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Reports of `signoff`, one for each send path and kind of clients
    #[arg(required = true, value_name = "REPORT.json")]
    reports: Vec<PathBuf>,
}

/// Whether everything holds.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let reports = arguments.reports.iter().map(|path| Report::load(path)).collect::<Result<Vec<_>, _>>()?;
    let table = Table::of(&reports)?;
    println!("{table}");
    Ok(table.holds())
}
