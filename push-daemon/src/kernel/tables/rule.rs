//! What a rule, a counter and a verdict are to their reader: prefixes, words and durations instead of keys and numbers.

use std::{net::IpAddr, time::Duration};

use abi::{
    rules::{ALLOW, BY_OPERATOR, BY_TIER, DENY, RuleValue},
    verdict::{Counter, Reason, Verdict},
};
use ipnet::IpNet;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize, Serializer};

use crate::kernel::error::KernelError;

/// What a rule does with the packets that it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Who made a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A person, by hand or in a file. Applying a file replaces it.
    #[default]
    Operator,
    /// The logic tier, as a ban. Applying a file leaves it.
    Tier,
}

impl Origin {
    pub(super) const fn number(self) -> u32 {
        match self {
            Origin::Operator => BY_OPERATOR,
            Origin::Tier => BY_TIER,
        }
    }

    const fn from_number(number: u32) -> Self {
        if number == BY_TIER { Origin::Tier } else { Origin::Operator }
    }
}

/// A rule to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRule {
    /// The source addresses that it is about.
    pub prefix: IpNet,
    /// What it does with them.
    pub action: Action,
    /// How long it stands; `None` is for ever.
    pub ttl: Option<Duration>,
    /// Why, in the operator's words; at most `MAX_COMMENT_BYTES`.
    pub comment: String,
    /// Who makes it.
    pub origin: Origin,
}

impl NewRule {
    /// A rule of an operator, for ever, without a comment.
    #[must_use]
    pub fn new(prefix: IpNet, action: Action) -> Self {
        Self { prefix, action, ttl: None, comment: String::new(), origin: Origin::Operator }
    }

    /// The same rule for a time; `None` is for ever.
    #[must_use]
    pub fn standing(self, ttl: Option<Duration>) -> Self {
        Self { ttl, ..self }
    }

    /// The same rule with a comment.
    #[must_use]
    pub fn because(self, comment: impl Into<String>) -> Self {
        Self { comment: comment.into(), ..self }
    }

    /// The same rule, made by somebody else.
    #[must_use]
    pub fn by(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// As it stands in a table from `now_ns` on, without counts.
    pub(super) fn to_kernel(&self, comment: u32, now_ns: u64) -> RuleValue {
        let expires_ns = match self.ttl {
            // 0 means never, so a rule that is over at once expires at 1.
            Some(ttl) => now_ns.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX)).max(1),
            None => 0,
        };
        RuleValue {
            action: self.action.number(),
            prefix_len: self.prefix.prefix_len().into(),
            expires_ns,
            hits: 0,
            bytes: 0,
            comment,
            origin: self.origin.number(),
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
    /// Why, in the operator's words.
    pub comment: String,
    /// Who made it.
    pub origin: Origin,
}

impl Rule {
    pub(super) fn new(prefix: IpNet, value: &RuleValue, comment: String, now_ns: u64) -> Self {
        Self {
            prefix,
            comment,
            origin: Origin::from_number(value.origin),
            action: if value.action == DENY { Action::Deny } else { Action::Allow },
            hits: value.hits,
            bytes: value.bytes,
            expires_in: (value.expires_ns != 0).then(|| Duration::from_nanos(value.expires_ns.saturating_sub(now_ns))),
        }
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
    pub(super) fn add(&mut self, prefix: IpNet) {
        let is_host = prefix.prefix_len() == prefix.max_prefix_len();
        *match (prefix, is_host) {
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
    /// Name of the ISP that the address belongs to.
    pub isp: Option<String>,
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
    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
            observed_packets: self.observed_packets.saturating_sub(before.observed_packets),
            observed_bytes: self.observed_bytes.saturating_sub(before.observed_bytes),
            ..*self
        }
    }

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
