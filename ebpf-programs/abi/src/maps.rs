//! Names of the maps (the kernel cuts a name at 15 bytes) and the bounds that are part of the layout.
//!
//! The same name is the symbol in the object and the file under the pin directory. The maps of a rule set are arrays of maps
//! with a place per [generation](crate::generation); what stands in a place is told beside them.

/// One entry: [`Settings`](crate::settings::Settings).
pub const SETTINGS: &str = "SETTINGS";
/// One entry: the word of [`generation`](crate::generation).
pub const GENERATION: &str = "GENERATION";
/// One entry: a number that grows with every change of a trie in force.
pub const EDITION: &str = "EDITION";
/// One bit per TCP port, [`PORT_WORDS`] words: the ports that the filter guards.
pub const PROTECTED: &str = "PROTECTED";
/// Destination addresses that the filter guards: hash, [`V6`](crate::rules::V6) (IPv4 mapped) to 1.
pub const ADDRESSES: &str = "ADDRESSES";
/// Per-CPU [`Counter`](crate::verdict::Counter)s, [`COUNTERS`](crate::verdict::COUNTERS) of them.
pub const COUNTS: &str = "COUNTS";
/// IPv4 prefixes that are never denied: LPM trie to the length of the prefix.
pub const MANAGEMENT_V4: &str = "MANAGEMENT_V4";
/// IPv6 prefixes that are never denied: LPM trie to the length of the prefix.
pub const MANAGEMENT_V6: &str = "MANAGEMENT_V6";
/// Per generation, denied and allowed IPv4 hosts: hash, [`V4`](crate::rules::V4) to [`RuleValue`](crate::rules::RuleValue).
pub const HOSTS_V4: &str = "HOSTS_V4";
/// Per generation, denied and allowed IPv6 hosts: hash, [`V6`](crate::rules::V6) to [`RuleValue`](crate::rules::RuleValue).
pub const HOSTS_V6: &str = "HOSTS_V6";
/// Per generation, IPv4 prefixes shorter than /32: LPM trie to [`RuleValue`](crate::rules::RuleValue).
pub const PREFIXES_V4: &str = "PREFIXES_V4";
/// Per generation, IPv6 prefixes shorter than /128: LPM trie to [`RuleValue`](crate::rules::RuleValue).
pub const PREFIXES_V6: &str = "PREFIXES_V6";
/// Per generation, IPv4 prefixes of ISPs: LPM trie to the ISP's number (u32).
pub const ISPS_V4: &str = "ISPS_V4";
/// Per generation, IPv6 prefixes of ISPs: LPM trie to the ISP's number (u32).
pub const ISPS_V6: &str = "ISPS_V6";
/// [`Isp`](crate::isps::Isp)s, at [`place`](crate::isps::place).
pub const ISPS: &str = "ISPS";
/// ISP's number to its [`Policer`](crate::isps::Policer).
pub const POLICERS: &str = "POLICERS";
/// ISP's number to its per-CPU [`IspCounter`](crate::isps::IspCounter).
pub const ISP_COUNTS: &str = "ISP_COUNTS";
/// Generation to its [`Limits`](crate::limits::Limits).
pub const LIMITS: &str = "LIMITS";
/// IPv4 sources: LRU hash, [`V4`](crate::rules::V4) to [`SourceState`](crate::limits::SourceState).
pub const SOURCES_V4: &str = "SOURCES_V4";
/// IPv6 sources: LRU hash, [`V6`](crate::rules::V6) to [`SourceState`](crate::limits::SourceState).
pub const SOURCES_V6: &str = "SOURCES_V6";
/// Connections that IPv4 sources have open: hash, [`V4`](crate::rules::V4) to u64.
pub const OPEN_V4: &str = "OPEN_V4";
/// Connections that IPv6 sources have open: hash, [`V6`](crate::rules::V6) to u64.
pub const OPEN_V6: &str = "OPEN_V6";
/// A ring buffer of [`Event`](crate::events::Event)s.
pub const EVENTS: &str = "EVENTS";
/// One entry: until when somebody listens to the events, `CLOCK_BOOTTIME` in nanoseconds; 0 = nobody does.
pub const LISTENING: &str = "LISTENING";
/// One entry per CPU: [`Telling`](crate::events::Telling).
pub const TELLING: &str = "TELLING";
/// One entry: [`Shaping`](crate::shaping::Shaping).
pub const SHAPING: &str = "SHAPING";
/// ISP's number to its [`Shaper`](crate::shaping::Shaper).
pub const SHAPERS: &str = "SHAPERS";
/// ISP's number to its per-CPU [`ShapeCounter`](crate::shaping::ShapeCounter).
pub const SHAPED: &str = "SHAPED";
/// One entry: [`Measuring`](crate::measuring::Measuring).
pub const MEASURING: &str = "MEASURING";
/// ISP's number to its per-CPU [`Measured`](crate::measuring::Measured).
pub const MEASURED: &str = "MEASURED";
/// Storage of sockets: [`Sampled`](crate::measuring::Sampled).
pub const SAMPLED: &str = "SAMPLED";
/// Generation to what its place holds: bit 0 says a whole rule set, the others count changes of its ISPs. Only userspace reads it.
pub const SETS: &str = "SETS";
/// Comments of rules: hash, number to [`COMMENT_BYTES`](crate::rules::COMMENT_BYTES) bytes. Only userspace reads it.
pub const COMMENTS: &str = "COMMENTS";

/// The maps of a rule set: each is an array of maps, a place per generation.
pub const RULE_SET: [&str; 6] = [HOSTS_V4, HOSTS_V6, PREFIXES_V4, PREFIXES_V6, ISPS_V4, ISPS_V6];

/// Every map of the programs, in the order in which they are pinned.
pub const ALL: [&str; 33] = [
    SETTINGS,
    GENERATION,
    EDITION,
    SETS,
    PROTECTED,
    ADDRESSES,
    COUNTS,
    MANAGEMENT_V4,
    MANAGEMENT_V6,
    HOSTS_V4,
    HOSTS_V6,
    PREFIXES_V4,
    PREFIXES_V6,
    ISPS_V4,
    ISPS_V6,
    ISPS,
    POLICERS,
    ISP_COUNTS,
    LIMITS,
    SOURCES_V4,
    SOURCES_V6,
    OPEN_V4,
    OPEN_V6,
    EVENTS,
    LISTENING,
    TELLING,
    COMMENTS,
    SHAPING,
    SHAPERS,
    SHAPED,
    MEASURING,
    MEASURED,
    SAMPLED,
];

/// The XDP program.
pub const FILTER: &str = "filter";
/// The program at the egress.
pub const SHAPE: &str = "shape";
/// The program that sockets call.
pub const MEASURE: &str = "measure";

/// Words of 64 ports in [`PROTECTED`].
pub const PORT_WORDS: u32 = 65_536 / 64;

/// Management prefixes per address family. They are few by nature: a jump host, an operator's network.
pub const MAX_MANAGEMENT: u32 = 256;

/// Addresses of this host that can be listed as guarded.
pub const MAX_ADDRESSES: u32 = 1024;

/// Comments of rules. Rules with the same text share one.
pub const MAX_COMMENTS: u32 = 65_536;

/// Word and bit of `port` in [`PROTECTED`].
#[inline(always)]
#[must_use]
pub const fn port_bit(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}

/// An IPv4 address among those of IPv6 (RFC 4291, section 2.5.5.2).
#[inline(always)]
#[must_use]
pub const fn v4_mapped(address: crate::rules::V4) -> crate::rules::V6 {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, address[0], address[1], address[2], address[3]]
}
