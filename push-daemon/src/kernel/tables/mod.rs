//! The tables as typed values: rules, management prefixes, protected ports, switches and counters, over the pinned maps.
//!
//! The daemon and `pushctl` both work through this, at the same time if need be: each change is one map operation, which the
//! kernel makes atomic. It does not attach anything, and it keeps no copy: what it says is what the kernel has.
//!
//! Layout: `family` the maps of one address family · `rule` what a rule is to its reader · here: both families together.

mod family;
mod rule;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use abi::{
    rules::RuleValue,
    settings::{PASS_EVERYTHING, Settings},
    verdict::{Counter, REASONS, Reason, Verdict},
};
use aya::maps::{Array, MapData, PerCpuArray};
use ipnet::IpNet;

pub use self::rule::{Action, Added, Count, Explanation, Rule, RuleCounts};
use self::{
    family::{Family, open_map, typed},
    rule::{boot_clock_ns, check_host_bits},
};
use super::{error::KernelError, pin::PinDir};

/// The pinned tables of our layout under one root.
pub struct Tables {
    settings: Array<MapData, Settings>,
    protected: Array<MapData, u64>,
    counts: PerCpuArray<MapData, Counter>,
    v4: Family<Ipv4Addr>,
    v6: Family<Ipv6Addr>,
}

/// Calls a method of the family that an address belongs to.
macro_rules! by_family {
    ($tables:ident, $address:expr, |$family:ident, $of:ident| $body:expr) => {
        match $address {
            IpAddr::V4($of) => {
                let $family = &$tables.v4;
                $body
            }
            IpAddr::V6($of) => {
                let $family = &$tables.v6;
                $body
            }
        }
    };
    (mut $tables:ident, $address:expr, |$family:ident, $of:ident| $body:expr) => {
        match $address {
            IpAddr::V4($of) => {
                let $family = &mut $tables.v4;
                $body
            }
            IpAddr::V6($of) => {
                let $family = &mut $tables.v6;
                $body
            }
        }
    };
}

impl Tables {
    /// Opens the tables pinned under `pin_root`. Refuses those of another layout.
    pub fn open(pin_root: &Path) -> Result<Self, KernelError> {
        let pins = PinDir::new(pin_root);
        if !pins.is_there() {
            if pin_root.is_dir() {
                pins.refuse_other_layouts()?;
            }
            return Err(KernelError::NoPins { path: pin_root.into() });
        }
        Ok(Self {
            settings: typed(&pins, abi::maps::SETTINGS, open_map(&pins, abi::maps::SETTINGS)?.0)?,
            protected: typed(&pins, abi::maps::PROTECTED, open_map(&pins, abi::maps::PROTECTED)?.0)?,
            counts: typed(&pins, abi::maps::COUNTS, open_map(&pins, abi::maps::COUNTS)?.0)?,
            v4: Family::open(&pins)?,
            v6: Family::open(&pins)?,
        })
    }

