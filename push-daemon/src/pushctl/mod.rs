//! The network engineer's command: rules, status and counters of the filter, straight on the pinned tables.
//!
//! The daemon need not run. Exit codes: 0 done, 1 it failed, 2 it was not understood. With `--json` the answer is one JSON value on
//! standard output; an error is then `{"error": ...}` on standard error.
//! It does not keep state, and it changes nothing that one map operation cannot change.
//!
//! Layout: `arguments` what can be typed · `filter` the rules · `report` status and counters · `attachment` on and off the interface ·
//! `text` how things are printed.

mod arguments;
mod attachment;
mod filter;
mod report;
mod text;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use serde::Serialize;

use self::arguments::{Arguments, Verb};
use crate::kernel::KernelError;

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
    let pin_root = arguments.pin_root;
    match arguments.verb {
        Verb::Filter { verb } => filter::run(verb, &pin_root),
        Verb::Status => report::status(&pin_root),
        Verb::Stats => report::stats(&pin_root),
        Verb::Attach(arguments) => attachment::attach(arguments, pin_root),
        Verb::Detach { dry_run } => attachment::detach(&pin_root, dry_run),
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

    fn print(&self, json: bool) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", self.json)?
        } else {
            out.write_all(self.text.as_bytes())?
        }
        Ok(out.flush()?)
    }
}
