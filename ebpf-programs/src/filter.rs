//! The verdict on one frame, and its count.
//!
//! In this order: the kill switch, what is not ours to judge, management, malformed, the host's rule, the longest prefix's
//! rule, pass. It does not parse: `packet` did.

use abi::{
    rules::{self, DENY, MAX_EXPIRED_STEPS, V4, V6},
    settings::{OBSERVE, PASS_EVERYTHING, Settings},
    verdict::{REASONS, Reason, Verdict},
};
use aya_ebpf::{
    EbpfContext as _,
    btf_maps::{LpmTrie, lpm_trie::Key},
    helpers::{bpf_ktime_get_boot_ns, bpf_xdp_get_buff_len},
    programs::XdpContext,
};

use crate::{
    maps::{
        COUNTS, HOSTS_V4, HOSTS_V6, MANAGEMENT_V4, MANAGEMENT_V6, PREFIXES_V4, PREFIXES_V6, PROTECTED, Rule, SETTINGS,
    },
    packet::{Frame, Packet, Source, Transport, parse},
};

/// Judges the frame and counts it.
#[inline(always)]
pub fn judge(ctx: &XdpContext) -> Verdict {
    // SAFETY: the helper only reads the context that the kernel gave us.
    let bytes = unsafe { bpf_xdp_get_buff_len(ctx.as_ptr().cast()) };
    let settings = SETTINGS.get(0);
    let reason = match settings {
        Some(settings) if settings.kill_switch == PASS_EVERYTHING => Reason::KillSwitch,
        _ => match parse(&Frame::of(ctx)) {
            Ok(packet) => decide(&packet, bytes),
            Err(reason) => reason,
        },
    };
    carry_out(reason, settings, bytes)
}

/// What the reason asks for, unless we only observe.
#[inline(always)]
fn carry_out(reason: Reason, settings: Option<&Settings>, bytes: u64) -> Verdict {
    let observed =
        reason.verdict() == Verdict::Drop && matches!(settings, Some(settings) if settings.observe == OBSERVE);
    let place = if observed { reason as u32 + REASONS } else { reason as u32 };
    if let Some(counter) = COUNTS.get_ptr_mut(place) {
        // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
    if observed { Verdict::Pass } else { reason.verdict() }
}

#[inline(always)]
fn decide(packet: &Packet, bytes: u64) -> Reason {
    let fault = match packet.transport {
        Transport::Other => return Reason::NotProtected,
        Transport::LaterFragment => return Reason::LaterFragment,
        Transport::Tcp { port, .. } if !is_protected(port) => return Reason::NotProtected,
        Transport::Tcp { fault, .. } => fault,
        Transport::Unknown(fault) => Some(fault),
    };
    if is_management(&packet.source) {
        return Reason::Management;
    }
    if let Some(fault) = fault {
        return fault;
    }
    match find_rule(&packet.source) {
        Some(rule) => {
            rule.hit(bytes);
            if rule.action() == DENY { Reason::Denied } else { Reason::Allowed }
        }
        None => Reason::NoRule,
    }
}

#[inline(always)]
fn is_protected(port: u16) -> bool {
    let (word, bit) = abi::maps::port_bit(port);
    matches!(PROTECTED.get(word), Some(ports) if ports & bit != 0)
}

#[inline(always)]
fn is_management(source: &Source) -> bool {
    match source {
        Source::V4(address) => MANAGEMENT_V4.get(&Key::new(V4_BITS, rules::v4_in_trie(*address))).is_some(),
        Source::V6(address) => MANAGEMENT_V6.get(&Key::new(V6_BITS, *address)).is_some(),
    }
}

/// The rule that decides about `source`: its own, else the one of the longest prefix, expired ones aside.
#[inline(always)]
fn find_rule(source: &Source) -> Option<&'static Rule> {
    match source {
        Source::V4(address) => host_v4(address).or_else(|| longest(&PREFIXES_V4, V4_BITS, rules::v4_in_trie(*address))),
        Source::V6(address) => host_v6(address).or_else(|| longest(&PREFIXES_V6, V6_BITS, *address)),
    }
}

#[inline(always)]
fn host_v4(address: &V4) -> Option<&'static Rule> {
    // SAFETY: a map value lives until the program's RCU section ends, that is, as long as this program runs; a removed value
    // that is reused meanwhile costs one misjudged packet, never memory.
    unsafe { HOSTS_V4.get(address) }.filter(|rule| !has_expired(rule))
}

#[inline(always)]
fn host_v6(address: &V6) -> Option<&'static Rule> {
    // SAFETY: as in `host_v4`.
    unsafe { HOSTS_V6.get(address) }.filter(|rule| !has_expired(rule))
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
    // SAFETY: the helper takes nothing and reads a clock.
    expires_ns != 0 && unsafe { bpf_ktime_get_boot_ns() } >= expires_ns
}

const V4_BITS: u32 = 32;
const V6_BITS: u32 = 128;
