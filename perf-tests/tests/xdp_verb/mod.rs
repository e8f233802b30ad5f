//! `perf-tests clients --engine xdp` as a command, for tests of what it does.
#![allow(dead_code)] // Each test binary uses its own part of it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::report::Report;

use crate::missing_part::{Kind, or_skip};

const SOON: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Whether such clients can be had here, after saying why not.
pub(crate) fn is_there() -> bool {
    let loaded = match Program::load(1, 1) {
        Err(error @ (XdpError::NotRoot | XdpError::NoObject { .. })) => Err(error.to_string()),
        loaded => Ok(loaded.unwrap()),
    };
    or_skip(Kind::Kernel, "perf-tests clients --engine xdp", loaded).is_some()
}

pub(crate) fn command(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf-tests"));
    command.args(["clients", "--engine", "xdp"]).args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn report(output: &Output) -> Report {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Starts a run, and waits until its clients are in and listen.
pub(crate) fn start_listening(arguments: &str) -> Child {
    let mut child = command(arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("listening")), "{arguments}: it never got that far");
    // Whoever writes to nobody gets an error, and display is no reason to end.
    thread::spawn(move || lines.for_each(drop));
    child
}
