//! The tables of one address family: hosts in a hash, prefixes and management in tries.
//!
//! Keys become addresses here and nowhere else. It does not know the other family, the clock, or what a rule means.

use std::net::{Ipv4Addr, Ipv6Addr};

use abi::rules::{MAX_EXPIRED_STEPS, RuleValue, V4, V4InTrie, V6, v4_in_trie};
use aya::{
    Pod,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};

use crate::kernel::{
    error::{KernelError, io_error_of_map},
    pin::PinDir,
};

/// An address as the maps spell it.
pub(super) trait Address: Copy + Ord {
    type Host: Pod;
    type InTrie: Pod;
    const BITS: u8;
    const HOSTS: &'static str;
    const PREFIXES: &'static str;
    const MANAGEMENT: &'static str;
    fn host(self) -> Self::Host;
    fn in_trie(self) -> Self::InTrie;
    fn from_host(key: Self::Host) -> Self;
    fn from_trie(key: Self::InTrie) -> Self;
}

impl Address for Ipv4Addr {
    type Host = V4;
    type InTrie = V4InTrie;
    const BITS: u8 = 32;
    const HOSTS: &'static str = abi::maps::HOSTS_V4;
    const PREFIXES: &'static str = abi::maps::PREFIXES_V4;
    const MANAGEMENT: &'static str = abi::maps::MANAGEMENT_V4;

    fn host(self) -> V4 {
        self.octets()
    }
    fn in_trie(self) -> V4InTrie {
        v4_in_trie(self.octets())
    }
    fn from_host(key: V4) -> Self {
        key.into()
    }
    fn from_trie(key: V4InTrie) -> Self {
        Ipv4Addr::new(key[0], key[1], key[2], key[3])
    }
}

impl Address for Ipv6Addr {
    type Host = V6;
    type InTrie = V6;
    const BITS: u8 = 128;
    const HOSTS: &'static str = abi::maps::HOSTS_V6;
    const PREFIXES: &'static str = abi::maps::PREFIXES_V6;
    const MANAGEMENT: &'static str = abi::maps::MANAGEMENT_V6;

    fn host(self) -> V6 {
        self.octets()
    }
    fn in_trie(self) -> V6 {
        self.octets()
    }
    fn from_host(key: V6) -> Self {
        key.into()
    }
    fn from_trie(key: V6) -> Self {
        key.into()
    }
}

/// The tables of one family.
pub(super) struct Family<A: Address> {
    hosts: HashMap<MapData, A::Host, RuleValue>,
    prefixes: LpmTrie<MapData, A::InTrie, RuleValue>,
    management: LpmTrie<MapData, A::InTrie, u32>,
    max_hosts: u32,
    max_prefixes: u32,
}

impl<A: Address> Family<A> {
    pub(super) fn open(pins: &PinDir) -> Result<Self, KernelError> {
        let (hosts, max_hosts) = open_map(pins, A::HOSTS)?;
        let (prefixes, max_prefixes) = open_map(pins, A::PREFIXES)?;
        Ok(Self {
            hosts: typed(pins, A::HOSTS, hosts)?,
            prefixes: typed(pins, A::PREFIXES, prefixes)?,
            management: typed(pins, A::MANAGEMENT, open_map(pins, A::MANAGEMENT)?.0)?,
            max_hosts,
            max_prefixes,
        })
    }

    /// How many hosts and how many prefixes fit.
    pub(super) fn bounds(&self) -> (u32, u32) {
        (self.max_hosts, self.max_prefixes)
    }

    /// The rule of exactly this prefix.
    pub(super) fn get(&self, address: A, length: u8) -> Result<Option<RuleValue>, KernelError> {
        let found = if length == A::BITS {
            self.hosts.get(&address.host(), 0)
        } else {
            self.prefixes.get(&Key::new(length.into(), address.in_trie()), 0)
        };
        // A trie answers with a shorter prefix when this one is not there.
        Ok(present(found, "look a rule up")?.filter(|rule| rule.prefix_len == u32::from(length)))
    }

    pub(super) fn put(&mut self, address: A, rule: RuleValue) -> Result<(), KernelError> {
        let is_host = rule.prefix_len == u32::from(A::BITS);
        let done = if is_host {
            self.hosts.insert(address.host(), rule, 0)
        } else {
            self.prefixes.insert(&Key::new(rule.prefix_len, address.in_trie()), rule, 0)
        };
        let (table, max, key) = if is_host {
            (A::HOSTS, self.max_hosts, "max_hosts")
        } else {
            (A::PREFIXES, self.max_prefixes, "max_prefixes")
        };
        done.map_err(|error| {
            let error = io_error_of_map(error);
            match error.raw_os_error() {
                // A hash says the one, a trie the other.
                Some(libc::E2BIG | libc::ENOSPC) => KernelError::TableFull { table, max, key },
                _ => KernelError::system("write a rule", error),
            }
        })
    }

