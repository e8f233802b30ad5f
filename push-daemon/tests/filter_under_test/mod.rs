//! The real program, loaded and pinned, fed one frame at a time by `BPF_PROG_TEST_RUN`.
//!
//! It is attached to the loopback of a namespace of its own, where nothing else sends to it.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::time::Duration;

use abi::verdict::{Reason, Verdict};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use ipnet::IpNet;
use push_daemon::kernel::{Action, KernelConfig, KernelPlane, Mode, NewRule, Tables};

use crate::netns::{Bpffs, Namespace, config, object};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

pub(crate) struct FilterUnderTest {
    // The fields drop in this order: the program before its file system.
    program: Xdp,
    plane: KernelPlane,
    _namespace: Namespace,
    bpffs: Bpffs,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) observed: bool,
    pub(crate) bytes: u64,
}

impl FilterUnderTest {
    /// `None` after saying why not.
    pub(crate) fn bring_up(management: &[&str]) -> Option<Self> {
        Self::bring_up_with(|config| config.management = management.iter().map(|text| text.parse().unwrap()).collect())
    }

    pub(crate) fn bring_up_observing() -> Option<Self> {
        Self::bring_up_with(|config| config.observe = true)
    }

    pub(crate) fn bring_up_with(change: impl FnOnce(&mut KernelConfig)) -> Option<Self> {
        let object = object()?;
        let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
        let mut config = config(&object, &bpffs, "lo", Mode::Generic);
        config.protected_ports.push(65535);
        change(&mut config);
        let plane = namespace.run(|| KernelPlane::bring_up(&config)).unwrap();
        let program = Xdp::from_pin(plane.pin_dir().join(abi::maps::FILTER), XdpAttachType::Interface).unwrap();
        Some(Self { program, plane, _namespace: namespace, bpffs })
    }

    pub(crate) fn pin_dir(&self) -> &std::path::Path {
        self.plane.pin_dir()
    }

    pub(crate) fn pin_root(&self) -> std::path::PathBuf {
        self.bpffs.pin_root()
    }

    pub(crate) fn tables(&mut self) -> &mut Tables {
        self.plane.tables_mut()
    }

    /// Replaces all rules. A rule reads `[expired|for an hour] deny|allow PREFIX`.
    pub(crate) fn set_rules(&mut self, rules: &[&str]) {
        self.clear();
        for rule in rules {
            let (ttl, rule) = match (rule.strip_prefix("expired "), rule.strip_prefix("for an hour ")) {
                (Some(rule), _) => (Some(Duration::ZERO), rule),
                (_, Some(rule)) => (Some(Duration::from_secs(3600)), rule),
                _ => (None, *rule),
            };
            let (action, prefix) = match rule.split_once(' ').unwrap() {
                ("deny", prefix) => (Action::Deny, prefix),
                ("allow", prefix) => (Action::Allow, prefix),
                (other, _) => panic!("no action is called {other}"),
            };
            let prefix = prefix.parse::<IpNet>().unwrap_or_else(|_| prefix.parse::<std::net::IpAddr>().unwrap().into());
            self.tables().add(&NewRule::new(prefix, action).standing(ttl)).unwrap();
        }
    }

    pub(crate) fn clear(&mut self) {
        for rule in self.tables().list().unwrap() {
            self.tables().remove(rule.prefix).unwrap();
        }
    }

    /// Runs the program on `frame` many times.
    pub(crate) fn repeat(&mut self, frame: &[u8], times: u32) {
        let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::new() };
        self.program.test_run(options).unwrap();
    }

    /// Runs the program on `frame`. The reason is the one counter that moved, and it moved by one packet.
    pub(crate) fn judge(&mut self, frame: &[u8]) -> Judged {
        let before = self.tables().counters().unwrap();
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        let action = self.program.test_run(options).unwrap().return_value;
        let after = self.tables().counters().unwrap();
        let mut moved = Vec::new();
        for (before, after) in before.iter().zip(&after) {
            let done = (after.packets - before.packets, after.bytes - before.bytes);
            let seen = (after.observed_packets - before.observed_packets, after.observed_bytes - before.observed_bytes);
            for ((packets, bytes), observed) in [(done, false), (seen, true)] {
                if packets != 0 {
                    assert_eq!(packets, 1, "{} moved by more than one packet", after.reason.name());
                    moved.push((after.reason, bytes, observed));
                }
            }
        }
        let [(reason, bytes, observed)] = moved[..] else { panic!("not one counter moved, but {moved:?}") };
        let verdict = match action {
            XDP_DROP => Verdict::Drop,
            XDP_PASS => Verdict::Pass,
            other => panic!("the program answered {other}"),
        };
        Judged { verdict, reason, observed, bytes }
    }
}
