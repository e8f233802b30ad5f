//! One parse of a frame into one struct: who sent it, to whom, and which TCP port it wants.
//!
//! Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with up to `MAX_EXTENSION_HEADERS` extension headers, TCP.
//! Everything that could hide a port from us while the kernel's stack would still find it is a fault, not a pass:
//! too many extension headers, and fragments cut inside the TCP header. A fragment that is not the first names no port and
//! passes; without its first one, which is judged, the kernel never completes the packet.
//!
//! It does not: look into tunnels (GRE, IP in IP, ESP) or behind a third VLAN tag, verify checksums, or know which ports are
//! protected. Frame bytes are read through `ptr_at` alone.

use abi::{
    rules::{V4, V6},
    verdict::Reason,
};
use aya_ebpf::programs::{TcContext, XdpContext};

/// IPv6 extension headers walked before we give up. Real traffic carries none or one.
const MAX_EXTENSION_HEADERS: u32 = 8;
const MAX_VLAN_TAGS: u32 = 2;

const ETHERNET_BYTES: usize = 14;
const VLAN_BYTES: usize = 4;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Where the bytes of a frame begin and end, as addresses.
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame's first buffer: all of it, except for jumbo frames, whose headers it holds.
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    /// What is in one piece of a packet that leaves: all headers, of TCP that this host sends.
    #[inline(always)]
    pub fn leaving(ctx: &TcContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    /// The `T` at `offset`, when it is wholly inside. The one way from an offset to a pointer, in the form that the verifier follows:
    /// the same sum is compared with the end and then used.
    #[inline(always)]
    fn ptr_at<T>(&self, offset: usize) -> Option<*const T> {
        let start = self.start + offset;
        if start + size_of::<T>() > self.end { None } else { Some(start as *const T) }
    }

    /// A copy of the `N` bytes at `offset`.
    #[inline(always)]
    fn bytes_at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: `ptr_at` checked that all `N` bytes are inside the frame, and bytes have no alignment.
        self.ptr_at::<[u8; N]>(offset).map(|bytes| unsafe { *bytes })
    }
}

/// An address.
pub enum Address {
    /// IPv4.
    V4(V4),
    /// IPv6.
    V6(V6),
}

/// What is known of a TCP header.
pub struct Tcp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub port: u16,
    /// The flags of byte 13; 0 where the header is too short to have them.
    pub flags: u8,
    /// More fragments of the packet follow.
    pub first_fragment: bool,
    /// Why the header cannot be trusted.
    pub fault: Option<Reason>,
}

impl Tcp {
    /// It opens a connection, or answers to that.
    #[inline(always)]
    pub fn is_opening(&self) -> bool {
        self.flags & SYN != 0
    }

    /// It asks for a new connection.
    #[inline(always)]
    pub fn is_connect(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }
}

/// What the packet carries.
pub enum Transport {
    /// TCP, its ports at least.
    Tcp(Tcp),
    /// Something else, or nothing.
    Other,
    /// A fragment without ports.
    LaterFragment,
    /// It might be TCP to a protected port, and we cannot tell.
    Unknown(Reason),
}

/// What the filter needs to know of an IP packet.
pub struct Packet {
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// What it carries.
    pub transport: Transport,
}

/// `Err` when the frame has no source address to judge by: not IP (`NotProtected`), or cut off before it.
#[inline(always)]
pub fn parse(frame: &Frame) -> Result<Packet, Reason> {
    let (ethertype, offset) = ethernet(frame).ok_or(Reason::Truncated)?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset),
        ETHERTYPE_IPV6 => ipv6(frame, offset),
        _ => Err(Reason::NotProtected),
    }
}

/// The type of what the frame carries, and where that begins.
#[inline(always)]
fn ethernet(frame: &Frame) -> Option<(u16, usize)> {
    let mut offset = ETHERNET_BYTES;
    let mut ethertype = u16::from_be_bytes(frame.bytes_at(offset - 2)?);
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        ethertype = u16::from_be_bytes(frame.bytes_at(offset + 2)?);
        offset += VLAN_BYTES;
    }
    Some((ethertype, offset))
}

#[inline(always)]
fn ipv4(frame: &Frame, offset: usize) -> Result<Packet, Reason> {
    let header: [u8; IPV4_BYTES] = frame.bytes_at(offset).ok_or(Reason::Truncated)?;
    let source = Address::V4([header[12], header[13], header[14], header[15]]);
    let destination = Address::V4([header[16], header[17], header[18], header[19]]);
    let packet = |transport| Ok(Packet { source, destination, transport });

    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // A total of 0 is a local super-packet longer than the field can say (BIG TCP, generic mode); the stack checks it.
    if header[0] >> 4 != 4 || header_bytes < IPV4_BYTES || (total_bytes != 0 && total_bytes < header_bytes) {
        return packet(Transport::Unknown(Reason::BadIpHeader));
    }
    if header[9] != TCP {
        return packet(Transport::Other);
    }
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let more_fragments = flags_and_offset & 0x2000 != 0;
    let fragment_bytes = usize::from(flags_and_offset & 0x1fff) * 8;
    if fragment_bytes != 0 {
        return packet(later_fragment(fragment_bytes));
    }
    let carried_bytes = if total_bytes == 0 { None } else { Some(total_bytes - header_bytes) };
    packet(tcp(frame, offset + header_bytes, carried_bytes, more_fragments))
}

