//! A line of log per judged packet, for whoever looks for a fault in the programs. Off by default: the loader then sets the level
//! to nothing, and the verifier removes all of this. (`pushctl events` is for operators, and costs next to nothing.)

use abi::verdict::Reason;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;

use crate::packet::Packet;

/// Tells of a verdict. Reasons by number, as they stand in `abi::verdict`: text of several lengths would not get past the verifier.
#[inline(always)]
pub fn verdict(ctx: &XdpContext, reason: Reason, packet: Option<&Packet>, bytes: u64) {
    let reason = reason as u32;
    let Some(packet) = packet else {
        debug!(ctx, "reason {}: {} bytes without an address", reason, bytes);
        return;
    };
    let (source, port, flags) = (&packet.source, packet.transport.port, packet.transport.flags);
    if source.is_v4 {
        debug!(ctx, "reason {}: {:i} to port {}, flags {:x}, {} bytes", reason, source.v4(), port, flags, bytes);
    } else {
        debug!(ctx, "reason {}: {:i} to port {}, flags {:x}, {} bytes", reason, source.v6(), port, flags, bytes);
    }
}
