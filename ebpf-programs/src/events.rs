//! Tells a listener of drops, some of them.

use abi::{
    events::{Event, GAP_NS},
    maps::v4_mapped,
    rules::V6,
    verdict::Reason,
};

use crate::{
    clock::boot_ns,
    maps::{EVENTS, LISTENING, TELLING},
    packet::{Address, Packet, Transport},
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
    record.write(event(reason, observed, packet, bytes, now_ns, telling.untold));
    record.submit(0);
    telling.last_ns = now_ns;
    telling.untold = 0;
}

#[inline(always)]
fn event(reason: Reason, observed: bool, packet: Option<&Packet>, bytes: u64, now_ns: u64, untold: u64) -> Event {
    let mut event = Event {
        at_ns: now_ns,
        bytes: bytes as u32,
        reason: reason as u32,
        untold,
        observed: observed as u8,
        ..Event::default()
    };
    if let Some(packet) = packet {
        event.source = mapped(&packet.source);
        event.destination = mapped(&packet.destination);
        if let Transport::Tcp(tcp) = &packet.transport {
            event.source_port = tcp.source_port;
            event.port = tcp.port;
            event.tcp_flags = tcp.flags;
        }
    }
    event
}

#[inline(always)]
fn mapped(address: &Address) -> V6 {
    match address {
        Address::V4(address) => v4_mapped(*address),
        Address::V6(address) => *address,
    }
}