    /// Whether there was such a rule.
    pub(super) fn remove(&mut self, address: A, length: u8) -> Result<bool, KernelError> {
        let done = if length == A::BITS {
            self.hosts.remove(&address.host())
        } else {
            self.prefixes.remove(&Key::new(length.into(), address.in_trie()))
        };
        Ok(present(done, "remove a rule")?.is_some())
    }

    /// Every rule with its address, in no order. A rule that goes while we list may be missing; none appears twice.
    pub(super) fn rules(&self) -> Result<Vec<(A, RuleValue)>, KernelError> {
        let mut rules = Vec::new();
        for entry in self.hosts.iter() {
            if let Some((key, rule)) = present(entry, "list the rules")? {
                rules.push((A::from_host(key), rule));
            }
        }
        for entry in self.prefixes.iter() {
            if let Some((key, rule)) = present(entry, "list the rules")?
                && key.prefix_len() == rule.prefix_len
            {
                rules.push((A::from_trie(key.data()), rule));
            }
        }
        Ok(rules)
    }

    /// The rule that decides about `address` at `now_ns`: the same walk as the kernel's `find_rule`.
    pub(super) fn decide(&self, address: A, now_ns: u64) -> Result<Option<RuleValue>, KernelError> {
        let lives = |rule: &RuleValue| rule.expires_ns == 0 || now_ns < rule.expires_ns;
        if let Some(rule) = self.get(address, A::BITS)?
            && lives(&rule)
        {
            return Ok(Some(rule));
        }
        let mut length = u32::from(A::BITS);
        for _ in 0..=MAX_EXPIRED_STEPS {
            let found = self.prefixes.get(&Key::new(length, address.in_trie()), 0);
            let Some(rule) = present(found, "look a rule up")? else { return Ok(None) };
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

    /// Length of the management prefix that holds `address`.
    pub(super) fn management_of(&self, address: A) -> Result<Option<u8>, KernelError> {
        let found = self.management.get(&Key::new(A::BITS.into(), address.in_trie()), 0);
        Ok(present(found, "look a management prefix up")?.and_then(|length| u8::try_from(length).ok()))
    }

    pub(super) fn management(&self) -> Result<Vec<(A, u8)>, KernelError> {
        let mut prefixes = Vec::new();
        for key in self.management.keys() {
            let key = key.map_err(|error| KernelError::map("list the management prefixes", error))?;
            // Only this code writes the map, and no prefix is longer than 128.
            prefixes.push((A::from_trie(key.data()), key.prefix_len() as u8));
        }
        prefixes.sort_unstable();
        Ok(prefixes)
    }

    /// Makes `wanted` the management prefixes. New ones come before old ones go, so nobody is unguarded in between.
    pub(super) fn set_management(&mut self, wanted: &[(A, u8)]) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("write the management prefixes", error);
        for (address, length) in wanted {
            let length = u32::from(*length);
            self.management.insert(&Key::new(length, address.in_trie()), length, 0).map_err(failed)?;
        }
        for (address, length) in self.management()? {
            if !wanted.contains(&(address, length)) {
                self.management.remove(&Key::new(length.into(), address.in_trie())).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// A pinned map and its bound.
pub(super) fn open_map(pins: &PinDir, name: &'static str) -> Result<(Map, u32), KernelError> {
    let path = pins.file(name);
    let foreign = |source| KernelError::ForeignPin { path: path.clone(), source: Box::new(source) };
    let data = MapData::from_pin(&path).map_err(|error| {
        let error = io_error_of_map(error);
        let gone = error.kind() == std::io::ErrorKind::NotFound;
        let hint = if gone { ", which bringing the filter up makes again" } else { "" };
        KernelError::system(format!("open the table {}{hint}", path.display()), error)
    })?;
    let max_entries = data.info().map_err(foreign)?.max_entries();
    Ok((Map::from_map_data(data).map_err(foreign)?, max_entries))
}

/// `map` as the type that it should be; key and value sizes are checked.
pub(super) fn typed<T>(pins: &PinDir, name: &'static str, map: Map) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    map.try_into().map_err(|source| KernelError::ForeignPin { path: pins.file(name), source: Box::new(source) })
}

/// `None` for an entry that is not there, which is an ordinary answer.
fn present<T>(result: Result<T, MapError>, doing: &str) -> Result<Option<T>, KernelError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KernelError::map(doing, error)),
    }
}
