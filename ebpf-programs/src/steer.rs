//! Which shard gets a new connection: one of the CPU that it came in on, unless those are full, draining, or crowded.
//!
//! It runs once for each SYN, and again for a connection whose listener went away before it was accepted. It does not look
//! at the packet, and keeps nothing of the connection. When a table lacks an entry, the kernel's own hash decides.

use core::{ffi::c_void, ptr};

use abi::steer::{
    ALL, CHOICES, CROWD, Choice, MAX_CPUS, MAX_PLACES, MAX_SHARDS, Place, ShardState, ShardWord, Span, slot,
};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, bpf_sock, sk_action, sk_reuseport_md},
    btf_maps::{Array, HashMap, PerCpuArray, reuseport_sock_array::ReusePortSockArrayImpl},
    helpers::generated::{bpf_get_smp_processor_id, bpf_loop, bpf_sk_select_reuseport},
    macros::btf_map,
    programs::SkReuseportContext,
};

const AF_INET: u32 = 2;

/// Address and shard to listening socket. Filled by the shards, emptied by the kernel. The values are 64 bits wide so that
/// userspace can see which are there. Missing: the next shard is tried.
#[btf_map]
pub static STEER_SOCKETS: ReusePortSockArrayImpl<u64, { (MAX_PLACES * MAX_SHARDS) as usize }> =
    ReusePortSockArrayImpl::new();

/// Listening address to its number. Written by the shards. Missing: the kernel's hash.
#[btf_map]
pub static STEER_PLACES: HashMap<Place, u32, { MAX_PLACES as usize }> = HashMap::new();

