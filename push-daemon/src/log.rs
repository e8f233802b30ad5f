//! The daemon's log: lines on standard error that nobody has to read.
//!
//! A pipe whose reader is slow would stop whoever writes to it, a shard as well, and one whose reader is gone would fail
//! it. So lines cross to a thread of their own through a bounded queue: a line that finds no room, or cannot be
//! written, is dropped, and what found no room is counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written.
const WAITING_LINES: usize = 4_096;

/// Counts the lines that found no room.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Starts the log of this process, panics included; `RUST_LOG` says what stands in it. When the guard is dropped, lines
/// that wait are written, unless that takes longer than about a second.
///
/// # Panics
/// The process has a log already.
pub fn start() -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (lines, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).thread_name("log").finish(io::stderr());
    // Only the first is kept, and there is no other.
    let _first = DROPPED.set(lines.error_counter());
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(lines).init();
    panic::set_hook(Box::new(say));
    guard
}

/// Lines that were dropped because those before them were not written in time.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// What a panic says. The standard library's hook writes to the pipe itself, and would wait for its reader.
fn say(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!(thread, "{panic}\n{backtrace}"),
        _ => tracing::error!(thread, "{panic} (RUST_BACKTRACE=1 shows where it came from)"),
    }
}
