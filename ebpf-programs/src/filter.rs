//! The verdict on one frame, and its count.
//!
//! In this order: the kill switch, what is not ours to judge, management, the host's rule, the longest prefix's rule, the limits of
//! the source, sane headers, the ISP's ingress rate, pass. It does not parse: `packet` did.

use abi::{
    rules::{DENY, v4_in_trie},
    settings::{DROP_FRAGMENTS, OBSERVE, PASS_EVERYTHING, Settings},
    verdict::{REASONS, Reason, Verdict},
};
use aya_ebpf::{EbpfContext as _, btf_maps::lpm_trie::Key, helpers::bpf_xdp_get_buff_len, programs::XdpContext};

use crate::{
    clock, events,
    guarded::{is_guarded, is_protected},
    isps, limits,
    maps::{COUNTS, MANAGEMENT_V4, MANAGEMENT_V6, PACKET, SETTINGS},
    packet::{Address, Carries, Frame, Packet, parse},
    rules::{self, V4_BITS, V6_BITS},
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
    let Some(packet) = PACKET.get_ptr_mut(0) else { return Verdict::Pass };
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let packet = unsafe { &mut *packet };
    match parse(&Frame::of(ctx), packet) {
        Ok(()) => carry_out(ctx, decide(packet, settings, bytes), settings, Some(packet), bytes),
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
fn decide(packet: &mut Packet, settings: &Settings, bytes: u64) -> Reason {
    let transport = &packet.transport;
    let fragments_drop = settings.fragments == DROP_FRAGMENTS;
    let mut fault = transport.fault;
    match transport.carries {
        Carries::Other => return Reason::NotProtected,
        Carries::Tcp if !is_protected(transport.port) => return Reason::NotProtected,
        Carries::LaterFragment if !fragments_drop => return Reason::LaterFragment,
        Carries::LaterFragment => fault = Some(Reason::Fragment),
        Carries::Tcp if transport.first_fragment && fragments_drop => fault = Some(Reason::Fragment),
        Carries::Tcp | Carries::Unknown => {}
    }
    if !is_guarded(settings, &packet.destination) {
        return Reason::NotProtected;
    }
    if is_management(&packet.source) {
        return Reason::Management;
    }
    judge_source(packet, fault, bytes)
}

/// What the tables say of the source. The tries are the dear part, so they are asked once per source and edition.
#[inline(always)]
fn judge_source(packet: &mut Packet, fault: Option<Reason>, bytes: u64) -> Reason {
    let (generation, edition) = (clock::generation(), clock::edition());
    let mut moment = clock::Moment::new();
    let mut rule = rules::host(generation, &packet.source);
    let (mut limited, mut known) = (limits::UNLIMITED, None);
    if rule.is_none() {
        // In a flood of what prefixes deny nobody is remembered, and asking would only add to it.
        let is_flood = packet.denied_last;
        if !is_flood {
            limited = limits::recall(generation, packet);
            known = limited.known_isp(edition, generation);
        }
        if known.is_none() {
            rule = rules::prefix(generation, &packet.source);
        }
        packet.denied_last = matches!(rule, Some(rule) if rule.action() == DENY);
        if is_flood && rule.is_none() {
            limited = limits::recall(generation, packet);
            known = limited.known_isp(edition, generation);
        }
    }
    if let Some(rule) = rule {
        rule.hit(bytes);
        if rule.action() == DENY {
            return Reason::Denied;
        }
    } else if let Some(reason) = limited.exceeded(&packet.key, packet.transport.is_connect(), &mut moment) {
        return reason;
    }
    if let Some(fault) = fault {
        return fault;
    }
    let isp = match known {
        Some(isp) => isp,
        None => {
            let isp = isps::isp_of(generation, &packet.source);
            if rule.is_none() {
                limited.remember(&packet.key, edition, generation, isp);
            }
            isp
        }
    };
    if let Some(reason) = isps::exceeded(generation, isp, bytes, &mut moment) {
        return reason;
    }
    if rule.is_some() { Reason::Allowed } else { Reason::NoRule }
}

#[inline(always)]
fn is_management(source: &Address) -> bool {
    if source.is_v4 {
        MANAGEMENT_V4.get(&Key::new(V4_BITS, v4_in_trie(source.v4()))).is_some()
    } else {
        MANAGEMENT_V6.get(&Key::new(V6_BITS, source.v6())).is_some()
    }
}
