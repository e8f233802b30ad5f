//! The tables as typed values: rules, limits, ISPs, management prefixes, protected ports, switches and counters, over the pinned
//! maps.
//!
//! The daemon and `pushctl` both work through this, at the same time if need be: a change holds the lock of the pin root, and
//! what packets see of it is one map operation, which the kernel makes atomic. It does not attach anything, and it keeps no
//! copy: what it says is what the kernel has.
//!
//! Layout: `edit` one rule, one limit, one ISP · `transaction` a whole set at once, tried and taken back · `diff` what that changes ·
//! `generations` the two sets · `family`, `table`, `address` the maps of one set, `outers` what they stand in · `management`,
//! `comments`, `counters`, `shaping`, `measurements`, `listener` what stands beside them · `rule`, `limit`, `isp` values to their
//! reader · here: what is in force.

mod address;
mod comments;
mod counters;
mod diff;
mod edit;
mod family;
mod generations;
mod isp;
mod limit;
mod listener;
mod management;
mod measurements;
pub(super) mod outers;
mod pinned;
mod rule;
mod shaping;
mod table;
mod transaction;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::{Deref, DerefMut},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use abi::{
    isps::IspCounter,
    rules::RuleValue,
    settings::{DROP_FRAGMENTS, OBSERVE, ONLY_LISTED_ADDRESSES, PASS_EVERYTHING, Settings},
    verdict::{Counter, Reason, Verdict},
};
use aya::maps::{Array, MapData, PerCpuArray};
use ipnet::IpNet;

pub(super) use self::generations::Contents;
use self::{
    comments::Comments,
    family::Bounds,
    generations::{Generations, RuleSet},
    management::Management,
    pinned::{map_data, open, open_array},
    rule::boot_clock_ns,
};
pub use self::{
    comments::MAX_COMMENT_BYTES,
    counters::SourceUse,
    diff::{Change, Diff},
    isp::{IspCount, IspEntry, IspRate, IspSpec},
    limit::SourceLimits,
    listener::{Drop, Listener},
    measurements::Measurement,
    rule::{Action, Added, Count, Explanation, NewRule, Origin, Rule, RuleCounts},
    shaping::ShapeCount,
    transaction::{Applied, Transaction, WholeSet},
};
use super::{error::KernelError, pin::PinDir, sys::maps};

/// The pinned tables of our layout under one root.
pub struct Tables {
    pins: PinDir,
    settings: Array<MapData, Settings>,
    protected: Array<MapData, u64>,
    addresses: MapData,
    counts: PerCpuArray<MapData, Counter>,
    isp_counts: PerCpuArray<MapData, IspCounter>,
    management_v4: Management<Ipv4Addr>,
    management_v6: Management<Ipv6Addr>,
    generations: Generations,
    comments: Comments,
    guard: Guard,
    opened: Mutex<Opened>,
}

/// The tables that were opened last.
struct Opened {
    generation: u32,
    record: u64,
    bounds: Bounds,
    set: RuleSet,
}

/// Tables of one generation while they are used: by one at a time.
struct InUse<'a>(MutexGuard<'a, Opened>);

impl Deref for InUse<'_> {
    type Target = RuleSet;

    fn deref(&self) -> &RuleSet {
        &self.0.set
    }
}

impl DerefMut for InUse<'_> {
    fn deref_mut(&mut self) -> &mut RuleSet {
        &mut self.0.set
    }
}

impl Opened {
    /// Every table that is made or replaced changes the record.
    fn is(&self, generation: u32, record: u64, bounds: Bounds) -> bool {
        (self.generation, self.record, self.bounds) == (generation, record, bounds)
    }
}

/// Whom a change may not lock out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The address that the operator himself comes from: a change that would deny it is refused.
    pub operator: Option<IpAddr>,
    /// A deny at or inside a management prefix is refused. It would do nothing: management passes before any rule.
    pub management: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self { operator: None, management: true }
    }
}

