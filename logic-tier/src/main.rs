//! Arguments, config, signals, exit code. Everything else is the library's.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use logic_tier::Tier;
use logic_tier::config::Config;
use sd_notify::NotifyState;
use settings::Source;
use tokio::signal::unix::{SignalKind, signal};
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::EnvFilter;

/// Lines of the log that may wait to be written; then lines are dropped. A reader that is slow, or gone, stops nobody.
const WAITING_LINES: usize = 4_096;

/// The logic tier of the push appliance: publisher API, bus, job, sessions, admission, nodes, trunk.
///
/// Without a config it serves the API on 127.0.0.1:3111 and the trunk on 127.0.0.1:3119.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example: logic-tier --config /etc/push-appliance/logic-tier.toml --check\n\
    RUST_LOG sets what is logged, such as RUST_LOG=logic_tier=debug."
)]
struct Arguments {
    /// TOML file; every key has a default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say whether the config can be used, and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    // When the guard is dropped, at the end, lines that wait are written.
    let (lines, _guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).thread_name("log").finish(std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(lines).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("logic-tier: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = match &arguments.config {
        Some(path) => Config::load(path)?,
        None => Config::parse(&Source::new("(defaults)", ""))?,
    };
    if arguments.check {
        println!("logic-tier: the config can be used");
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    // Before anything runs, so that no signal meets the default action.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tier = Tier::start(config).await?;
    println!(
        "logic-tier: HTTP on {}, trunk on {}, bus in {}",
        tier.http_address(),
        tier.trunk_address(),
        tier.bus_directory().display()
    );
    tell_manager(&[NotifyState::Ready]);
    let mut failure = tier.failure();
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failed = failure.wait_for(Option::is_some) => match failed {
            Ok(reason) => Err(reason.clone().unwrap_or_default().into()),
            Err(_) => Ok(()),
        },
        never = feed_watchdog(&tier) => match never {},
    };
    tell_manager(&[NotifyState::Stopping]);
    tier.stop().await;
    outcome
}

/// Tells the service manager that the tier lives, for as long as the writer of its bus does.
async fn feed_watchdog(tier: &Tier) -> std::convert::Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut tick = tokio::time::interval((limit / 3).max(Duration::from_millis(10)));
    loop {
        tick.tick().await;
        if tier.bus().writer_seen().elapsed() < limit {
            tell_manager(&[NotifyState::Watchdog]);
        }
    }
}

fn tell_manager(state: &[NotifyState<'_>]) {
    // Without a manager there is nobody to tell.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
