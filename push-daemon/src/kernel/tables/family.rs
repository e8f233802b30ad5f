//! The tables of one address family in one rule set: hosts in a hash, prefixes and those of ISPs in tries.
//!
//! It does not know the other family, the clock, or what a rule means.

use abi::rules::{MAX_EXPIRED_STEPS, RuleValue};
use aya::maps::lpm_trie;

use super::{
    address::Address,
    generations::Outers,
    table::{Place, Table},
};
use crate::kernel::{error::KernelError, pin::PinDir};

/// How much a rule set may hold, per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) max_hosts: u32,
    pub(super) max_prefixes: u32,
}

/// The tables of one family in one generation.
pub(super) struct Family<A: Address> {
    hosts: Table<A::Host, RuleValue>,
    prefixes: Table<lpm_trie::Key<A::InTrie>, RuleValue>,
    isps: Table<lpm_trie::Key<A::InTrie>, u32>,
}

struct Places {
    hosts: Place,
    prefixes: Place,
    isps: Place,
}

fn places<A: Address>(generation: u32, bounds: Bounds) -> Places {
    let place = |name, max_entries, bound| Place { name, generation, max_entries, bound };
    Places {
        hosts: place(A::HOSTS, bounds.max_hosts, "max_hosts"),
        prefixes: place(A::PREFIXES, bounds.max_prefixes, "max_prefixes"),
        isps: place(A::ISPS, bounds.max_prefixes, "max_prefixes"),
    }
}

impl<A: Address> Family<A> {
    pub(super) fn open(pins: &PinDir, generation: u32, bounds: Bounds) -> Result<Self, KernelError> {
        let places = places::<A>(generation, bounds);
        Ok(Self {
            hosts: Table::open(pins, places.hosts)?,
            prefixes: Table::open(pins, places.prefixes)?,
            isps: Table::open(pins, places.isps)?,
        })
    }

    /// Makes tables that nobody sees yet. Rules stand under the length that their value tells.
    pub(super) fn build(
        generation: u32,
        bounds: Bounds,
        rules: &[(A, RuleValue)],
        isps: &[(A, u8, u32)],
    ) -> Result<Self, KernelError> {
        let places = places::<A>(generation, bounds);
        let (mut hosts, mut prefixes) = (Vec::new(), Vec::new());
        for (address, rule) in rules {
            match rule.prefix_len == u32::from(A::BITS) {
                true => hosts.push((address.host(), *rule)),
                false => prefixes.push((lpm_trie::Key::new(rule.prefix_len, address.in_trie()), *rule)),
            }
        }
        let isps: Vec<_> = isps.iter().map(|(address, length, isp)| (address.prefix(*length), *isp)).collect();
        Ok(Self {
            hosts: Table::build(places.hosts, &hosts)?,
            prefixes: Table::build(places.prefixes, &prefixes)?,
            isps: Table::build(places.isps, &isps)?,
        })
    }

    pub(super) fn publish(&self, pins: &PinDir, outers: &Outers) -> Result<(), KernelError> {
        self.hosts.publish(pins, outers.of(A::HOSTS)?)?;
        self.prefixes.publish(pins, outers.of(A::PREFIXES)?)?;
        self.isps.publish(pins, outers.of(A::ISPS)?)
    }

