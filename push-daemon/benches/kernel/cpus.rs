//! Which thread runs where. Everything is measured on two CPUs: one that works, and one that disturbs it.

use std::{fs, process::Command};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};

/// Where packets are judged, and where client and server run.
pub(crate) const WORKER: usize = 0;
/// Where rules are written, and the flood is sent from.
pub(crate) const OTHER: usize = 1;

/// Keeps this thread, or the process or kernel thread that is named, on `cpu`.
pub(crate) fn pin(thread: Option<Pid>, cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(thread, &set).map_err(|error| format!("cannot keep a thread on CPU {cpu}: {error}"))
}

/// Has `thread` run whenever it can, before everything ordinary, as an interrupt's work does.
pub(crate) fn put_first(thread: Pid) -> Result<(), String> {
    let mut command = Command::new("chrt");
    command.args(["--fifo", "--pid", "1", &thread.as_raw_nonzero().to_string()]);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} failed: {status}")),
        Err(error) => Err(format!("cannot run chrt (package util-linux): {error}")),
    }
}

/// Hundredths of a second in which the machine that this one is a guest of had `cpu` do something else.
pub(crate) fn stolen(cpu: usize) -> u64 {
    const COLUMN: usize = 8;
    let name = format!("cpu{cpu} ");
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find(|line| line.starts_with(&name)).unwrap_or_default();
    line.split_whitespace().nth(COLUMN).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}
