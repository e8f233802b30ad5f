//! The network engineer's command: rules, status and counters of the filter, straight on the pinned tables.
//!
//! The daemon need not run. Exit codes: 0 done, 1 it failed, 2 it was not understood. With `--json` the answer is one JSON value on
//! standard output; an error is then `{"error": ...}` on standard error.
//! It does not keep state, and it never leaves half a change: what packets see of one is a single map operation.
//!
//! Layout: `arguments` what can be typed · `filter`, `limit`, `isp` the tables · `transaction` all of them at once · `report` status and
//! counters · `top`, `events` the same, live · `attachment` on and off the interface · `lockout` whom not to lock out · `shell`
//! completions and manual · `text` how things are printed.

mod arguments;
mod attachment;
mod events;
mod filter;
mod isp;
mod limit;
mod lockout;
mod report;
mod shell;
mod text;
mod top;
mod transaction;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use serde::Serialize;

use self::arguments::{Arguments, Verb};
use crate::kernel::{KernelError, file::FileError};

/// Parses the command line, does what it says, prints the answer.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    match answer(arguments).and_then(|answer| answer.print(json)) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has what he wanted (`pushctl filter list | head`).
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) if json => {
            eprintln!("{}", serde_json::json!({ "error": error.to_string() }));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("pushctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(arguments: Arguments) -> Result<Answer, Failure> {
    let (pin_root, json) = (arguments.pin_root, arguments.json);
    match arguments.verb {
        Verb::Filter { verb } => filter::run(verb, &pin_root),
        Verb::Limit { verb } => limit::run(verb, &pin_root),
        Verb::Isp { verb } => isp::run(verb, &pin_root),
        Verb::Apply { file, how } => transaction::apply(&file, &how, &pin_root),
        Verb::Confirm => transaction::confirm(&pin_root),
        Verb::Rollback => transaction::rollback(&pin_root),
        Verb::Diff { file } => transaction::diff(&file, &pin_root),
        Verb::Export => transaction::export(&pin_root),
        Verb::Status => report::status(&pin_root),
        Verb::Stats { watch: false } => report::stats(&pin_root),
        Verb::Stats { watch: true } => report::watch(json, &pin_root),
        Verb::Top => top::run(&pin_root),
        Verb::Events { count, time } => events::run(count, time, json, &pin_root),
        Verb::Off { dry_run } => report::switch(true, dry_run, &pin_root),
        Verb::On { dry_run } => report::switch(false, dry_run, &pin_root),
        Verb::Attach(arguments) => attachment::attach(arguments, pin_root),
        Verb::Detach { dry_run } => attachment::detach(&pin_root, dry_run),
        Verb::Completions { shell } => shell::completions(shell),
        Verb::Man { directory } => shell::man(&directory),
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot write the tables as TOML: {0}")]
    Toml(#[from] toml::ser::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot write the manual pages to {}: {source}", directory.display())]
    Manual { directory: std::path::PathBuf, source: io::Error },
    #[error("this view takes a terminal (`pushctl stats --watch` does not)")]
    NoTerminal,
}

/// An answer for a person and for a program.
struct Answer {
    text: String,
    json: serde_json::Value,
}

impl Answer {
    fn new(text: String, json: impl Serialize) -> Result<Self, Failure> {
        Ok(Self { text, json: serde_json::to_value(json)? })
    }

    /// For a verb that prints as it goes.
    fn already_given() -> Self {
        Self { text: String::new(), json: serde_json::Value::Null }
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if json && !self.json.is_null() {
            writeln!(out, "{}", self.json)?
        } else {
            out.write_all(self.text.as_bytes())?
        }
        Ok(out.flush()?)
    }
}
