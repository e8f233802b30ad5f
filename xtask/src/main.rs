//! What a newcomer types: `cargo xtask VERB`.
//!
//! One verb, one file. This file only lists them. It does not build or run anything itself.

mod bench;
mod bench_kernel;
mod ebpf;
mod ebpf_toolchain;
mod executables;
mod rig;
mod run;
mod setup;
mod setup_needs;
mod tally;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, runs and tests the push appliance.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start the whole appliance on this machine, with a live page; Ctrl-C takes it down
    Run(run::Arguments),
    /// Measure the appliance beside a raw loop of sends, or the filter beside xdp-filter, and judge the ratios
    Bench(bench::Arguments),
    /// Run every test there is, and say what was skipped and why
    Test(test::Arguments),
    /// Install what is missing on this machine, and nothing else
    Setup(setup::Arguments),
    /// Compile the kernel's programs to target/bpf: push-appliance.bpf.o, and push-clients.bpf.o for tests
    BuildEbpf(ebpf::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::BuildEbpf(arguments) => ebpf::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
