//! `perf-tests clients --engine xdp` as a command, for tests of what it does.
#![allow(dead_code)] // Each test binary uses its own part of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::Program;
use perf_tests::load::report::Report;
use rustix::process::Pid;

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
    command_with("xdp", arguments)
}

pub(crate) fn command_with(engine: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf-tests"));
    command.args(["clients", "--engine", engine]).args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn report(output: &Output) -> Report {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Starts a run, and waits until its clients are in and listen.
pub(crate) fn start_listening(arguments: &str) -> Child {
    start_until(command(arguments), "listening")
}

/// Starts a run, and waits until it is as far as its display calls `step`.
pub(crate) fn start_until(mut command: Command, step: &str) -> Child {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let is_there = lines.any(|line| line.starts_with(step));
    assert!(is_there, "{command:?}: it never got as far as {step}");
    // Whoever writes to nobody gets an error, and display is no reason to end.
    thread::spawn(move || lines.for_each(drop));
    child
}

/// The processes that a process has started, by name.
pub(crate) fn children_of(pid: u32, name: &str) -> Vec<Pid> {
    let of_thread = |thread: PathBuf| std::fs::read_to_string(thread.join("children")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children: String = threads.map(|thread| of_thread(thread.path())).collect();
    let is_named =
        |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    children.split_whitespace().filter(is_named).filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Network namespaces that a process runs in or holds, by what the kernel calls them.
pub(crate) fn namespaces(of: &str) -> BTreeSet<String> {
    let name = |link: PathBuf| link.to_str().filter(|name| name.starts_with("net:[")).map(str::to_owned);
    let held = std::fs::read_dir(format!("/proc/{of}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    held.chain([format!("/proc/{of}/ns/net").into()]).filter_map(|path| name(std::fs::read_link(path).ok()?)).collect()
}

/// The namespaces that a process has made.
pub(crate) fn own_namespaces(pid: u32) -> BTreeSet<String> {
    namespaces(&pid.to_string()).difference(&namespaces("self")).cloned().collect()
}

/// Whether any process at all runs in one of these namespaces, or holds it.
pub(crate) fn are_held(namespaces: &BTreeSet<String>) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().into_string().ok());
    processes.filter(|name| name.parse::<u32>().is_ok()).any(|name| !self::namespaces(&name).is_disjoint(namespaces))
}
