//! What the end-to-end tests of the edge stand on: both real daemons, their figures, and clients on every path.
//!
//! It waits for conditions, each with a deadline, and never for time to pass. Both daemons run with one partition of the
//! bus, so that a push that must not reach somebody is followed by one that must: silence is proven by order.
//!
//! Layout: [`Rig`] the daemons and what they count · `client` one client on any path · `key_tap` which keys the edge makes
#![allow(dead_code, unused_imports)] // Each test binary uses its own part of it.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod client;
mod key_tap;

use std::time::{Duration, Instant};

use perf_tests::probe::daemons::{Daemon, Stack, StackOptions};
use perf_tests::probe::publisher::Publisher;
use serde_json::Value;

pub(crate) use client::{Client, EVERY_PATH, Over, Path, packet};
pub(crate) use key_tap::KeyTap;

/// How long anything may take that has to happen. Long, because nobody waits for it but a test that fails.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How often a condition is looked at while it is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The application's operation that the tests push with.
pub(crate) const PUSH: i32 = 1000;

/// Looks again and again until `look` finds something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} for {what}, in vain");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A tier and an edge, and a publisher.
pub(crate) struct Rig {
    pub(crate) stack: Stack,
    pub(crate) publisher: Publisher,
    admin: Publisher,
}

impl Rig {
    /// With these settings laid over the plain ones.
    pub(crate) fn start(edge_toml: &str, tier_toml: &str) -> Self {
        Self::over(Stack::start_with(&Self::options(edge_toml, tier_toml)).unwrap())
    }

    /// As [`Rig::start`], with somebody who listens to the trunk.
    pub(crate) fn start_tapped() -> (Self, KeyTap) {
        let addresses = Stack::reserve().unwrap();
        let tap = KeyTap::start(addresses.trunk);
        let addresses = perf_tests::probe::daemons::Addresses { trunk_as_dialled: tap.address(), ..addresses };
        (Self::over(Stack::start_on(addresses, &Self::options("", "")).unwrap()), tap)
    }

    fn options(edge_toml: &str, tier_toml: &str) -> StackOptions {
        // The tests' own tables first: a later `[bus]` in the same text would be a second one.
        let logic_tier_toml = format!("bus.partitions = 1\n{tier_toml}");
        StackOptions { push_daemon_toml: edge_toml.to_owned(), logic_tier_toml, ..StackOptions::default() }
    }

    fn over(stack: Stack) -> Self {
        let publisher = stack.publisher();
        let admin = Publisher::new(stack.addresses().admin);
        Self { stack, publisher, admin }
    }

    /// A push to the room `live://ROOM`, which the tier has to take.
    pub(crate) fn push(&self, room: &str, body: &str) {
        let answer = self.publisher.push_room(PUSH, "live", room, body.as_bytes()).unwrap();
        assert!(answer.is_accepted(), "{answer:?}");
    }

    /// What `/stats` says now.
    pub(crate) fn stats(&self) -> Value {
        serde_json::from_str(&self.admin.get("/stats", &[]).unwrap().message).unwrap()
    }

    /// One figure of `/stats`, by JSON pointer; what is not there is 0.
    pub(crate) fn stat(&self, pointer: &str) -> u64 {
        self.stats().pointer(pointer).map_or(0, |value| value.as_u64().unwrap())
    }

    /// Connections closed for `reason`.
    pub(crate) fn closed(&self, reason: &str) -> u64 {
        self.stat(&format!("/closed_by_reason/{reason}"))
    }

    /// Waits until a figure of `/stats` is as it should be.
    pub(crate) fn await_stat(&self, pointer: &str, holds: impl Fn(u64) -> bool) -> u64 {
        eventually(pointer, || Some(self.stat(pointer)).filter(|value| holds(*value)))
    }

    /// Stops the tier's process where it is, and waits until all of its threads stand still.
    pub(crate) fn stop_tier(&mut self) {
        stand_still(self.stack.tier());
    }

    /// The same with the edge's.
    pub(crate) fn stop_edge(&mut self) {
        stand_still(self.stack.edge());
    }

    /// The sum over all label sets of one counter in the edge's `/metrics`.
    pub(crate) fn edge_metric(&self, name: &str) -> u64 {
        metric(&self.admin.get("/metrics", &[]).unwrap().message, name)
    }

    /// The same of the tier, whose publishers may need a key.
    pub(crate) fn tier_metric(&self, name: &str) -> u64 {
        metric(&self.publisher.get("/metrics", &[]).unwrap().message, name)
    }
}

fn stand_still(daemon: &Daemon) {
    daemon.signal(rustix::process::Signal::STOP).unwrap();
    let tasks = format!("/proc/{}/task", daemon.pid().unwrap().as_raw_nonzero());
    eventually("the process to stand still", || {
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T')
        };
        std::fs::read_dir(&tasks).unwrap().all(stopped).then_some(())
    });
}

/// The sum of the samples whose name, or name and labels, begin with `name`.
fn metric(text: &str, name: &str) -> u64 {
    let samples = text.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
