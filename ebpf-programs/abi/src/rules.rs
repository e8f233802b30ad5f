//! What a filter table holds: addresses as keys, a rule as the value, and the key of a trie.

/// An IPv4 address in network byte order, as it stands in the packet.
pub type V4 = [u8; 4];
/// An IPv6 address, as it stands in the packet.
pub type V6 = [u8; 16];

/// An IPv4 address as the key of a trie: the address, then zeros that no prefix reaches.
///
/// The kernel puts the value right behind the key, so a key of 4 bytes would leave the counters of [`RuleValue`] on odd
/// halves of words, where an atomic addition may straddle two cache lines.
pub type V4InTrie = [u8; 8];

/// `address` as the key of a trie.
#[inline(always)]
#[must_use]
pub const fn v4_in_trie(address: V4) -> V4InTrie {
    [address[0], address[1], address[2], address[3], 0, 0, 0, 0]
}

/// Let the packet through. An `allow` inside a denied prefix is an exception to it.
pub const ALLOW: u32 = 0;
/// Drop the packet.
pub const DENY: u32 = 1;

/// How many expired rules the kernel steps over, from the longest match outwards, before it lets a packet pass.
///
/// The verifier wants a bound on the walk. Userspace sweeps expired rules away, so that more than one in a row is rare.
pub const MAX_EXPIRED_STEPS: u32 = 8;

/// A rule, with what it did. Written by userspace; the kernel only adds to `hits` and `bytes`.
///
/// The counts stand beside the rule and are added to atomically, for two reasons: an LPM trie has no per-CPU variant, and a
/// per-CPU hash would cost every rule 32 bytes a CPU. The price is one contended cache line when several CPUs drop
/// by the same rule at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleValue {
    /// [`ALLOW`] or [`DENY`]. What is neither counts as `ALLOW`: a value we do not know must not lock anybody out.
    pub action: u32,
    /// Length of the prefix that this rule stands under, so that the kernel can look for the next shorter one.
    pub prefix_len: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds from which the rule counts as absent; 0 = never.
    pub expires_ns: u64,
    /// Packets that this rule decided.
    pub hits: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
    /// Number of its comment; 0 = none. Only userspace reads it.
    pub comment: u32,
    /// Who made it: [`BY_OPERATOR`] or [`BY_TIER`]. Only userspace reads it.
    pub origin: u32,
}

const _: () = assert!(size_of::<RuleValue>() == 40);

/// Made by an operator: in a file, or by hand. Applying a file replaces it.
pub const BY_OPERATOR: u32 = 0;
/// Made by the logic tier, as a ban. Applying a file leaves it.
pub const BY_TIER: u32 = 1;

/// Bytes of a rule's comment, the closing zero included.
pub const COMMENT_BYTES: usize = 64;
