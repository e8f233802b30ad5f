//! The rule that decides about a source: its own, else the one of the longest prefix, expired ones aside.

use core::cell::UnsafeCell;

use abi::rules::{self, MAX_EXPIRED_STEPS, RuleValue, V4, V6};
use aya_ebpf::btf_maps::{LpmTrie, lpm_trie::Key};

use crate::{
    clock::boot_ns,
    counting::add_atomically,
    maps::{HOSTS_V4, HOSTS_V6, PREFIXES_V4, PREFIXES_V6},
    packet::Address,
};

/// Bits of an IPv4 key.
pub const V4_BITS: u32 = 32;
/// Bits of an IPv6 key.
pub const V6_BITS: u32 = 128;

/// A [`RuleValue`] as it stands in a map: other CPUs and userspace write it while we read.
#[repr(transparent)]
pub struct Rule(UnsafeCell<RuleValue>);

// SAFETY: the counts are added to atomically; the other fields are aligned words that only userspace writes, each read once.
unsafe impl Sync for Rule {}

impl Rule {
    /// Length of the prefix that the rule stands under.
    #[inline(always)]
    pub fn prefix_len(&self) -> u32 {
        // SAFETY: the pointer comes from a reference into a live map value; volatile because others write.
        unsafe { (&raw const (*self.0.get()).prefix_len).read_volatile() }
    }

    /// `DENY`, `ALLOW`, or something that counts as `ALLOW`.
    #[inline(always)]
    pub fn action(&self) -> u32 {
        // SAFETY: as in `prefix_len`.
        unsafe { (&raw const (*self.0.get()).action).read_volatile() }
    }

    /// When the rule counts as absent; 0 = never.
    #[inline(always)]
    pub fn expires_ns(&self) -> u64 {
        // SAFETY: as in `prefix_len`.
        unsafe { (&raw const (*self.0.get()).expires_ns).read_volatile() }
    }

    /// Counts a packet of `bytes` that this rule decided.
    #[inline(always)]
    pub fn hit(&self, bytes: u64) {
        let value = self.0.get();
        // SAFETY: both fields are 8-byte aligned in the map (see `V4InTrie`), and this side writes them in no other way.
        unsafe {
            add_atomically(&raw mut (*value).hits, 1);
            add_atomically(&raw mut (*value).bytes, bytes);
        }
    }
}

/// The rule of `generation` for this very address.
#[inline(always)]
pub fn host(generation: u32, source: &Address) -> Option<&'static Rule> {
    if source.is_v4 { host_v4(generation, &source.v4()) } else { host_v6(generation, &source.v6()) }
}

/// The rule of `generation` for the longest prefix that holds the address.
#[inline(always)]
pub fn prefix(generation: u32, source: &Address) -> Option<&'static Rule> {
    if source.is_v4 {
        longest(PREFIXES_V4.get(generation)?, V4_BITS, rules::v4_in_trie(source.v4()))
    } else {
        longest(PREFIXES_V6.get(generation)?, V6_BITS, source.v6())
    }
}

#[inline(always)]
fn host_v4(generation: u32, address: &V4) -> Option<&'static Rule> {
    // SAFETY: a map value lives until the program's RCU section ends, that is, as long as this program runs; a removed value
    // that is reused meanwhile costs one misjudged packet, never memory. The same holds for the map that it stands in.
    unsafe { HOSTS_V4.get(generation)?.get(address) }.filter(|rule| !has_expired(rule))
}

#[inline(always)]
fn host_v6(generation: u32, address: &V6) -> Option<&'static Rule> {
    // SAFETY: as in `host_v4`.
    unsafe { HOSTS_V6.get(generation)?.get(address) }.filter(|rule| !has_expired(rule))
}

/// Walks outwards from the longest match, past expired rules. `MAX_EXPIRED_STEPS` of them in a row: no rule, hence pass.
#[inline(always)]
fn longest<K: Copy, const N: usize>(table: &'static LpmTrie<K, Rule, N>, bits: u32, data: K) -> Option<&'static Rule> {
    let mut key = Key::new(bits, data);
    for _ in 0..=MAX_EXPIRED_STEPS {
        let rule = table.get(&key)?;
        if !has_expired(rule) {
            return Some(rule);
        }
        // A match is never longer than what was asked for, so the walk gets shorter each time.
        key.prefix_len = rule.prefix_len().checked_sub(1)?;
    }
    None
}

#[inline(always)]
fn has_expired(rule: &Rule) -> bool {
    let expires_ns = rule.expires_ns();
    expires_ns != 0 && boot_ns() >= expires_ns
}
