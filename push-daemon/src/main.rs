//! The edge's binary: arguments, settings, log, signals, exit code.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use push_daemon::appliance::{Appliance, notify};
use push_daemon::config::Config;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("push-daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(arguments.config.as_deref())?;
    if arguments.check {
        println!("push-daemon: the settings are valid");
        return Ok(());
    }
    // For operators only: trunk and shards have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let appliance = Appliance::start(&config).await?;
        notify(NotifyState::Ready);
        let watched = appliance.watch(asked_to_stop(&mut terminate, &mut interrupt)).await;
        notify(NotifyState::Stopping);
        // A second signal cuts the drain short.
        appliance.stop(asked_to_stop(&mut terminate, &mut interrupt)).await;
        Ok(watched?)
    })
}

async fn asked_to_stop(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
