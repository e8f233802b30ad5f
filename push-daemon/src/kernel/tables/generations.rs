//! The two rule sets: which is in force, what the other holds, and how one is built and put in force.
//!
//! The set that is not in force is either the previous one, to go back to, or nothing (`SETS` tells). Building overwrites it
//! place by place, so its record says "nothing" before the first and "whole" after the last: a process that dies in
//! between leaves a set that nobody will go to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use abi::{
    generation::{self, GENERATIONS},
    isps::{Isp, MAX_ISPS},
    limits::{Limits, REMEMBER_V4, REMEMBER_V6},
    rules::RuleValue,
};
use aya::maps::{Array, MapData};
use ipnet::IpNet;

use super::{
    family::{Bounds, Family},
    pinned::{map_data, open_array},
    rule::boot_clock_ns,
};
use crate::kernel::{error::KernelError, pin::PinDir};

/// The arrays of maps that the packet path looks tables up in.
pub(super) struct Outers {
    maps: Vec<(&'static str, MapData)>,
}

impl Outers {
    fn open(pins: &PinDir) -> Result<Self, KernelError> {
        let maps = abi::maps::RULE_SET.iter().map(|name| Ok((*name, map_data(pins, name)?)));
        Ok(Self { maps: maps.collect::<Result<_, KernelError>>()? })
    }

    pub(super) fn of(&self, name: &str) -> Result<BorrowedFd<'_>, KernelError> {
        let found = self.maps.iter().find(|(of, _)| *of == name);
        found
            .map(|(_, map)| map.fd().as_fd())
            .ok_or_else(|| KernelError::system(format!("find the table {name}"), std::io::ErrorKind::NotFound))
    }
}

/// All that a rule set holds, as plain values.
#[derive(Clone, Debug)]
pub(in crate::kernel) struct Contents {
    /// Rules with their prefixes; each value tells the same length as its prefix.
    pub(in crate::kernel) rules: Vec<(IpNet, RuleValue)>,
    /// Prefixes of ISPs.
    pub(in crate::kernel) isp_prefixes: Vec<(IpNet, u32)>,
    /// By number; [`MAX_ISPS`] of them.
    pub(in crate::kernel) isps: Vec<Isp>,
    /// What a source may do.
    pub(in crate::kernel) limits: Limits,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            isp_prefixes: Vec::new(),
            isps: vec![Isp::default(); MAX_ISPS as usize],
            limits: Limits::default(),
        }
    }
}

impl Contents {
    fn longest(&self) -> Longest {
        let rules = self.rules.iter().map(|(prefix, _)| *prefix).filter(|prefix| !is_host(prefix));
        rules.chain(self.isp_prefixes.iter().map(|(prefix, _)| *prefix)).fold(Longest::default(), Longest::with)
    }
}

/// Whether a rule for `prefix` stands in a hash, and not in a trie.
pub(super) fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// The longest prefixes in the tries of a set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Longest {
    v4: u8,
    v6: u8,
}

impl Longest {
    /// With one more.
    pub(super) fn with(self, prefix: IpNet) -> Self {
        match prefix {
            IpNet::V4(prefix) => Self { v4: self.v4.max(prefix.prefix_len()), ..self },
            IpNet::V6(prefix) => Self { v6: self.v6.max(prefix.prefix_len()), ..self },
        }
    }

    /// For which families all addresses of a source get the same answer.
    fn remembered(self, limits: &Limits) -> u32 {
        let v4 = if u16::from(self.v4) <= limits.v4_bits { REMEMBER_V4 } else { 0 };
        let v6 = if u16::from(self.v6) <= limits.v6_bits { REMEMBER_V6 } else { 0 };
        v4 | v6
    }
}

/// The tables of one generation.
pub(super) struct RuleSet {
    pub(super) v4: Family<Ipv4Addr>,
    pub(super) v6: Family<Ipv6Addr>,
}

impl RuleSet {
    fn open(pins: &PinDir, generation: u32, bounds: Bounds) -> Result<Self, KernelError> {
        Ok(Self { v4: Family::open(pins, generation, bounds)?, v6: Family::open(pins, generation, bounds)? })
    }

    fn build(generation: u32, bounds: Bounds, contents: &Contents) -> Result<Self, KernelError> {
        let (mut rules_v4, mut rules_v6) = (Vec::new(), Vec::new());
        for (prefix, rule) in &contents.rules {
            match prefix.addr() {
                IpAddr::V4(address) => rules_v4.push((address, *rule)),
                IpAddr::V6(address) => rules_v6.push((address, *rule)),
            }
        }
        let (mut isps_v4, mut isps_v6) = (Vec::new(), Vec::new());
        for (prefix, isp) in &contents.isp_prefixes {
            match prefix.addr() {
                IpAddr::V4(address) => isps_v4.push((address, prefix.prefix_len(), *isp)),
                IpAddr::V6(address) => isps_v6.push((address, prefix.prefix_len(), *isp)),
            }
        }
        Ok(Self {
            v4: Family::build(generation, bounds, &rules_v4, &isps_v4)?,
            v6: Family::build(generation, bounds, &rules_v6, &isps_v6)?,
        })
    }