impl Tables {
    /// Opens the tables pinned under `pin_root`. Refuses those of another layout.
    pub fn open(pin_root: &Path) -> Result<Self, KernelError> {
        let pins = PinDir::new(pin_root);
        if pin_root.is_dir() {
            pins.refuse_other_layouts()?;
        }
        if !pins.is_there() {
            return Err(KernelError::NoPins { path: pin_root.into() });
        }
        Self::open_at(pins)
    }

    pub(super) fn open_at(pins: PinDir) -> Result<Self, KernelError> {
        let settings = open_array(&pins, abi::maps::SETTINGS)?;
        let generations = Generations::open(&pins)?;
        // Of no record: the first to use them opens them again.
        let bounds = Bounds { max_hosts: 0, max_prefixes: 0 };
        let set = generations.set_of(&pins, 0, bounds)?;
        let opened = Mutex::new(Opened { generation: 0, record: u64::MAX, bounds, set });
        Ok(Self {
            settings,
            protected: open_array(&pins, abi::maps::PROTECTED)?,
            addresses: map_data(&pins, abi::maps::ADDRESSES)?,
            counts: open(&pins, abi::maps::COUNTS)?,
            isp_counts: open(&pins, abi::maps::ISP_COUNTS)?,
            management_v4: Management::open(&pins)?,
            management_v6: Management::open(&pins)?,
            generations,
            comments: Comments::open(&pins)?,
            guard: Guard::default(),
            opened,
            pins,
        })
    }

    /// From now on refuses what `guard` says.
    pub fn set_guard(&mut self, guard: Guard) {
        self.guard = guard;
    }

    /// The rule for exactly this prefix.
    pub fn find(&self, prefix: IpNet) -> Result<Rule, KernelError> {
        rule::check_host_bits(prefix)?;
        let found = get(&*self.set()?, prefix)?.ok_or(KernelError::NoRule { prefix })?;
        self.told(prefix, &found)
    }

    /// Every rule, sorted by address and length; expired ones too, until they are swept.
    pub fn list(&self) -> Result<Vec<Rule>, KernelError> {
        let (now_ns, comments) = (boot_clock_ns(), self.comments.all()?);
        let comment = |number: &u32| comments.get(number).cloned().unwrap_or_default();
        let rules = self.set()?.rules()?.into_iter();
        let mut rules: Vec<_> =
            rules.map(|(prefix, value)| Rule::new(prefix, &value, comment(&value.comment), now_ns)).collect();
        rules.sort_unstable_by_key(|rule| rule.prefix);
        Ok(rules)
    }

    /// How many rules there are, by kind.
    pub fn rule_counts(&self) -> Result<RuleCounts, KernelError> {
        let mut counts = RuleCounts::default();
        for (prefix, _) in self.set()?.rules()? {
            counts.add(prefix);
        }
        Ok(counts)
    }

    /// What would become of a sane TCP packet of an open connection from `address` to a protected port, and by which rule.
    pub fn test(&self, address: IpAddr) -> Result<Explanation, KernelError> {
        let settings = self.settings()?;
        let set = self.set()?;
        let management = self.management_of(address)?;
        let rule = self.deciding(&set, address)?;
        let reason = match (&management, &rule) {
            _ if settings.kill_switch == PASS_EVERYTHING => Reason::KillSwitch,
            (Some(_), _) => Reason::Management,
            (None, Some(rule)) if rule.action == Action::Deny => Reason::Denied,
            (None, Some(_)) => Reason::Allowed,
            (None, None) => Reason::NoRule,
        };
        let observed = settings.observe == OBSERVE && reason.verdict() == Verdict::Drop;
        let number = match address {
            IpAddr::V4(address) => set.v4.isp_of(address)?,
            IpAddr::V6(address) => set.v6.isp_of(address)?,
        };
        let isps = self.generations.isps_of(self.generations.in_force()?.generation)?;
        let isp = isps.get(number as usize).and_then(isp::name_of);
        Ok(Explanation { address, reason, observed, rule, management, isp })
    }

