//! When a packet to an ISP's client may leave.
//!
//! Only TCP from the protected ports of protected addresses; everything else passes untouched, and so does what goes to
//! nobody's clients or to an ISP without an egress rate, but those are counted.
//!
//! Bytes are those on the wire: of an aggregate that the hardware will cut into segments, each segment's headers count.
//!
//! A refusal here is no loss: TCP is told at once, keeps the segment as unsent, and goes on slower. It is there for those
//! who send far more than the rate; the lanes of userspace do not.

use abi::{
    isps,
    settings::PASS_EVERYTHING,
    shaping::{CLASSES, MARK_AFTER_NS, OFF, ShapeCounter, Shaper, Shaping, class_of},
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_skb_ecn_set_ce,
    programs::TcContext,
};

use crate::{
    clock::{generation, monotonic_ns},
    counting::{replace, reserve},
    guarded::{is_guarded, is_protected},
    isps::isp_of,
    maps::{ISPS, SETTINGS, SHAPED, SHAPERS, SHAPING},
    packet::{Carries, Frame, Packet, parse},
};

/// What becomes of a packet under an egress rate.
enum Fate {
    /// It goes when it would have gone anyway.
    Now,
    /// It waits. Whether it was marked for that.
    Later(bool),
    /// It would have waited too long.
    Refused,
}

/// The verdict for the kernel's traffic control.
#[inline(always)]
pub fn shape(ctx: &TcContext) -> i32 {
    judge(ctx).unwrap_or(TC_ACT_UNSPEC)
}

/// `None`: not ours to judge.
#[inline(always)]
fn judge(ctx: &TcContext) -> Option<i32> {
    let shaping = SHAPING.get(0)?;
    let settings = SETTINGS.get(0)?;
    if shaping.backend == OFF || settings.kill_switch == PASS_EVERYTHING {
        return None;
    }
    let mut packet = Packet::unread();
    parse(&Frame::leaving(ctx), &mut packet).ok()?;
    if packet.transport.carries != Carries::Tcp
        || !is_protected(packet.transport.source_port)
        || !is_guarded(settings, &packet.source)
    {
        return None;
    }
    let generation = generation();
    let isp = isp_of(generation, &packet.destination);
    let skb = ctx.skb.skb;
    let bytes = wire_bytes(skb);
    let rate = &ISPS.get(isps::place(generation, isp))?.egress;
    let fate = if rate.bytes_per_s == 0 || packet.transport.is_opening() {
        // The first packet of a connection overtakes none of its own, and the kernel has nobody who would send it again soon.
        Fate::Now
    } else if shaping.backend == CLASSES {
        // SAFETY: the context lives as long as the program runs.
        unsafe { (*skb).priority = class_of(isp) };
        Fate::Now
    } else {
        depart(skb, SHAPERS.get_ptr_mut(isp)?, rate, bytes, shaping)
    };
    if let Some(counter) = SHAPED.get_ptr_mut(isp) {
        count(counter, &fate, segments(skb), bytes);
    }
    match fate {
        Fate::Refused => Some(TC_ACT_SHOT),
        _ => None,
    }
}

/// Gives the packet its departure time.
#[inline(always)]
fn depart(skb: *mut __sk_buff, shaper: *mut Shaper, rate: &isps::Rate, bytes: u64, shaping: &Shaping) -> Fate {
    let now_ns = monotonic_ns();
    // SAFETY: an array's entry lives as long as the program, its words are aligned; volatile because other CPUs write them.
    unsafe {
        let (at_ns, credit_ns) = (&raw mut (*shaper).at_ns, &raw mut (*shaper).credit_ns);
        let before_ns = credit_ns.read_volatile();
        if before_ns != rate.credit_ns && replace(credit_ns, before_ns, rate.credit_ns) {
            at_ns.write_volatile(Shaper::moved(at_ns.read_volatile(), before_ns, rate.credit_ns, now_ns));
        }
    }
    let most_ahead_ns = rate.credit_ns.saturating_add(shaping.horizon_ns);
    // SAFETY: as above.
    let start_ns = unsafe { reserve(&raw mut (*shaper).at_ns, now_ns, rate.ns_of(bytes), most_ahead_ns) };
    let Some(start_ns) = start_ns else { return Fate::Refused };
    let delay_ns = (start_ns - now_ns).saturating_sub(rate.credit_ns);
    if delay_ns == 0 {
        return Fate::Now;
    }
    // What TCP itself wants to send later than that goes later still. It does not push the others back: they go meanwhile.
    // SAFETY: as in `wire_bytes`.
    unsafe {
        if (*skb).tstamp < now_ns + delay_ns {
            (*skb).tstamp = now_ns + delay_ns;
        }
        // Says 1 when the packet bears the mark, 0 when its connection takes none.
        Fate::Later(delay_ns > MARK_AFTER_NS && bpf_skb_ecn_set_ce(skb) == 1)
    }
}

/// Bytes of the packet on the wire: the kernel counts them before egress programs run. 0 in a test run that does not say.
#[inline(always)]
fn wire_bytes(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the context lives as long as the program runs.
    let (wire_bytes, bytes) = unsafe { ((*skb).wire_len, (*skb).len) };
    if wire_bytes == 0 { bytes.into() } else { wire_bytes.into() }
}

/// Packets that this one is on the wire.
#[inline(always)]
fn segments(skb: *mut __sk_buff) -> u64 {
    // SAFETY: as in `wire_bytes`.
    let segments = unsafe { (*skb).gso_segs };
    if segments == 0 { 1 } else { u64::from(segments) }
}

#[inline(always)]
fn count(counter: *mut ShapeCounter, fate: &Fate, packets: u64, bytes: u64) {
    // SAFETY: this CPU's own slot, and egress programs run where no other can interrupt them on the same CPU.
    unsafe {
        if matches!(fate, Fate::Refused) {
            (*counter).dropped_packets += packets;
            (*counter).dropped_bytes += bytes;
            return;
        }
        (*counter).packets += packets;
        (*counter).bytes += bytes;
        if let Fate::Later(marked) = fate {
            (*counter).delayed_packets += packets;
            if *marked {
                (*counter).marked_packets += packets;
            }
        }
    }
}
