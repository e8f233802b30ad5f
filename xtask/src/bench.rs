//! `cargo xtask bench`: what the appliance costs beside a raw loop of sends, both built with optimisation, on loopback.
//!
//! It runs `perf-tests signoff` with the profiles `bench` and, where root allows, `bench-xdp`, once for each of the edge's two
//! send paths, and shows the reports in one table (`perf-tests table`), whose limits decide the exit code. Clients and daemons
//! share this machine's CPUs, so what means something are the ratios.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{build, lock};
use crate::setup::{self, Purpose};
use crate::{bench_kernel, ebpf, workspace};

/// Words of the edge's setting `shard.send`, in the order of the table's rows.
const SEND_PATHS: [&str; 2] = ["plain", "ring"];

/// Clients that are sockets, and clients made of XDP.
const PROFILES: [&str; 2] = ["bench", "bench-xdp"];

/// With this a verb of `perf-tests` says that it did what it was asked, and that a limit does not hold.
const DOES_NOT_HOLD: i32 = 1;

/// Options of `bench`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --repeats 1\n  cargo xtask bench --kernel\n\n\
                        Exit code 0: every limit holds, and no message was lost, doubled or out of order."
)]
pub(crate) struct Arguments {
    /// Repeats of which the medians are shown, instead of the profile's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    repeats: Option<u64>,
    /// The filter beside Debian's xdp-filter instead, and under a load of rules and a flood; needs root
    #[arg(long)]
    kernel: bool,
    /// Write what `--kernel` measures to this file as well
    #[arg(long, value_name = "FILE", requires = "kernel")]
    json: Option<PathBuf>,
}

/// Builds, measures by both paths with both kinds of clients, and prints the table.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    if arguments.kernel {
        return bench_kernel::run(arguments.repeats, arguments.json.as_deref());
    }
    let with_kernel = setup::is_root();
    setup::ensure(if with_kernel { Purpose::Run } else { Purpose::Build })?;
    if with_kernel {
        ebpf::make()?;
    }
    let binaries = build(true)?;
    let directory = workspace::target().join("run/bench");
    fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let _lock = lock(&directory)?;
    let perf_tests = binaries.join("perf-tests");
    let mut table = Command::new(&perf_tests);
    table.arg("table");
    for profile in PROFILES {
        if profile == "bench-xdp" && !with_kernel {
            println!("\n== left out: clients made of XDP, which need root");
            continue;
        }
        for path in SEND_PATHS {
            println!("\n== {profile}, shard.send = \"{path}\"");
            let report = directory.join(format!("{profile}-{path}.json"));
            measure(&perf_tests, profile, path, &report, arguments)?;
            table.arg(report);
        }
    }
    println!();
    if holds(&mut table)? {
        return Ok(());
    }
    Err(format!("not every limit holds; the reports and their pages are in {}", directory.display()))
}

/// Leaves a report, whether or not its limits hold.
fn measure(perf_tests: &Path, profile: &str, path: &str, report: &Path, arguments: &Arguments) -> Result<(), String> {
    let mut command = Command::new(perf_tests);
    let profile = format!("perf-tests/profiles/{profile}.toml");
    command.args(["signoff", "--profile", &profile, "--send", path]);
    command.arg("--json").arg(report).arg("--html").arg(report.with_extension("html"));
    if let Some(repeats) = arguments.repeats {
        command.args(["--repeats", &repeats.to_string()]);
    }
    // The table judges, all of them together.
    holds(&mut command).map(|_| ())
}

/// Whether what a verb of `perf-tests` was asked for holds; an error when it could not be tried.
fn holds(command: &mut Command) -> Result<bool, String> {
    let status = command.current_dir(workspace::root()).status();
    let status = status.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(DOES_NOT_HOLD) => Ok(false),
        _ => Err(format!("{command:?} failed: {status}")),
    }
}