    /// What one source may do.
    pub fn limits(&self) -> Result<SourceLimits, KernelError> {
        let limits = self.generations.limits_of(self.generations.in_force()?.generation)?;
        Ok(SourceLimits::from_kernel(&limits))
    }

    /// The ISPs with their rates, by number.
    pub fn isps(&self) -> Result<Vec<IspEntry>, KernelError> {
        let mut counts = std::collections::HashMap::new();
        for (_, number) in self.isp_prefixes()? {
            *counts.entry(number).or_insert(0) += 1;
        }
        let isps = self.generations.isps_of(self.generations.in_force()?.generation)?;
        let prefixes = |number| counts.get(&number).copied().unwrap_or_default();
        Ok((0..).zip(&isps).filter_map(|(number, isp)| IspEntry::from_kernel(number, isp, prefixes(number))).collect())
    }

    /// A number that changes whenever the ISPs in force do, be it by another process or by a trial's end: cheap to ask for.
    pub fn isp_revision(&self) -> Result<u64, KernelError> {
        self.generations.isp_revision()
    }

    /// Every prefix of an ISP with his number, sorted.
    pub fn isp_prefixes(&self) -> Result<Vec<(IpNet, u32)>, KernelError> {
        let mut prefixes = self.set()?.isp_prefixes()?;
        prefixes.sort_unstable();
        Ok(prefixes)
    }

    /// The source prefixes that are never denied.
    pub fn management(&self) -> Result<Vec<IpNet>, KernelError> {
        let v4 = self.management_v4.list()?.into_iter();
        let v6 = self.management_v6.list()?.into_iter();
        let v4 = v4.filter_map(|(address, length)| IpNet::new(address.into(), length).ok());
        Ok(v4.chain(v6.filter_map(|(address, length)| IpNet::new(address.into(), length).ok())).collect())
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

    /// The destination addresses that are guarded, sorted; none listed: all are.
    pub fn protected_addresses(&self) -> Result<Vec<IpAddr>, KernelError> {
        let entries = maps::entries::<abi::rules::V6, u32>(self.addresses.fd());
        let entries = entries.map_err(|error| KernelError::system("list the protected addresses", error))?;
        let mut addresses: Vec<_> =
            entries.into_iter().map(|(address, _)| Ipv6Addr::from(address).to_canonical()).collect();
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// How many hosts and how many prefixes fit in a rule set made from now on, per family.
    pub fn bounds(&self) -> Result<(u32, u32), KernelError> {
        let bounds = self.wanted_bounds()?;
        Ok((bounds.max_hosts, bounds.max_prefixes))
    }

    /// How many fit in the tables in force: those keep the size that they were made with.
    pub(super) fn bounds_in_force(&self) -> Result<(u32, u32), KernelError> {
        let set = self.set()?;
        let (v4, v6) = (set.v4.bounds(), set.v6.bounds());
        Ok((v4.max_hosts.min(v6.max_hosts), v4.max_prefixes.min(v6.max_prefixes)))
    }

    pub(super) fn set_management(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes.iter().map(IpNet::trunc) {
            match prefix.addr() {
                IpAddr::V4(address) => v4.push((address, prefix.prefix_len())),
                IpAddr::V6(address) => v6.push((address, prefix.prefix_len())),
            }
        }
        self.management_v4.set(&v4)?;
        self.management_v6.set(&v6)
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

    /// New ones come before old ones go. That only listed ones are guarded is a switch in the settings.
    pub(super) fn set_protected_addresses(&mut self, wanted: &[IpAddr]) -> Result<(), KernelError> {
        let failed = |error| KernelError::system("write the protected addresses", error);
        for address in wanted {
            maps::update(self.addresses.fd(), &mapped(*address), &1u32).map_err(failed)?;
        }
        let gone: Vec<_> =
            self.protected_addresses()?.into_iter().filter(|address| !wanted.contains(address)).collect();
        let gone: Vec<_> = gone.into_iter().map(mapped).collect();
        maps::delete_all(self.addresses.fd(), &gone).map_err(failed)
    }

    pub(super) fn settings(&self) -> Result<Settings, KernelError> {
        self.settings.get(&0, 0).map_err(|error| KernelError::map("read the settings", error))
    }

    pub(super) fn set_settings(&mut self, settings: Settings) -> Result<(), KernelError> {
        self.settings.set(0, settings, 0).map_err(|error| KernelError::map("write the settings", error))
    }

    /// Whether fragments drop, and whether only listed addresses are guarded.
    pub(super) fn policies(&self) -> Result<(bool, bool), KernelError> {
        let settings = self.settings()?;
        Ok((settings.fragments == DROP_FRAGMENTS, settings.addresses == ONLY_LISTED_ADDRESSES))
    }

    /// The tables in force.
    fn set(&self) -> Result<InUse<'_>, KernelError> {
        self.set_of(self.generations.in_force()?.generation)
    }

    /// The tables of one generation. Those that were opened last are kept open until another process makes others.
    fn set_of(&self, generation: u32) -> Result<InUse<'_>, KernelError> {
        let (record, bounds) = (self.generations.record(generation)?, self.wanted_bounds()?);
        // A panic while somebody used them leaves them as they were.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if !opened.is(generation, record, bounds) {
            let set = self.generations.set_of(&self.pins, generation, bounds)?;
            *opened = Opened { generation, record, bounds, set };
        }
        Ok(InUse(opened))
    }

