//! The edge's binary: arguments, settings, log, exit code.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use push_daemon::config::Config;
use push_daemon::{log, process};

/// The edge of the push appliance: holds client connections and pushes to them.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  push-daemon\n  push-daemon --config /etc/push-appliance/push-daemon.toml\n  push-daemon --config push-daemon.toml --check"
)]
struct Arguments {
    /// Settings in TOML; without it the edge meets a logic tier on loopback, without a kernel plane.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the settings, say so, and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            // Nobody may be there to read it, which is no reason to panic.
            let _read = writeln!(std::io::stderr(), "push-daemon: {error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.check {
        println!("push-daemon: the settings are valid");
        return ExitCode::SUCCESS;
    }
    let _written_at_the_end = log::start();
    match process::serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
