//! Names of the maps (the kernel cuts a name at 15 bytes) and the bounds that are part of the layout.
//!
//! The same name is the symbol in the object and the file under the pin directory.

/// Denied and allowed IPv4 hosts: hash, [`V4`](crate::rules::V4) to [`RuleValue`](crate::rules::RuleValue).
pub const HOSTS_V4: &str = "HOSTS_V4";
/// Denied and allowed IPv6 hosts: hash, [`V6`](crate::rules::V6) to [`RuleValue`](crate::rules::RuleValue).
pub const HOSTS_V6: &str = "HOSTS_V6";
/// IPv4 prefixes shorter than /32: LPM trie to [`RuleValue`](crate::rules::RuleValue).
pub const PREFIXES_V4: &str = "PREFIXES_V4";
/// IPv6 prefixes shorter than /128: LPM trie to [`RuleValue`](crate::rules::RuleValue).
pub const PREFIXES_V6: &str = "PREFIXES_V6";
/// IPv4 prefixes that are never denied: LPM trie to the length of the prefix.
pub const MANAGEMENT_V4: &str = "MANAGEMENT_V4";
/// IPv6 prefixes that are never denied: LPM trie to the length of the prefix.
pub const MANAGEMENT_V6: &str = "MANAGEMENT_V6";
/// One bit per TCP port, [`PORT_WORDS`] words: the ports that the filter guards.
pub const PROTECTED: &str = "PROTECTED";
/// One entry: [`Settings`](crate::settings::Settings).
pub const SETTINGS: &str = "SETTINGS";
/// Per-CPU [`Counter`](crate::verdict::Counter)s, [`COUNTERS`](crate::verdict::COUNTERS) of them.
pub const COUNTS: &str = "COUNTS";

/// Every map of the object, in the order in which they are pinned.
pub const ALL: [&str; 9] =
    [SETTINGS, PROTECTED, COUNTS, MANAGEMENT_V4, MANAGEMENT_V6, HOSTS_V4, HOSTS_V6, PREFIXES_V4, PREFIXES_V6];

/// The XDP program.
pub const FILTER: &str = "filter";

/// Words of 64 ports in [`PROTECTED`].
pub const PORT_WORDS: u32 = 65_536 / 64;

/// Management prefixes per address family. They are few by nature: a jump host, an operator's network.
pub const MAX_MANAGEMENT: u32 = 256;

/// Word and bit of `port` in [`PROTECTED`].
#[inline(always)]
#[must_use]
pub const fn port_bit(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}
