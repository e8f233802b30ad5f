//! The verdict on one frame, and its count.
//!
//! In this order: the kill switch, what is not ours to judge, management, the host's rule, the longest prefix's rule, the limits of
//! the source, sane headers, the ISP's ingress rate, pass. It does not parse: `packet` did.

use abi::{
    rules::{self, DENY},
    settings::{DROP_FRAGMENTS, OBSERVE, PASS_EVERYTHING, Settings},
    verdict::{REASONS, Reason, Verdict},
};
use aya_ebpf::{EbpfContext as _, btf_maps::lpm_trie::Key, helpers::bpf_xdp_get_buff_len, programs::XdpContext};

use crate::{
    clock, events,
    guarded::{is_guarded, is_protected},
    isps, limits,
    maps::{COUNTS, MANAGEMENT_V4, MANAGEMENT_V6, SETTINGS},
    packet::{Address, Frame, Packet, Transport, parse},
    rules::{V4_BITS, V6_BITS, find_rule},
    trace,
};

/// Judges the frame and counts it.
#[inline(always)]
pub fn judge(ctx: &XdpContext) -> Verdict {
    // SAFETY: the helper only reads the context that the kernel gave us.
    let bytes = unsafe { bpf_xdp_get_buff_len(ctx.as_ptr().cast()) };
    let Some(settings) = SETTINGS.get(0) else { return Verdict::Pass };
    if settings.kill_switch == PASS_EVERYTHING {
        return carry_out(ctx, Reason::KillSwitch, settings, None, bytes);
    }
    match parse(&Frame::of(ctx)) {
        Ok(packet) => carry_out(ctx, decide(&packet, settings, bytes), settings, Some(&packet), bytes),
        Err(reason) => carry_out(ctx, reason, settings, None, bytes),
    }
}

/// What the reason asks for, unless we only observe.
#[inline(always)]
fn carry_out(ctx: &XdpContext, reason: Reason, settings: &Settings, packet: Option<&Packet>, bytes: u64) -> Verdict {
    let is_drop = reason.verdict() == Verdict::Drop;
    let observed = is_drop && settings.observe == OBSERVE;
    let place = if observed { reason as u32 + REASONS } else { reason as u32 };
    if let Some(counter) = COUNTS.get_ptr_mut(place) {
        // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
    if is_drop {
        events::tell(reason, observed, packet, bytes);
    }
    trace::verdict(ctx, reason, packet, bytes);
    if observed { Verdict::Pass } else { reason.verdict() }
}

#[inline(always)]
fn decide(packet: &Packet, settings: &Settings, bytes: u64) -> Reason {
    let (fault, is_connect) = match &packet.transport {
        Transport::Other => return Reason::NotProtected,
        Transport::Tcp(tcp) if !is_protected(tcp.port) => return Reason::NotProtected,
        Transport::Tcp(tcp) if tcp.first_fragment && settings.fragments == DROP_FRAGMENTS => {
            (Some(Reason::Fragment), false)
        }
        Transport::Tcp(tcp) => (tcp.fault, tcp.is_connect()),
        Transport::LaterFragment if settings.fragments == DROP_FRAGMENTS => (Some(Reason::Fragment), false),
        Transport::LaterFragment => return Reason::LaterFragment,
        Transport::Unknown(fault) => (Some(*fault), false),
    };
    if !is_guarded(settings, &packet.destination) {
        return Reason::NotProtected;
    }
    if is_management(&packet.source) {
        return Reason::Management;
    }
    let generation = clock::generation();
    let mut moment = clock::Moment::new();
    let rule = find_rule(generation, &packet.source);
    if let Some(rule) = rule {
        rule.hit(bytes);
        if rule.action() == DENY {
            return Reason::Denied;
        }
    } else if let Some(reason) = limits::exceeded(generation, &packet.source, is_connect, &mut moment) {
        return reason;
    }
    if let Some(fault) = fault {
        return fault;
    }
    if let Some(reason) = isps::exceeded(generation, &packet.source, bytes, &mut moment) {
        return reason;
    }
    if rule.is_some() { Reason::Allowed } else { Reason::NoRule }
}

#[inline(always)]
fn is_management(source: &Address) -> bool {
    match source {
        Address::V4(address) => MANAGEMENT_V4.get(&Key::new(V4_BITS, rules::v4_in_trie(*address))).is_some(),
        Address::V6(address) => MANAGEMENT_V6.get(&Key::new(V6_BITS, *address)).is_some(),
    }
}
