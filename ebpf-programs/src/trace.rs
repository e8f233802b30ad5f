//! A line of log per judged packet, for whoever looks for a fault in the programs. Off by default: the loader then sets the level
//! to nothing, and the verifier removes all of this. (`pushctl events` is for operators, and costs next to nothing.)

use abi::verdict::Reason;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;

use crate::packet::{Address, Packet, Transport};

/// Tells of a verdict. Reasons by number, as they stand in `abi::verdict`: text of several lengths would not get past the verifier.
#[inline(always)]
pub fn verdict(ctx: &XdpContext, reason: Reason, packet: Option<&Packet>, bytes: u64) {
    let reason = reason as u32;
    let Some(packet) = packet else {
        debug!(ctx, "reason {}: {} bytes without an address", reason, bytes);
        return;
    };
    let (port, flags) = match &packet.transport {
        Transport::Tcp(tcp) => (tcp.port, tcp.flags),
        _ => (0, 0),
    };
    match &packet.source {
        Address::V4(source) => {
            debug!(ctx, "reason {}: {:i} to port {}, flags {:x}, {} bytes", reason, *source, port, flags, bytes)
        }
        Address::V6(source) => {
            debug!(ctx, "reason {}: {:i} to port {}, flags {:x}, {} bytes", reason, *source, port, flags, bytes)
        }
    }
}