#[inline(always)]
fn ipv6(frame: &Frame, offset: usize) -> Result<Packet, Reason> {
    let header: [u8; IPV6_BYTES] = frame.bytes_at(offset).ok_or(Reason::Truncated)?;
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source.copy_from_slice(&header[8..24]);
    destination.copy_from_slice(&header[24..40]);
    let packet =
        |transport| Ok(Packet { source: Address::V6(source), destination: Address::V6(destination), transport });

    if header[0] >> 4 != 6 {
        return packet(Transport::Unknown(Reason::BadIpHeader));
    }
    // A length of 0 belongs to a jumbogram; the stack checks it.
    let payload_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload_start = offset + IPV6_BYTES;
    packet(walk_extension_headers(frame, header[6], payload_start, payload_bytes))
}

/// From the first next-header field to TCP, or to what it is instead.
#[inline(always)]
fn walk_extension_headers(frame: &Frame, first: u8, payload_start: usize, payload_bytes: usize) -> Transport {
    let mut next = first;
    let mut at = payload_start;
    let mut first_fragment = false;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        match next {
            TCP => {
                // Extension headers that run past the announced length leave nothing for TCP.
                let carried =
                    if payload_bytes == 0 { None } else { Some(payload_bytes.saturating_sub(at - payload_start)) };
                return tcp(frame, at, carried, first_fragment);
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT | AUTHENTICATION => {}
            _ => return Transport::Other,
        }
        let Some(header) = frame.bytes_at::<8>(at) else {
            return Transport::Unknown(cut_off(first_fragment));
        };
        if next == FRAGMENT {
            let offset_and_more = u16::from_be_bytes([header[2], header[3]]);
            let fragment_bytes = usize::from(offset_and_more & 0xfff8);
            if fragment_bytes != 0 {
                return if header[0] == TCP { later_fragment(fragment_bytes) } else { Transport::LaterFragment };
            }
            first_fragment |= offset_and_more & 1 != 0;
        }
        at += match next {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next = header[0];
    }
    Transport::Unknown(Reason::ExtensionHeaders)
}

/// TCP at `at`, of which the IP header promises `carried_bytes` (`None`: it does not say).
#[inline(always)]
fn tcp(frame: &Frame, at: usize, carried_bytes: Option<usize>, first_fragment: bool) -> Transport {
    let short = |needed| matches!(carried_bytes, Some(carried) if carried < needed);
    let ports = match frame.bytes_at::<4>(at) {
        Some(ports) if !short(4) => ports,
        _ => return Transport::Unknown(cut_off(first_fragment)),
    };
    let (flags, fault) = match frame.bytes_at::<TCP_BYTES>(at) {
        Some(header) if !short(TCP_BYTES) => {
            let header_bytes = usize::from(header[12] >> 4) * 4;
            let flags = header[13];
            let fault = if header_bytes < TCP_BYTES {
                Some(Reason::BadTcpHeader)
            } else if short(header_bytes) {
                Some(cut_off(first_fragment))
            } else if is_impossible(flags) {
                Some(Reason::BadTcpFlags)
            } else {
                None
            };
            (flags, fault)
        }
        _ => (0, Some(cut_off(first_fragment))),
    };
    Transport::Tcp(Tcp {
        source_port: u16::from_be_bytes([ports[0], ports[1]]),
        port: u16::from_be_bytes([ports[2], ports[3]]),
        flags,
        first_fragment,
        fault,
    })
}

/// Combinations that no state of RFC 9293 sends: SYN, FIN and RST exclude each other, and what is none of SYN, RST and ACK
/// (a FIN alone, nothing at all, all of FIN, PSH and URG) belongs to no connection. Scanners send them.
#[inline(always)]
fn is_impossible(flags: u8) -> bool {
    let lone = flags & (FIN | SYN | RST);
    lone & lone.wrapping_sub(1) != 0 || flags & (SYN | RST | ACK) == 0
}

/// A later TCP fragment that begins inside the TCP header could overwrite what was judged in the first.
#[inline(always)]
fn later_fragment(fragment_bytes: usize) -> Transport {
    if fragment_bytes < TCP_BYTES { Transport::Unknown(Reason::TinyFragment) } else { Transport::LaterFragment }
}

#[inline(always)]
fn cut_off(first_fragment: bool) -> Reason {
    if first_fragment { Reason::TinyFragment } else { Reason::Truncated }
}
