//! An address as the maps spell it, and back: keys become addresses here and nowhere else.

use std::net::{Ipv4Addr, Ipv6Addr};

use abi::rules::{V4, V4InTrie, V6, v4_in_trie};
use aya::{Pod, maps::lpm_trie};

use super::table;

/// An address of one family.
pub(super) trait Address: Copy + Ord + Into<std::net::IpAddr> {
    type Host: table::Key;
    type InTrie: Pod;
    const BITS: u8;
    const HOSTS: &'static str;
    const PREFIXES: &'static str;
    const ISPS: &'static str;
    const MANAGEMENT: &'static str;
    const SOURCES: &'static str;
    const OPEN: &'static str;
    fn host(self) -> Self::Host;
    fn in_trie(self) -> Self::InTrie;
    fn from_host(key: Self::Host) -> Self;
    fn from_trie(key: Self::InTrie) -> Self;

    /// The prefix of `length` bits that begins with this address.
    fn prefix(self, length: u8) -> lpm_trie::Key<Self::InTrie> {
        lpm_trie::Key::new(length.into(), self.in_trie())
    }
}

impl Address for Ipv4Addr {
    type Host = V4;
    type InTrie = V4InTrie;
    const BITS: u8 = 32;
    const HOSTS: &'static str = abi::maps::HOSTS_V4;
    const PREFIXES: &'static str = abi::maps::PREFIXES_V4;
    const ISPS: &'static str = abi::maps::ISPS_V4;
    const MANAGEMENT: &'static str = abi::maps::MANAGEMENT_V4;
    const SOURCES: &'static str = abi::maps::SOURCES_V4;
    const OPEN: &'static str = abi::maps::OPEN_V4;

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
    const ISPS: &'static str = abi::maps::ISPS_V6;
    const MANAGEMENT: &'static str = abi::maps::MANAGEMENT_V6;
    const SOURCES: &'static str = abi::maps::SOURCES_V6;
    const OPEN: &'static str = abi::maps::OPEN_V6;

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
