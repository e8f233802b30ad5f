//! Tells a listener of drops, some of them.

use abi::{events::GAP_NS, verdict::Reason};

use crate::{
    clock::boot_ns,
    maps::{EVENTS, LISTENING, TELLING},
    packet::Packet,
};

/// Tells of a drop, if somebody listens and the last record of this CPU is long enough ago.
#[inline(always)]
pub fn tell(reason: Reason, observed: bool, packet: Option<&Packet>, bytes: u64) {
    let Some(until) = LISTENING.get_ptr_mut(0) else { return };
    // SAFETY: an array's entry lives as long as the program; volatile because userspace writes it.
    let until_ns = unsafe { until.read_volatile() };
    if until_ns == 0 {
        return;
    }
    let now_ns = boot_ns();
    if now_ns >= until_ns {
        // The listener went without a word. Putting it back spares the next drops the clock.
        // SAFETY: as above.
        unsafe { until.write_volatile(0) };
        return;
    }
    let Some(telling) = TELLING.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let telling = unsafe { &mut *telling };
    if now_ns - telling.last_ns < GAP_NS {
        telling.untold += 1;
        return;
    }
    let Some(mut record) = EVENTS.reserve(0) else {
        telling.untold += 1;
        return;
    };
    // Written where it will stand: a record on the stack would take an eighth of it.
    let event = record.as_mut_ptr();
    // SAFETY: the ring reserved a whole record, aligned to 8, and every field of it is written.
    unsafe {
        event.write_bytes(0, 1);
        (*event).at_ns = now_ns;
        (*event).bytes = bytes as u32;
        (*event).reason = reason as u32;
        (*event).untold = telling.untold;
        (*event).observed = observed as u8;
        if let Some(packet) = packet {
            (*event).source = packet.source.mapped();
            (*event).destination = packet.destination.mapped();
            (*event).source_port = packet.transport.source_port;
            (*event).port = packet.transport.port;
            (*event).tcp_flags = packet.transport.flags;
        }
    }
    record.submit(0);
    telling.last_ns = now_ns;
    telling.untold = 0;
}