    /// Writes a rule; one for the same prefix is replaced in place and keeps its counts. `ttl` of `None` is for ever.
    ///
    /// A deny at or inside a management prefix is refused. A deny around one is allowed, and says what it spares.
    pub fn add(&mut self, prefix: IpNet, action: Action, ttl: Option<Duration>) -> Result<Added, KernelError> {
        let added = self.check(prefix, action)?;
        let expires_ns = match ttl {
            // 0 means never, so a rule that is over at once expires at 1.
            Some(ttl) => boot_clock_ns().saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX)).max(1),
            None => 0,
        };
        by_family!(mut self, prefix.addr(), |family, address| {
            let before = family.get(address, prefix.prefix_len())?.unwrap_or_default();
            let rule = RuleValue {
                action: action.number(),
                prefix_len: prefix.prefix_len().into(),
                expires_ns,
                hits: before.hits,
                bytes: before.bytes,
            };
            family.put(address, rule)?;
        });
        Ok(added)
    }

    /// What `add` would answer, without writing.
    pub fn check(&self, prefix: IpNet, action: Action) -> Result<Added, KernelError> {
        check_host_bits(prefix)?;
        let management = self.management()?;
        if action == Action::Deny
            && let Some(management) = management.iter().find(|management| management.contains(&prefix))
        {
            return Err(KernelError::ManagementPrefix { prefix, management: *management });
        }
        let before = by_family!(self, prefix.addr(), |family, address| family.get(address, prefix.prefix_len())?);
        let spared = match action {
            Action::Deny => management.into_iter().filter(|management| prefix.contains(management)).collect(),
            Action::Allow => Vec::new(),
        };
        Ok(Added { replaced: before.map(|before| Rule::new(prefix, &before, boot_clock_ns())), spared })
    }

    /// Removes the rule for exactly this prefix and hands it back.
    pub fn remove(&mut self, prefix: IpNet) -> Result<Rule, KernelError> {
        let rule = self.find(prefix)?;
        by_family!(mut self, prefix.addr(), |family, address| {
            if !family.remove(address, prefix.prefix_len())? {
                return Err(KernelError::NoRule { prefix });
            }
        });
        Ok(rule)
    }

    /// The rule for exactly this prefix.
    pub fn find(&self, prefix: IpNet) -> Result<Rule, KernelError> {
        check_host_bits(prefix)?;
        let found = by_family!(self, prefix.addr(), |family, address| family.get(address, prefix.prefix_len())?);
        found.map(|found| Rule::new(prefix, &found, boot_clock_ns())).ok_or(KernelError::NoRule { prefix })
    }

    /// Every rule, sorted by address and length; expired ones too, until they are swept.
    pub fn list(&self) -> Result<Vec<Rule>, KernelError> {
        let now_ns = boot_clock_ns();
        let v4 = self.v4.rules()?.into_iter().filter_map(|(address, rule)| Rule::at(address.into(), &rule, now_ns));
        let v6 = self.v6.rules()?.into_iter().filter_map(|(address, rule)| Rule::at(address.into(), &rule, now_ns));
        let mut rules: Vec<_> = v4.chain(v6).collect();
        rules.sort_unstable_by_key(|rule| rule.prefix);
        Ok(rules)
    }

    /// How many rules there are, by kind.
    pub fn rule_counts(&self) -> Result<RuleCounts, KernelError> {
        let mut counts = RuleCounts::default();
        for rule in self.list()? {
            counts.add(&rule);
        }
        Ok(counts)
    }

    /// Removes the rules whose time is over, and says how many. The kernel ignores them either way; this frees their places.
    pub fn sweep_expired(&mut self) -> Result<usize, KernelError> {
        let mut swept = 0;
        for rule in self.list()?.into_iter().filter(Rule::is_expired) {
            swept += usize::from(by_family!(mut self, rule.prefix.addr(), |family, address| {
                family.remove(address, rule.prefix.prefix_len())?
            }));
        }
        Ok(swept)
    }

    /// What would become of a sane TCP packet from `address` to a protected port, and by which rule.
    pub fn test(&self, address: IpAddr) -> Result<Explanation, KernelError> {
        let settings = self.settings()?;
        let now_ns = boot_clock_ns();
        let (management, rule) =
            by_family!(self, address, |family, of| (family.management_of(of)?, family.decide(of, now_ns)?));
        let network = |length: u8| IpNet::new(address, length).ok().map(|prefix| prefix.trunc());
        let management = management.and_then(network);
        let rule = rule.and_then(|rule| Rule::at(address, &rule, now_ns));
        let reason = match (&management, &rule) {
            _ if settings.kill_switch == PASS_EVERYTHING => Reason::KillSwitch,
            (Some(_), _) => Reason::Management,
            (None, Some(rule)) if rule.action == Action::Deny => Reason::Denied,
            (None, Some(_)) => Reason::Allowed,
            (None, None) => Reason::NoRule,
        };
        let observed = settings.observe == abi::settings::OBSERVE && reason.verdict() == Verdict::Drop;
        Ok(Explanation { address, reason, observed, rule, management })
    }

    /// Packets and bytes by reason, over all CPUs.
    pub fn counters(&self) -> Result<Vec<Count>, KernelError> {
        let total = |place: u32| -> Result<Counter, KernelError> {
            let cpus = self.counts.get(&place, 0).map_err(|error| KernelError::map("read the counters", error))?;
            Ok(cpus.iter().fold(Counter::default(), |sum, cpu| Counter {
                packets: sum.packets.saturating_add(cpu.packets),
                bytes: sum.bytes.saturating_add(cpu.bytes),
            }))
        };
        Reason::ALL
            .iter()
            .map(|reason| Ok(Count::new(*reason, total(*reason as u32)?, total(*reason as u32 + REASONS)?)))
            .collect()
    }

    /// The source prefixes that are never denied.
    pub fn management(&self) -> Result<Vec<IpNet>, KernelError> {
        let v4 =
            self.v4.management()?.into_iter().filter_map(|(address, length)| IpNet::new(address.into(), length).ok());
        let v6 =
            self.v6.management()?.into_iter().filter_map(|(address, length)| IpNet::new(address.into(), length).ok());
        Ok(v4.chain(v6).collect())
    }

    /// The TCP ports that are guarded.
    pub fn protected_ports(&self) -> Result<Vec<u16>, KernelError> {
        let failed = |error| KernelError::map("read the protected ports", error);
        let words = self.protected.iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
        Ok((0..=u16::MAX)
            .filter(|port| {
                let (word, bit) = abi::maps::port_bit(*port);
                words.get(word as usize).is_some_and(|ports| ports & bit != 0)
            })
            .collect())
    }

    /// How many hosts and how many prefixes fit, per family. Set when the tables were made.
    #[must_use]
    pub fn bounds(&self) -> (u32, u32) {
        self.v4.bounds()
    }

    /// Switches the filter off (everything passes) or on again.
    pub fn set_kill_switch(&mut self, on: bool) -> Result<(), KernelError> {
        let settings = self.settings()?;
        self.set_settings(Settings { kill_switch: if on { PASS_EVERYTHING } else { 0 }, ..settings })
    }

    pub(super) fn set_management(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes.iter().map(IpNet::trunc) {
            match prefix.addr() {
                IpAddr::V4(address) => v4.push((address, prefix.prefix_len())),
                IpAddr::V6(address) => v6.push((address, prefix.prefix_len())),
            }
        }
        self.v4.set_management(&v4)?;
        self.v6.set_management(&v6)
    }

    pub(super) fn set_protected_ports(&mut self, ports: &[u16]) -> Result<(), KernelError> {
        let mut words = vec![0u64; abi::maps::PORT_WORDS as usize];
        for port in ports {
            let (word, bit) = abi::maps::port_bit(*port);
            words[word as usize] |= bit;
        }
        for (place, word) in (0..).zip(words) {
            self.protected.set(place, word, 0).map_err(|error| KernelError::map("write the protected ports", error))?;
        }
        Ok(())
    }

    pub(super) fn settings(&self) -> Result<Settings, KernelError> {
        self.settings.get(&0, 0).map_err(|error| KernelError::map("read the settings", error))
    }

    pub(super) fn set_settings(&mut self, settings: Settings) -> Result<(), KernelError> {
        self.settings.set(0, settings, 0).map_err(|error| KernelError::map("write the settings", error))
    }
}
