//! What became of a packet, and why: one enum for both sides, so that a counter's name is the same everywhere.

/// What the filter did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// On to the kernel's network stack.
    Pass,
    /// Gone, before a socket buffer was made for it.
    Drop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $verdict:ident, $name:literal;)+) => {
        /// Why a packet passed or was dropped; its number is its place in the counters.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: [Reason; REASONS as usize] = [$(Reason::$variant,)+];

            /// The name that operators, metrics and `--json` see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }

            /// What is done with a packet for this reason, when the filter enforces.
            #[inline(always)]
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $(Reason::$variant => Verdict::$verdict,)+ }
            }
        }

        /// How many reasons there are.
        pub const REASONS: u32 = [$($name),+].len() as u32;
    };
}

reasons! {
    /// The kill switch is on.
    KillSwitch = 0, Pass, "kill_switch";
    /// Not IPv4 or IPv6, not TCP, or a port that is not ours to guard.
    NotProtected = 1, Pass, "not_protected";
    /// From a management prefix.
    Management = 2, Pass, "management";
    /// An `allow` rule.
    Allowed = 3, Pass, "allowed";
    /// No rule speaks of this address, and it keeps the limits.
    NoRule = 4, Pass, "no_rule";
    /// A later fragment: it names no port. Its first fragment was judged, and without that one it comes to nothing.
    LaterFragment = 5, Pass, "later_fragment";
    /// A `deny` rule.
    Denied = 6, Drop, "denied";
    /// The frame or the IP length ends inside a header that it announces.
    Truncated = 7, Drop, "truncated";
    /// An IP header that contradicts itself: wrong version, a header length below its least, a total below its header.
    BadIpHeader = 8, Drop, "bad_ip_header";
    /// A TCP data offset below 5 words.
    BadTcpHeader = 9, Drop, "bad_tcp_header";
    /// A fragment cut so that the TCP header is not whole in the first one (RFC 1858, RFC 3128).
    TinyFragment = 10, Drop, "tiny_fragment";
    /// More IPv6 extension headers than we walk: the port stays unknown, and so would a way around the filter.
    ExtensionHeaders = 11, Drop, "extension_headers";
    /// TCP flags that no stack sends: none at all, SYN with FIN or RST, FIN with RST, FIN or URG or PSH without ACK.
    BadTcpFlags = 12, Drop, "bad_tcp_flags";
    /// Its source sends more packets than the limit.
    PacketRate = 13, Drop, "packet_rate";
    /// Its source opens connections faster than the limit.
    ConnectRate = 14, Drop, "connect_rate";
    /// Its source has as many connections open as the limit allows.
    OpenConnections = 15, Drop, "open_connections";
    /// Its ISP sends more than its ingress rate.
    IspPoliced = 16, Drop, "isp_policed";
    /// A fragment that could belong to a protected port, where fragments are not wanted.
    Fragment = 17, Drop, "fragment";
}

/// Entries of the counter map: one per reason for what was done, then one per reason for what would have been done while
/// the filter only observed.
pub const COUNTERS: u32 = REASONS * 2;

/// Packets and bytes of one reason on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Counter>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stands_at_its_own_number_and_has_its_own_name() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
            assert!(Reason::ALL[..place].iter().all(|other| other.name() != reason.name()));
        }
    }
}