    /// The longest prefixes in the tries.
    pub(super) fn longest(&self) -> Result<Longest, KernelError> {
        let rules = self.rules()?.into_iter().map(|(prefix, _)| prefix).filter(|prefix| !is_host(prefix));
        let isps = self.isp_prefixes()?.into_iter().map(|(prefix, _)| prefix);
        Ok(rules.chain(isps).fold(Longest::default(), Longest::with))
    }

    /// Every rule with its prefix, in no order.
    pub(super) fn rules(&self) -> Result<Vec<(IpNet, RuleValue)>, KernelError> {
        let v4 = self.v4.rules()?.into_iter().filter_map(|(address, rule)| at(address.into(), rule));
        let v6 = self.v6.rules()?.into_iter().filter_map(|(address, rule)| at(address.into(), rule));
        Ok(v4.chain(v6).collect())
    }

    pub(super) fn isp_prefixes(&self) -> Result<Vec<(IpNet, u32)>, KernelError> {
        let v4 = self.v4.isp_prefixes()?.into_iter();
        let v4 = v4.filter_map(|(address, length, isp)| Some((IpNet::new(address.into(), length).ok()?, isp)));
        let v6 = self.v6.isp_prefixes()?.into_iter();
        let v6 = v6.filter_map(|(address, length, isp)| Some((IpNet::new(address.into(), length).ok()?, isp)));
        Ok(v4.chain(v6).collect())
    }
}

/// `None` for a length that no address has, which we never write.
fn at(address: IpAddr, rule: RuleValue) -> Option<(IpNet, RuleValue)> {
    let length = u8::try_from(rule.prefix_len).ok()?;
    Some((IpNet::new(address, length).ok()?, rule))
}

/// Which set is in force, and what the other is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InForce {
    /// The generation that packets are judged by now.
    pub(super) generation: u32,
    /// How long its trial still takes; `None` when it is in force for good.
    pub(super) trial: Option<Duration>,
    /// A trial is over, and the word still names the set that lost.
    pub(super) has_lapsed: bool,
}

/// Both generations, and the word between them.
pub(super) struct Generations {
    word: Array<MapData, u64>,
    edition: Array<MapData, u64>,
    sets: Array<MapData, u64>,
    isps: Array<MapData, Isp>,
    limits: Array<MapData, Limits>,
    outers: Outers,
}

/// Bit of a set's record: the set is whole. The bits above count the changes of its tables and its ISPs.
const WHOLE: u64 = 1;
const ONE_CHANGE: u64 = 2;

impl Generations {
    pub(super) fn open(pins: &PinDir) -> Result<Self, KernelError> {
        Ok(Self {
            word: open_array(pins, abi::maps::GENERATION)?,
            edition: open_array(pins, abi::maps::EDITION)?,
            sets: open_array(pins, abi::maps::SETS)?,
            isps: open_array(pins, abi::maps::ISPS)?,
            limits: open_array(pins, abi::maps::LIMITS)?,
            outers: Outers::open(pins)?,
        })
    }

    pub(super) fn outers(&self) -> &Outers {
        &self.outers
    }

    pub(super) fn in_force(&self) -> Result<InForce, KernelError> {
        let word = self.word.get(&0, 0).map_err(|error| KernelError::map("read which rule set is in force", error))?;
        let now_ns = boot_clock_ns();
        let generation = generation::in_force(word, now_ns);
        let has_lapsed = generation != generation::named(word);
        let ends_ms = generation::trial_ends_ms(word);
        let trial = (ends_ms != 0 && !has_lapsed)
            .then(|| Duration::from_nanos(ends_ms.saturating_mul(1_000_000).saturating_sub(now_ns)));
        Ok(InForce { generation, trial, has_lapsed })
    }

    pub(super) fn set_of(&self, pins: &PinDir, generation: u32, bounds: Bounds) -> Result<RuleSet, KernelError> {
        RuleSet::open(pins, generation, bounds)
    }

    pub(super) fn limits_of(&self, generation: u32) -> Result<Limits, KernelError> {
        self.limits.get(&generation, 0).map_err(|error| KernelError::map("read the limits", error))
    }

    /// Writes the limits of a set in whose tries these lengths of prefixes stand.
    pub(super) fn set_limits(&mut self, generation: u32, limits: Limits, longest: Longest) -> Result<(), KernelError> {
        self.write_limits(generation, Limits { remember: longest.remembered(&limits), ..limits })
    }

    /// Before a prefix of `length` comes into a trie: where it is longer than a source is wide, sources are not remembered any more.
    pub(super) fn make_way(&mut self, generation: u32, prefix: IpNet) -> Result<(), KernelError> {
        let limits = self.limits_of(generation)?;
        let remember = limits.remember & Longest::default().with(prefix).remembered(&limits);
        if remember == limits.remember { Ok(()) } else { self.write_limits(generation, Limits { remember, ..limits }) }
    }

