//! `perf-tests`: load on the appliance from outside, and what came of it.
//!
//! Each verb is one file under `verbs`; the work is done by the library. Exit code 0: what was asked for holds; 1: it
//! does not; 2: it could not be tried.

mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load generators for the push appliance.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Example:\n  perf-tests clients --clients 10000 --rooms 10 --messages 1000 --publish-rate 50"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Many socket clients, each message numbered: completeness, order and delay
    Clients(Box<verbs::clients::Arguments>),
    /// The raw loop that a daemon is judged by: CPU, delay and peak of `send` and io_uring alone
    Floor(verbs::floor::Arguments),
    /// A profile walked through, judged against its budget, and reported: may this host be signed off?
    Signoff(verbs::signoff::Arguments),
    /// What moved between two sign-offs, and whether by more than the noise
    Compare(verbs::compare::Arguments),
    /// Sign-offs beside their floors, one for each send path, with ratios and limits
    Table(verbs::table::Arguments),
    /// The server of `floor`, which starts it by itself
    #[command(hide = true)]
    FloorServer,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Clients(arguments) => verbs::clients::run(&arguments),
        Verb::Floor(arguments) => verbs::floor::run(&arguments),
        Verb::Signoff(arguments) => verbs::signoff::run(&arguments),
        Verb::Compare(arguments) => verbs::compare::run(&arguments),
        Verb::Table(arguments) => verbs::table::run(&arguments),
        Verb::FloorServer => perf_tests::floor::server::run().map(|()| true).map_err(Into::into),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("perf-tests: {error}");
            ExitCode::from(2)
        }
    }
}