    /// How much fits.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { max_hosts: self.hosts.max_entries(), max_prefixes: self.prefixes.max_entries() }
    }

    /// The rule of exactly this prefix.
    pub(super) fn get(&self, address: A, length: u8) -> Result<Option<RuleValue>, KernelError> {
        let found = match length == A::BITS {
            true => self.hosts.get(&address.host())?,
            false => self.prefixes.get(&address.prefix(length))?,
        };
        // A trie answers with a shorter prefix when this one is not there.
        Ok(found.filter(|rule| rule.prefix_len == u32::from(length)))
    }

    /// Whether that made a table.
    pub(super) fn put(
        &mut self,
        pins: &PinDir,
        outers: &Outers,
        address: A,
        rule: &RuleValue,
    ) -> Result<bool, KernelError> {
        if rule.prefix_len == u32::from(A::BITS) {
            self.hosts.put(pins, outers.of(A::HOSTS)?, &address.host(), rule)
        } else {
            let key = lpm_trie::Key::new(rule.prefix_len, address.in_trie());
            self.prefixes.put(pins, outers.of(A::PREFIXES)?, &key, rule)
        }
    }

    /// Whether there was such a rule.
    pub(super) fn remove(&mut self, address: A, length: u8) -> Result<bool, KernelError> {
        match length == A::BITS {
            true => self.hosts.remove(&address.host()),
            false => self.prefixes.remove(&address.prefix(length)),
        }
    }

    /// Removes the rules of exactly these prefixes, as far as they are there.
    pub(super) fn remove_all(&mut self, rules: &[(A, u8)]) -> Result<(), KernelError> {
        let (hosts, prefixes): (Vec<_>, Vec<_>) = rules.iter().partition(|(_, length)| *length == A::BITS);
        let hosts: Vec<_> = hosts.into_iter().map(|(address, _)| address.host()).collect();
        let prefixes: Vec<_> = prefixes.into_iter().map(|(address, length)| address.prefix(length)).collect();
        self.hosts.remove_all(&hosts)?;
        self.prefixes.remove_all(&prefixes)
    }

    /// Writes down whose a prefix is. Whether that made a table.
    pub(super) fn put_isp(
        &mut self,
        pins: &PinDir,
        outers: &Outers,
        address: A,
        length: u8,
        isp: u32,
    ) -> Result<bool, KernelError> {
        self.isps.put(pins, outers.of(A::ISPS)?, &address.prefix(length), &isp)
    }

    /// Removes prefixes of ISPs, as far as they are there.
    pub(super) fn remove_isps(&mut self, prefixes: &[(A, u8)]) -> Result<(), KernelError> {
        let keys: Vec<_> = prefixes.iter().map(|(address, length)| address.prefix(*length)).collect();
        self.isps.remove_all(&keys)
    }

    /// Every rule with its address, in no order. A rule that goes while we list may be missing; none appears twice.
    pub(super) fn rules(&self) -> Result<Vec<(A, RuleValue)>, KernelError> {
        let hosts = self.hosts.entries()?.into_iter().map(|(key, rule)| (A::from_host(key), rule));
        let prefixes = self.prefixes.entries()?.into_iter().map(|(key, rule)| (A::from_trie(key.data()), rule));
        Ok(hosts.chain(prefixes).collect())
    }

    /// Every prefix of an ISP: address, length, the ISP's number.
    pub(super) fn isp_prefixes(&self) -> Result<Vec<(A, u8, u32)>, KernelError> {
        let entries = self.isps.entries()?.into_iter();
        // Only this code writes the map, and no prefix is longer than 128.
        Ok(entries.map(|(key, isp)| (A::from_trie(key.data()), key.prefix_len() as u8, isp)).collect())
    }

    /// The number of the ISP that `address` belongs to.
    pub(super) fn isp_of(&self, address: A) -> Result<u32, KernelError> {
        Ok(self.isps.get(&address.prefix(A::BITS))?.unwrap_or(abi::isps::NO_ISP))
    }

    /// The rule that decides about `address` at `now_ns`: the same walk as the kernel's `find_rule`.
    pub(super) fn decide(&self, address: A, now_ns: u64) -> Result<Option<RuleValue>, KernelError> {
        let lives = |rule: &RuleValue| rule.expires_ns == 0 || now_ns < rule.expires_ns;
        if let Some(rule) = self.get(address, A::BITS)?.filter(lives) {
            return Ok(Some(rule));
        }
        let mut length = u32::from(A::BITS);
        for _ in 0..=MAX_EXPIRED_STEPS {
            let key = lpm_trie::Key::new(length, address.in_trie());
            let Some(rule) = self.prefixes.get(&key)? else { return Ok(None) };
            if lives(&rule) {
                return Ok(Some(rule));
            }
            match rule.prefix_len.checked_sub(1) {
                Some(shorter) => length = shorter,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}
