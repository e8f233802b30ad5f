//! What a rule, a counter and a verdict are to their reader: prefixes, words and durations instead of keys and numbers.

use std::{net::IpAddr, time::Duration};

use abi::{
    rules::{ALLOW, DENY, RuleValue},
    verdict::{Counter, Reason, Verdict},
};
use ipnet::IpNet;
use rustix::time::{ClockId, clock_gettime};
use serde::{Serialize, Serializer};

use crate::kernel::error::KernelError;

/// What a rule does with the packets that it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let them through.
    Allow,
    /// Drop them.
    Deny,
}

impl Action {
    /// The word that operators use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
        }
    }

    pub(super) const fn number(self) -> u32 {
        match self {
            Action::Allow => ALLOW,
            Action::Deny => DENY,
        }
    }
}

/// A rule and what it did so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The source addresses that it is about.
    pub prefix: IpNet,
    /// What it does with them.
    pub action: Action,
    /// Packets that it decided.
    pub hits: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// How long it still stands; zero when it has expired, `None` when it never does.
    #[serde(rename = "expires_in_s", serialize_with = "whole_seconds")]
    pub expires_in: Option<Duration>,
}

impl Rule {
    pub(super) fn new(prefix: IpNet, value: &RuleValue, now_ns: u64) -> Self {
        Self {
            prefix,
            action: if value.action == DENY { Action::Deny } else { Action::Allow },
            hits: value.hits,
            bytes: value.bytes,
            expires_in: (value.expires_ns != 0).then(|| Duration::from_nanos(value.expires_ns.saturating_sub(now_ns))),
        }
    }

    /// The rule `value` that holds `address`. `None` for a length that no address has, which we never write.
    pub(super) fn at(address: IpAddr, value: &RuleValue, now_ns: u64) -> Option<Self> {
        let length = u8::try_from(value.prefix_len).ok()?;
        Some(Self::new(IpNet::new(address, length).ok()?.trunc(), value, now_ns))
    }

    /// Its time is over: the kernel ignores it.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.expires_in == Some(Duration::ZERO)
    }
}

/// What adding a rule came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Added {
    /// The rule that stood there before.
    pub replaced: Option<Rule>,
    /// Management prefixes inside the new deny; they still pass.
    pub spared: Vec<IpNet>,
}

/// How many rules there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleCounts {
    /// IPv4 hosts.
    pub hosts_v4: usize,
    /// IPv4 prefixes.
    pub prefixes_v4: usize,
    /// IPv6 hosts.
    pub hosts_v6: usize,
    /// IPv6 prefixes.
    pub prefixes_v6: usize,
}

impl RuleCounts {
    pub(super) fn add(&mut self, rule: &Rule) {
        let is_host = rule.prefix.prefix_len() == rule.prefix.max_prefix_len();
        *match (rule.prefix, is_host) {
            (IpNet::V4(_), true) => &mut self.hosts_v4,
            (IpNet::V4(_), false) => &mut self.prefixes_v4,
            (IpNet::V6(_), true) => &mut self.hosts_v6,
            (IpNet::V6(_), false) => &mut self.prefixes_v6,
        } += 1;
    }
}

/// What would become of a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The source address asked about.
    pub address: IpAddr,
    /// Why.
    #[serde(serialize_with = "reason_name")]
    pub reason: Reason,
    /// It would be dropped, but the filter only observes.
    pub observed: bool,
    /// The rule that decides, or would if management or the kill switch did not.
    pub rule: Option<Rule>,
    /// The management prefix that holds the address.
    pub management: Option<IpNet>,
}

impl Explanation {
    /// What becomes of the packet.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.observed { Verdict::Pass } else { self.reason.verdict() }
    }
}

/// Packets and bytes of one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The reason.
    #[serde(serialize_with = "reason_name")]
    pub reason: Reason,
    /// `drop` or `pass`, when the filter enforces.
    pub verdict: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that would have been dropped, but the filter only observed.
    pub observed_packets: u64,
    /// Bytes of those.
    pub observed_bytes: u64,
}

impl Count {
    pub(super) fn new(reason: Reason, done: Counter, observed: Counter) -> Self {
        Self {
            reason,
            verdict: match reason.verdict() {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
            },
            packets: done.packets,
            bytes: done.bytes,
            observed_packets: observed.packets,
            observed_bytes: observed.bytes,
        }
    }
}

/// The clock that expiry is measured by: it goes on while the machine sleeps, and nobody sets it.
pub(super) fn boot_clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // The clock counts from boot and is never negative.
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// A prefix with bits beyond its length is as often a slip in the length as in the address; we do not guess which.
pub(super) fn check_host_bits(prefix: IpNet) -> Result<(), KernelError> {
    if prefix.trunc() == prefix {
        return Ok(());
    }
    Err(KernelError::HostBits { prefix, network: prefix.trunc(), host: prefix.addr().into() })
}

fn whole_seconds<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs()).serialize(out)
}

fn reason_name<S: Serializer>(reason: &Reason, out: S) -> Result<S::Ok, S::Error> {
    reason.name().serialize(out)
}
