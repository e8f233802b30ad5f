//! What one source may do, in the operator's numbers.

use abi::limits::{self, Limits, mask};
use serde::{Deserialize, Serialize};

use crate::kernel::error::KernelError;

/// What one source may do to the protected ports. Zero: as much as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceLimits {
    /// Packets per second.
    pub packets_per_s: u32,
    /// Packets at once. 0: those of a second.
    pub packet_burst: u32,
    /// New connections per second.
    pub connects_per_s: u32,
    /// New connections at once. 0: those of a second.
    pub connect_burst: u32,
    /// Connections open at the same time.
    pub open_connections: u32,
    /// Bits of an IPv4 address that make a source.
    pub ipv4_bits: u16,
    /// Bits of an IPv6 address that make a source.
    pub ipv6_bits: u16,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            packets_per_s: 0,
            packet_burst: 0,
            connects_per_s: 0,
            connect_burst: 0,
            open_connections: 0,
            ipv4_bits: limits::V4_BITS,
            ipv6_bits: limits::V6_BITS,
        }
    }
}

impl SourceLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.packets_per_s == 0 && self.connects_per_s == 0 && self.open_connections == 0
    }

    /// Says what is wrong with the numbers.
    pub fn validate(&self) -> Result<(), KernelError> {
        let wrong = |what: String| Err(KernelError::Limits(what));
        if self.ipv4_bits == 0 || self.ipv4_bits > 32 {
            return wrong(format!("ipv4_bits = {}: a source is 1 to 32 bits wide", self.ipv4_bits));
        }
        if self.ipv6_bits == 0 || self.ipv6_bits > 128 {
            return wrong(format!("ipv6_bits = {}: a source is 1 to 128 bits wide", self.ipv6_bits));
        }
        for (burst, rate, name) in
            [(self.packet_burst, self.packets_per_s, "packet"), (self.connect_burst, self.connects_per_s, "connect")]
        {
            if burst != 0 && rate == 0 {
                return wrong(format!("{name}_burst = {burst} without {name}s_per_s limits nothing"));
            }
        }
        Ok(())
    }

    pub(super) fn to_kernel(self) -> Limits {
        let (packet_interval_ns, packet_credit_ns) = cells(self.packets_per_s, self.packet_burst);
        let (connect_interval_ns, connect_credit_ns) = cells(self.connects_per_s, self.connect_burst);
        Limits {
            packet_interval_ns,
            packet_credit_ns,
            connect_interval_ns,
            connect_credit_ns,
            packets_per_s: self.packets_per_s,
            packet_burst: self.packet_burst,
            connects_per_s: self.connects_per_s,
            connect_burst: self.connect_burst,
            most_open: self.open_connections,
            v4_bits: self.ipv4_bits,
            v6_bits: self.ipv6_bits,
            v4_mask: mask(self.ipv4_bits),
            remember: 0,
            v6_mask: mask(self.ipv6_bits),
        }
    }

    /// A rule set that nobody wrote limits to has the usual widths.
    pub(super) fn from_kernel(limits: &Limits) -> Self {
        let or = |bits: u16, usual: u16| if bits == 0 { usual } else { bits };
        Self {
            packets_per_s: limits.packets_per_s,
            packet_burst: limits.packet_burst,
            connects_per_s: limits.connects_per_s,
            connect_burst: limits.connect_burst,
            open_connections: limits.most_open,
            ipv4_bits: or(limits.v4_bits, limits::V4_BITS),
            ipv6_bits: or(limits.v6_bits, limits::V6_BITS),
        }
    }
}

/// Interval of a rate, and how far it may run ahead.
fn cells(per_s: u32, burst: u32) -> (u64, u64) {
    if per_s == 0 {
        return (0, 0);
    }
    let burst = u64::from(if burst == 0 { per_s } else { burst });
    let interval_ns = 1_000_000_000 / u64::from(per_s);
    (interval_ns.max(1), burst.saturating_mul(interval_ns.max(1)))
}