/// Shard to its word. Each shard writes its own, through a mapping. Unwritten: gone.
#[btf_map]
pub static STEER_SHARDS: Array<ShardWord, { MAX_SHARDS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// CPU to its shards, and at `ALL` all of them. Written by userspace before the program is attached. Unwritten: none.
#[btf_map]
pub static STEER_CPUS: Array<Span, { ALL as usize + 1 }> = Array::new();

/// As `STEER_CPUS`.
#[btf_map]
pub static STEER_ORDER: Array<u32, { MAX_SHARDS as usize }> = Array::new();

/// Choice to how often, per CPU. Written here only.
#[btf_map]
pub static STEER_COUNTS: PerCpuArray<u64, { CHOICES as usize }> = PerCpuArray::new();

/// 0 to the number of choices made on the CPU. Written here only.
#[btf_map]
pub static STEER_TURNS: PerCpuArray<u32, 1> = PerCpuArray::new();

const _: () = assert!(MAX_CPUS == ALL);

/// Selects a socket, or leaves it to the kernel (`SK_PASS` without one), or refuses (`SK_DROP`).
#[inline(always)]
pub fn steer(ctx: &SkReuseportContext) -> u32 {
    let migrates = ctx.migrating_sk().is_some();
    if migrates {
        count(Choice::Migrated);
    }
    let mut choice = place_of(ctx).map_or(Choice::FellBack, |place| choose(ctx, place));
    // A connection that stands is never thrown away here; whoever still listens may have it.
    if migrates && choice as u32 == Choice::Refused as u32 {
        choice = Choice::FellBack;
    }
    count(choice);
    match choice {
        Choice::Refused => sk_action::SK_DROP,
        _ => sk_action::SK_PASS,
    }
}

#[inline(always)]
fn choose(ctx: &SkReuseportContext, place: u32) -> Choice {
    // SAFETY: the helper takes nothing and cannot fail.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let (Some(all), Some(turn)) = (span(ALL), next_turn()) else { return Choice::FellBack };
    let own = if cpu < MAX_CPUS { span(cpu) } else { None };
    if let Some(own) = own
        && let Some((shard, load)) = lighter(own, turn, ctx.hash())
    {
        if let Some((elsewhere, less)) = open_at(all, turn)
            && load / 2 > less.saturating_add(CROWD)
            && select(ctx.md, place, elsewhere)
        {
            return Choice::Crowded;
        }
        if select(ctx.md, place, shard) {
            return Choice::Own;
        }
    }
    if let Some(own) = own
        && let Found::Shard = search(ctx, place, own, turn)
    {
        return Choice::Own;
    }
    match search(ctx, place, all, turn) {
        Found::Shard => Choice::Other,
        Found::AllDrain => Choice::Refused,
        Found::Nobody => Choice::FellBack,
    }
}

/// Of the shard whose turn it is and one that the hash names, the open one with fewer connections. Turns alone would spread
/// what comes, but not make up for what goes.
#[inline(always)]
fn lighter(span: Span, turn: u32, hash: u32) -> Option<(u32, u32)> {
    match (open_at(span, turn), open_at(span, hash)) {
        (Some(first), Some(second)) => Some(if second.1 < first.1 { second } else { first }),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => None,
    }
}

/// The shard at `position`, counted round, with its load, if it is open.
#[inline(always)]
fn open_at(span: Span, position: u32) -> Option<(u32, u32)> {
    let shard = shard_at(span, position)?;
    let word = word_of(shard)?;
    (word.state == ShardState::Open as u32).then_some((shard, word.load))
}

/// How a search for a shard ends.
enum Found {
    Shard,
    /// Nobody takes any, and nobody will again.
    AllDrain,
    Nobody,
}

/// A search under way, in the way that the kernel's loop hands it on.
#[repr(C)]
struct Search {
    ctx: *mut sk_reuseport_md,
    place: u32,
    span: Span,
    /// Where it begins.
    position: u32,
    found: bool,
    all_drain: bool,
}

/// Goes round from `position` until a shard takes it. In the kernel's own loop, whose body the verifier walks once: it took
/// 163,000 steps over a plain one of 64 turns.
#[inline(always)]
fn search(ctx: &SkReuseportContext, place: u32, span: Span, position: u32) -> Found {
    let mut search = Search { ctx: ctx.md, place, span, position, found: false, all_drain: true };
    let count = if span.count < MAX_SHARDS { span.count } else { MAX_SHARDS };
    // SAFETY: the loop calls `step` with what is on this stack, and has ended when the call returns.
    unsafe { bpf_loop(count, step as *mut c_void, (&raw mut search).cast(), 0) };
    match search {
        Search { found: true, .. } => Found::Shard,
        Search { all_drain: true, .. } if count > 0 => Found::AllDrain,
        _ => Found::Nobody,
    }
}

/// One step; 1 ends the loop.
///
/// # Safety
///
/// `search` is that of the loop's caller.
unsafe extern "C" fn step(step: u32, search: *mut Search) -> i64 {
    // SAFETY: the caller's, which nobody else touches while the loop runs.
    let search = unsafe { &mut *search };
    let shard = shard_at(search.span, search.position.wrapping_add(step));
    let Some((shard, word)) = shard.and_then(|shard| Some((shard, word_of(shard)?))) else {
        search.all_drain = false;
        return 1;
    };
    if word.state == ShardState::Open as u32 && select(search.ctx, search.place, shard) {
        search.found = true;
        return 1;
    }
    if word.state != ShardState::Draining as u32 {
        search.all_drain = false;
    }
    0
}

#[inline(always)]
fn shard_at(span: Span, position: u32) -> Option<u32> {
    if span.count == 0 {
        return None;
    }
    STEER_ORDER.get(span.first.wrapping_add(position % span.count)).copied()
}

#[inline(always)]
fn word_of(shard: u32) -> Option<ShardWord> {
    let word = STEER_SHARDS.get_ptr(shard)?.cast::<u64>();
    // SAFETY: the word is 8 bytes, 8-byte aligned, and any bytes are one; read at once because its shard writes it meanwhile.
    Some(unsafe { core::mem::transmute::<u64, ShardWord>(word.read_volatile()) })
}

#[inline(always)]
fn span(cpu: u32) -> Option<Span> {
    STEER_CPUS.get(cpu).copied()
}

#[inline(always)]
fn next_turn() -> Option<u32> {
    let turn = STEER_TURNS.get_ptr_mut(0)?;
    // SAFETY: this CPU's own entry; an interrupt in between has two connections share a turn, which harms nobody.
    unsafe {
        let now = turn.read();
        turn.write(now.wrapping_add(1));
        Some(now)
    }
}

/// Whether the shard's socket on this address is there and is now the chosen one.
#[inline(always)]
fn select(ctx: *mut sk_reuseport_md, place: u32, shard: u32) -> bool {
    let mut key = slot(place, shard);
    let sockets = (&raw const STEER_SOCKETS).cast_mut().cast();
    // SAFETY: the context and the map are what the helper asks for, and the key outlives the call.
    unsafe { bpf_sk_select_reuseport(ctx, sockets, (&raw mut key).cast(), 0) == 0 }
}

/// The number of the address that this group of sockets listens on.
#[inline(always)]
fn place_of(ctx: &SkReuseportContext) -> Option<u32> {
    let socket = ctx.sk().sock;
    // SAFETY: the verifier knows this pointer as a socket's. Volatile, word by word: it lets no two be read at once.
    let place = unsafe {
        let read = |word: *const u32| word.read_volatile();
        let family = read(&raw const (*socket).family);
        let address =
            if family == AF_INET { [read(&raw const (*socket).src_ip4), 0, 0, 0] } else { address_v6(socket) };
        Place { address, port: read(&raw const (*socket).src_port), family }
    };
    // SAFETY: entries are written whole before the program is attached and never changed.
    unsafe { STEER_PLACES.get(&place) }.copied().filter(|place| *place < MAX_PLACES)
}

/// # Safety
///
/// `socket` is one that the verifier knows.
#[inline(always)]
unsafe fn address_v6(socket: *const bpf_sock) -> [u32; 4] {
    // SAFETY: the caller vouches for the socket.
    unsafe {
        let words = ptr::addr_of!((*socket).src_ip6).cast::<u32>();
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}

#[inline(always)]
fn count(choice: Choice) {
    if let Some(counter) = STEER_COUNTS.get_ptr_mut(choice as u32) {
        // SAFETY: this CPU's own entry; an interrupt in between may cost a count.
        unsafe { counter.write(counter.read().wrapping_add(1)) };
    }
}
