//! What the filter costs beside Debian's xdp-filter, and what it is worth under a flood: `cargo xtask bench --kernel`.
//!
//! Needs root, the eBPF objects and xdp-filter (package xdp-tools). It works in a mount namespace that `xtask` made for it
//! alone, with a bpffs of its own at the usual place, where xdp-filter looks for one, and in network namespaces of its own.
//! What means something are the ratios: both sides of each were measured by turns, in the same minutes on the same machine.
//!
//! Layout: `subject` the filter with a realistic load of rules · `xdp_filter` whom it is compared with · `costs` nanoseconds
//! a packet · `load` how fast rules come and go, and whether packets notice · `flood` a request and its answer while denied
//! packets pour in · `syns` what a flood of SYNs costs, and who still gets in · `cpus` what runs where · `report` the table and
//! the judgement · `sys` what needs `unsafe`
#![allow(clippy::unwrap_used)] // The rigs that it shares with the tests fail by panicking.

mod costs;
mod cpus;
mod flood;
mod load;
#[path = "../../tests/netns/mod.rs"]
mod netns;
#[path = "../../tests/packets/mod.rs"]
mod packets;
mod report;
mod subject;
mod syns;
mod sys;
mod xdp_filter;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use report::Report;

/// Compares the filter with xdp-filter, and says whether the limits hold
#[derive(Parser)]
struct Arguments {
    /// Rounds of which the medians are shown
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Write the rows to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this part of it
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Cargo passes this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Nanoseconds a packet, by test runs, and the rules' coming and going
    Costs,
    /// A request and its answer under a flood
    Flood,
    /// What a flood of SYNs costs, and who still gets in
    Syns,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(report) if report.holds() => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("not every limit holds");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot measure: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure(arguments: &Arguments) -> Result<Report, String> {
    let object = netns::object().ok_or("it needs root and the object")?;
    let _bpffs = xdp_filter::BpfFileSystem::mount()?;
    let mut report = Report::default();
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    if wanted(Part::Costs) {
        let mut subject = subject::Subject::bring_up(&object)?;
        load::coming(&mut subject, &mut report)?;
        costs::measure(&mut subject, arguments.rounds, &mut report)?;
        load::going(&mut subject, &mut report)?;
    }
    if wanted(Part::Flood) {
        flood::measure(&object, &mut report)?;
    }
    if wanted(Part::Syns) {
        syns::measure(&object, &mut report)?;
    }
    report.print();
    if let Some(file) = &arguments.json {
        report.write(file)?;
    }
    Ok(report)
}
