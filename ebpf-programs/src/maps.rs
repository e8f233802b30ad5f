//! The tables. Userspace creates them through this object's definitions and pins them; sizes here are the defaults.
//!
//! The tables of a rule set have a place per generation (`abi::generation`). A place without a map is an empty table.

use abi::{
    events::{Event, RING_BYTES, Telling},
    generation::GENERATIONS,
    isps::{Isp, IspCounter, MAX_ISPS, Policer},
    limits::{Limits, SourceState},
    maps::{MAX_ADDRESSES, MAX_COMMENTS, MAX_MANAGEMENT, PORT_WORDS},
    measuring::{Measured, Measuring, Sampled},
    rules::{COMMENT_BYTES, V4, V4InTrie, V6},
    settings::Settings,
    shaping::{ShapeCounter, Shaper, Shaping},
    verdict::{COUNTERS, Counter},
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};

use crate::{packet::Packet, rules::Rule};

/// Default bounds; the loader replaces them with the config's.
const MAX_HOSTS: usize = 262_144;
const MAX_PREFIXES: usize = 65_536;
const MAX_SOURCES: usize = 262_144;
/// Memory is taken per entry, not for a full table.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
const PLACES: usize = GENERATIONS as usize;

/// 0 to the switches. Written by userspace. An array's entry always exists; unwritten it is all zeros: enforce, kill switch off.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// 0 to the word that says which rule set is in force. Written by userspace. Unwritten: the first one, for good.
#[btf_map]
pub static GENERATION: Array<u64, 1> = Array::new();

/// 0 to the edition of the tries: what a source was remembered by an older one counts no more. Written by userspace after each change.
#[btf_map]
pub static EDITION: Array<u64, 1> = Array::new();

/// Port / 64 to a word with a bit per port. Written by userspace. Unwritten: no port is guarded and everything passes.
#[btf_map]
pub static PROTECTED: Array<u64, { PORT_WORDS as usize }> = Array::new();

/// Destination address to 1. Written by userspace from the config, read when the settings say so. Missing: not guarded, passes.
#[btf_map]
pub static ADDRESSES: HashMap<V6, u32, { MAX_ADDRESSES as usize }, ON_DEMAND> = HashMap::new();

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
pub static HOSTS_V4: ArrayOfMaps<HashMap<V4, Rule, MAX_HOSTS, ON_DEMAND>, PLACES> = ArrayOfMaps::new();

/// As `HOSTS_V4`.
#[btf_map]
pub static HOSTS_V6: ArrayOfMaps<HashMap<V6, Rule, MAX_HOSTS, ON_DEMAND>, PLACES> = ArrayOfMaps::new();

/// Source prefix to its rule, the longest match wins. Rules by userspace, counts here. Missing: pass.
#[btf_map]
pub static PREFIXES_V4: ArrayOfMaps<LpmTrie<V4InTrie, Rule, MAX_PREFIXES>, PLACES> = ArrayOfMaps::new();

/// As `PREFIXES_V4`.
#[btf_map]
pub static PREFIXES_V6: ArrayOfMaps<LpmTrie<V6, Rule, MAX_PREFIXES>, PLACES> = ArrayOfMaps::new();

/// Prefix to the number of its ISP, the longest match wins. Written by userspace. Missing: nobody's, number 0.
#[btf_map]
pub static ISPS_V4: ArrayOfMaps<LpmTrie<V4InTrie, u32, MAX_PREFIXES>, PLACES> = ArrayOfMaps::new();

/// As `ISPS_V4`.
#[btf_map]
pub static ISPS_V6: ArrayOfMaps<LpmTrie<V6, u32, MAX_PREFIXES>, PLACES> = ArrayOfMaps::new();

/// Generation and number to an ISP's rates. Written by userspace. Unwritten: no rates.
#[btf_map]
pub static ISPS: Array<Isp, { (GENERATIONS * MAX_ISPS) as usize }> = Array::new();

/// ISP's number to the moment that its policer has reached. Written here only.
#[btf_map]
pub static POLICERS: Array<Policer, { MAX_ISPS as usize }> = Array::new();

/// ISP's number to what came of its packets, per CPU. Written here only.
#[btf_map]
pub static ISP_COUNTS: PerCpuArray<IspCounter, { MAX_ISPS as usize }> = PerCpuArray::new();

/// Generation to the limits of a source. Written by userspace. Unwritten: none.
#[btf_map]
pub static LIMITS: Array<Limits, PLACES> = Array::new();

/// Source to what it did lately. Written here only, and only while there are limits. Full: the least recently seen goes.
#[btf_map]
pub static SOURCES_V4: LruHashMap<V4, SourceState, MAX_SOURCES> = LruHashMap::new();

/// As `SOURCES_V4`.
#[btf_map]
pub static SOURCES_V6: LruHashMap<V6, SourceState, MAX_SOURCES> = LruHashMap::new();

/// Source to the connections that it has open. Written by `measure`, read by the filter. Missing: none. Full: a new source's
/// connections are not counted, hence not limited.
#[btf_map]
pub static OPEN_V4: HashMap<V4, u64, MAX_SOURCES, ON_DEMAND> = HashMap::new();

/// As `OPEN_V4`.
#[btf_map]
pub static OPEN_V6: HashMap<V6, u64, MAX_SOURCES, ON_DEMAND> = HashMap::new();

/// A sample of the drops. Written here, read by one listener. Full: the record is lost.
#[btf_map]
pub static EVENTS: RingBuf<Event, { RING_BYTES as usize }> = RingBuf::new();

/// 0 to the time until which somebody listens. Written by the listener; put back to 0 here once it is past.
#[btf_map]
pub static LISTENING: Array<u64, 1> = Array::new();

/// 0 to what this CPU last told. Written here only.
#[btf_map]
pub static TELLING: PerCpuArray<Telling, 1> = PerCpuArray::new();

/// 0 to how egress is shaped. Written by userspace. Unwritten: not at all.
#[btf_map]
pub static SHAPING: Array<Shaping, 1> = Array::new();

/// ISP's number to the moment that his egress has reached. Written here only.
#[btf_map]
pub static SHAPERS: Array<Shaper, { MAX_ISPS as usize }> = Array::new();

/// ISP's number to what went to his clients, per CPU. Written here only.
#[btf_map]
pub static SHAPED: PerCpuArray<ShapeCounter, { MAX_ISPS as usize }> = PerCpuArray::new();

/// 0 to how closely connections are looked at. Written by userspace. Unwritten: none is sampled.
#[btf_map]
pub static MEASURING: Array<Measuring, 1> = Array::new();

/// ISP's number to what his connections saw, per CPU. Written here only.
#[btf_map]
pub static MEASURED: PerCpuArray<Measured, { MAX_ISPS as usize }> = PerCpuArray::new();

/// Sampled connections to what they had sent. Written here only, goes with the socket; bounded by the share that is sampled.
#[btf_map]
pub static SAMPLED: SkStorage<Sampled> = SkStorage::new();

/// Generation to what its place holds, and how often that changed. Userspace's own.
#[btf_map]
pub static SETS: Array<u64, PLACES> = Array::new();

/// 0 to the packet that this CPU judges: it would take an eighth of the stack, which is short. Written and read here only.
#[btf_map]
pub static PACKET: PerCpuArray<Packet, 1> = PerCpuArray::new();

/// Number to a rule's comment. Userspace's own: it stands here so that it lives as long as the rules.
#[btf_map]
pub static COMMENTS: HashMap<u32, [u8; COMMENT_BYTES], { MAX_COMMENTS as usize }, ON_DEMAND> = HashMap::new();
