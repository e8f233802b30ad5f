//! The tables. Userspace creates them through this object's definitions and pins them; sizes here are the defaults.

use core::{arch::asm, cell::UnsafeCell};

use abi::{
    maps::{MAX_MANAGEMENT, PORT_WORDS},
    rules::{RuleValue, V4, V4InTrie, V6},
    settings::Settings,
    verdict::{COUNTERS, Counter},
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray},
    macros::btf_map,
};

/// Default bounds; the loader replaces them with the config's `max_hosts` and `max_prefixes`.
const MAX_HOSTS: usize = 262_144;
const MAX_PREFIXES: usize = 65_536;
/// Memory is taken per rule, not for a full table.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// 0 to the switches. Written by userspace. An array's entry always exists; unwritten it is all zeros: enforce, kill switch off.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Port / 64 to a word with a bit per port. Written by userspace. Unwritten: no port is guarded and everything passes.
#[btf_map]
pub static PROTECTED: Array<u64, { PORT_WORDS as usize }> = Array::new();

/// Reason to packets and bytes, per CPU. Written here only.
#[btf_map]
pub static COUNTS: PerCpuArray<Counter, { COUNTERS as usize }> = PerCpuArray::new();

/// Source prefix to its length: never denied. Written by userspace from the config. Missing: the rules decide.
#[btf_map]
pub static MANAGEMENT_V4: LpmTrie<V4InTrie, u32, { MAX_MANAGEMENT as usize }> = LpmTrie::new();

/// As `MANAGEMENT_V4`.
#[btf_map]
pub static MANAGEMENT_V6: LpmTrie<V6, u32, { MAX_MANAGEMENT as usize }> = LpmTrie::new();

/// Source address to its rule. Rules by userspace, counts here. Missing: the prefixes decide.
#[btf_map]
pub static HOSTS_V4: HashMap<V4, Rule, MAX_HOSTS, ON_DEMAND> = HashMap::new();

/// As `HOSTS_V4`.
#[btf_map]
pub static HOSTS_V6: HashMap<V6, Rule, MAX_HOSTS, ON_DEMAND> = HashMap::new();

/// Source prefix to its rule, the longest match wins. Rules by userspace, counts here. Missing: pass.
#[btf_map]
pub static PREFIXES_V4: LpmTrie<V4InTrie, Rule, MAX_PREFIXES> = LpmTrie::new();

/// As `PREFIXES_V4`.
#[btf_map]
pub static PREFIXES_V6: LpmTrie<V6, Rule, MAX_PREFIXES> = LpmTrie::new();

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

/// Adds without reading back: one `lock add`.
///
/// In assembly because `AtomicU64::fetch_add` is not there for this target: rustc takes it to have no compare-and-swap.
///
/// # Safety
///
/// `counter` points into a live map value and is 8-byte aligned.
#[inline(always)]
unsafe fn add_atomically(counter: *mut u64, more: u64) {
    // SAFETY: the caller vouches for `counter`; the instruction touches nothing else.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {more}", counter = in(reg) counter, more = in(reg) more, options(nostack))
    };
}