    /// After a change in a trie: what sources were remembered by counts no more.
    pub(super) fn begin_edition(&mut self) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("begin another edition of the tables", error);
        let edition: u64 = self.edition.get(&0, 0).map_err(failed)?;
        self.edition.set(0, edition.wrapping_add(1), 0).map_err(failed)
    }

    fn write_limits(&mut self, generation: u32, limits: Limits) -> Result<(), KernelError> {
        self.limits.set(generation, limits, 0).map_err(|error| KernelError::map("write the limits", error))
    }

    pub(super) fn isps_of(&self, generation: u32) -> Result<Vec<Isp>, KernelError> {
        let failed = |error| KernelError::map("read the ISPs", error);
        (0..MAX_ISPS).map(|isp| self.isps.get(&abi::isps::place(generation, isp), 0).map_err(failed)).collect()
    }

    pub(super) fn set_isp(&mut self, generation: u32, number: u32, isp: Isp) -> Result<(), KernelError> {
        let place = abi::isps::place(generation, number);
        self.isps.set(place, isp, 0).map_err(|error| KernelError::map("write an ISP", error))
    }

    /// All that `generation` holds.
    pub(super) fn contents(&self, pins: &PinDir, generation: u32, bounds: Bounds) -> Result<Contents, KernelError> {
        let set = self.set_of(pins, generation, bounds)?;
        Ok(Contents {
            rules: set.rules()?,
            isp_prefixes: set.isp_prefixes()?,
            isps: self.isps_of(generation)?,
            limits: self.limits_of(generation)?,
        })
    }

    /// Builds `contents` in the place that is not in force. Packets do not see it, whatever becomes of us meanwhile.
    pub(super) fn build(
        &mut self,
        pins: &PinDir,
        generation: u32,
        bounds: Bounds,
        contents: &Contents,
    ) -> Result<(), KernelError> {
        // What can fail for want of room fails before anything is overwritten.
        let set = RuleSet::build(generation, bounds, contents)?;
        self.note(generation, false)?;
        set.v4.publish(pins, &self.outers)?;
        set.v6.publish(pins, &self.outers)?;
        for (number, isp) in (0..MAX_ISPS).zip(&contents.isps) {
            self.set_isp(generation, number, *isp)?;
        }
        self.set_limits(generation, contents.limits, contents.longest())?;
        self.begin_edition()?;
        self.note(generation, true)
    }

    /// Whether `generation` holds a whole set that can be put in force.
    pub(super) fn is_whole(&self, generation: u32) -> Result<bool, KernelError> {
        Ok(self.record(generation)? & WHOLE != 0)
    }

    /// Notes that the set in force can be gone back to.
    pub(super) fn note_whole(&mut self) -> Result<(), KernelError> {
        self.note(self.in_force()?.generation, true)
    }

    /// Lets go of what `generation` holds. The kernel frees it behind our back, and no packet waits for that.
    pub(super) fn forget(&mut self, pins: &PinDir, generation: u32, bounds: Bounds) -> Result<(), KernelError> {
        self.note(generation, false)?;
        let nothing = RuleSet::build(generation, bounds, &Contents::default())?;
        nothing.v4.publish(pins, &self.outers)?;
        nothing.v6.publish(pins, &self.outers)
    }

    /// Puts `generation` in force: one store. With `trial`, until that is over; then the other one is again.
    pub(super) fn put_in_force(&mut self, generation: u32, trial: Option<Duration>) -> Result<(), KernelError> {
        let word = match trial {
            None => generation::settled(generation),
            Some(trial) => {
                let trial_ms = u64::try_from(trial.as_millis()).unwrap_or(u64::MAX >> 2);
                generation::on_trial(
                    generation,
                    (boot_clock_ns() / 1_000_000).saturating_add(trial_ms) & (u64::MAX >> 1),
                )
            }
        };
        self.word.set(0, word, 0).map_err(|error| KernelError::map("put a rule set in force", error))
    }

    /// Another number for every state of the ISPs in force: one is like another only if nothing changed in between.
    pub(super) fn isp_revision(&self) -> Result<u64, KernelError> {
        let generation = self.in_force()?.generation;
        Ok(self.record(generation)? / ONE_CHANGE * u64::from(GENERATIONS) + u64::from(generation))
    }

    /// Notes that the ISPs of `generation` changed, or that it has another table.
    pub(super) fn note_change(&mut self, generation: u32) -> Result<(), KernelError> {
        self.note(generation, self.is_whole(generation)?)
    }

    pub(super) fn record(&self, generation: u32) -> Result<u64, KernelError> {
        self.sets.get(&generation, 0).map_err(|error| KernelError::map("read what a rule set is", error))
    }

    fn note(&mut self, generation: u32, is_whole: bool) -> Result<(), KernelError> {
        let record = (self.record(generation)? & !WHOLE).wrapping_add(ONE_CHANGE) | u64::from(is_whole);
        self.sets.set(generation, record, 0).map_err(|error| KernelError::map("note what a rule set is", error))
    }
}

/// The other one of the two.
pub(super) const fn other(generation: u32) -> u32 {
    (generation + 1) % GENERATIONS
}