    fn contents_in_force(&self) -> Result<Contents, KernelError> {
        let generation = self.generations.in_force()?.generation;
        self.generations.contents(&self.pins, generation, self.wanted_bounds()?)
    }

    fn wanted_bounds(&self) -> Result<Bounds, KernelError> {
        let settings = self.settings()?;
        Ok(Bounds { max_hosts: settings.max_hosts, max_prefixes: settings.max_prefixes })
    }

    /// The management prefix that holds `address`.
    fn management_of(&self, address: IpAddr) -> Result<Option<IpNet>, KernelError> {
        let length = match address {
            IpAddr::V4(address) => self.management_v4.of(address)?,
            IpAddr::V6(address) => self.management_v6.of(address)?,
        };
        Ok(length.and_then(|length| IpNet::new(address, length).ok()).map(|prefix| prefix.trunc()))
    }

    /// The rule of `set` that decides about `address` now.
    fn deciding(&self, set: &RuleSet, address: IpAddr) -> Result<Option<Rule>, KernelError> {
        let now_ns = boot_clock_ns();
        let found = match address {
            IpAddr::V4(address) => set.v4.decide(address, now_ns)?,
            IpAddr::V6(address) => set.v6.decide(address, now_ns)?,
        };
        let Some(found) = found else { return Ok(None) };
        let length = u8::try_from(found.prefix_len).unwrap_or(0);
        match IpNet::new(address, length) {
            Ok(prefix) => Ok(Some(self.told(prefix.trunc(), &found)?)),
            // A length that no address has, which we never write.
            Err(_) => Ok(None),
        }
    }

    fn told(&self, prefix: IpNet, value: &RuleValue) -> Result<Rule, KernelError> {
        Ok(Rule::new(prefix, value, self.comments.text_of(value.comment)?, boot_clock_ns()))
    }
}

/// The rule of `set` for exactly `prefix`.
fn get(set: &RuleSet, prefix: IpNet) -> Result<Option<RuleValue>, KernelError> {
    match prefix.addr() {
        IpAddr::V4(address) => set.v4.get(address, prefix.prefix_len()),
        IpAddr::V6(address) => set.v6.get(address, prefix.prefix_len()),
    }
}

fn mapped(address: IpAddr) -> abi::rules::V6 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
