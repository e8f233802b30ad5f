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
    maps::v4_mapped,
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

/// An address. (One shape for both families: every byte of a value is written before it is moved, as the verifier wants.)
#[derive(Clone, Copy)]
pub struct Address {
    /// Whether it is IPv4, which stands in the first four bytes, zeros behind it.
    pub is_v4: bool,
    bytes: V6,
}

impl Address {
    /// An IPv4 address.
    #[inline(always)]
    pub fn of_v4(address: V4) -> Self {
        let word = u32::from_ne_bytes(address).to_le();
        Self { is_v4: true, bytes: u128::from(word).to_le_bytes() }
    }

    /// An IPv6 address.
    #[inline(always)]
    pub fn of_v6(address: V6) -> Self {
        Self { is_v4: false, bytes: address }
    }

    /// The IPv4 address that this is.
    #[inline(always)]
    pub fn v4(&self) -> V4 {
        [self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]]
    }

    /// The IPv6 address that this is.
    #[inline(always)]
    pub fn v6(&self) -> V6 {
        self.bytes
    }

    /// As an IPv6 address, IPv4 mapped.
    #[inline(always)]
    pub fn mapped(&self) -> V6 {
        if self.is_v4 { v4_mapped(self.v4()) } else { self.bytes }
    }

    /// Both of the same family, bit by bit.
    #[inline(always)]
    pub fn masked(&self, v4_mask: &V4, v6_mask: &V6) -> Self {
        if self.is_v4 {
            Self::of_v4((u32::from_ne_bytes(self.v4()) & u32::from_ne_bytes(*v4_mask)).to_ne_bytes())
        } else {
            Self::of_v6((u128::from_ne_bytes(self.bytes) & u128::from_ne_bytes(*v6_mask)).to_ne_bytes())
        }
    }
}

/// What a packet carries.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// TCP, its ports at least.
    Tcp,
    /// Something else, or nothing.
    Other,
    /// A fragment without ports.
    LaterFragment,
    /// It might be TCP to a protected port, and we cannot tell: the fault says why.
    Unknown,
}

/// What is known of a packet behind its IP header. Zeros where nothing is.
#[derive(Clone, Copy)]
pub struct Transport {
    /// What it is.
    pub carries: Carries,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub port: u16,
    /// The TCP flags of byte 13; 0 where the header is too short to have them.
    pub flags: u8,
    /// More fragments of the packet follow.
    pub first_fragment: bool,
    /// Why the header cannot be trusted.
    pub fault: Option<Reason>,
}

impl Transport {
    #[inline(always)]
    const fn without_ports(carries: Carries, fault: Option<Reason>) -> Self {
        Self { carries, source_port: 0, port: 0, flags: 0, first_fragment: false, fault }
    }

    #[inline(always)]
    const fn unknown(fault: Reason) -> Self {
        Self::without_ports(Carries::Unknown, Some(fault))
    }

    #[inline(always)]
    const fn other() -> Self {
        Self::without_ports(Carries::Other, None)
    }

    #[inline(always)]
    const fn later() -> Self {
        Self::without_ports(Carries::LaterFragment, None)
    }

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

/// What the filter needs to know of an IP packet.
pub struct Packet {
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// What it carries.
    pub transport: Transport,
    /// What the source is called where the limits know it (`limits` writes it).
    pub key: Address,
    /// Of the packet before on this CPU: whether a prefix's rule denied it.
    pub denied_last: bool,
}

impl Packet {
    /// One to read into.
    #[inline(always)]
    pub const fn unread() -> Self {
        const NOBODY: Address = Address { is_v4: false, bytes: [0; 16] };
        Self { source: NOBODY, destination: NOBODY, transport: Transport::other(), key: NOBODY, denied_last: false }
    }
}

/// Fills `packet`. `Err` when the frame has no source address to judge by: not IP (`NotProtected`), or cut off before it.
#[inline(always)]
pub fn parse(frame: &Frame, packet: &mut Packet) -> Result<(), Reason> {
    let (ethertype, offset) = ethernet(frame).ok_or(Reason::Truncated)?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset, packet),
        ETHERTYPE_IPV6 => ipv6(frame, offset, packet),
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
fn ipv4(frame: &Frame, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    let header: [u8; IPV4_BYTES] = frame.bytes_at(offset).ok_or(Reason::Truncated)?;
    packet.source = Address::of_v4([header[12], header[13], header[14], header[15]]);
    packet.destination = Address::of_v4([header[16], header[17], header[18], header[19]]);
    packet.transport = behind_ipv4(frame, &header, offset);
    Ok(())
}

#[inline(always)]
fn behind_ipv4(frame: &Frame, header: &[u8; IPV4_BYTES], offset: usize) -> Transport {
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // A total of 0 is a local super-packet longer than the field can say (BIG TCP, generic mode); the stack checks it.
    if header[0] >> 4 != 4 || header_bytes < IPV4_BYTES || (total_bytes != 0 && total_bytes < header_bytes) {
        return Transport::unknown(Reason::BadIpHeader);
    }
    if header[9] != TCP {
        return Transport::other();
    }
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let more_fragments = flags_and_offset & 0x2000 != 0;
    let fragment_bytes = usize::from(flags_and_offset & 0x1fff) * 8;
    if fragment_bytes != 0 {
        return later_fragment(fragment_bytes);
    }
    let carried_bytes = if total_bytes == 0 { None } else { Some(total_bytes - header_bytes) };
    tcp(frame, offset + header_bytes, carried_bytes, more_fragments)
}

#[inline(always)]
fn ipv6(frame: &Frame, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    let header: [u8; IPV6_BYTES] = frame.bytes_at(offset).ok_or(Reason::Truncated)?;
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source.copy_from_slice(&header[8..24]);
    destination.copy_from_slice(&header[24..40]);
    packet.source = Address::of_v6(source);
    packet.destination = Address::of_v6(destination);
    packet.transport = if header[0] >> 4 == 6 {
        // A length of 0 belongs to a jumbogram; the stack checks it.
        let payload_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
        walk_extension_headers(frame, header[6], offset + IPV6_BYTES, payload_bytes)
    } else {
        Transport::unknown(Reason::BadIpHeader)
    };
    Ok(())
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
            _ => return Transport::other(),
        }
        let Some(header) = frame.bytes_at::<8>(at) else {
            return Transport::unknown(cut_off(first_fragment));
        };
        if next == FRAGMENT {
            let offset_and_more = u16::from_be_bytes([header[2], header[3]]);
            let fragment_bytes = usize::from(offset_and_more & 0xfff8);
            if fragment_bytes != 0 {
                return if header[0] == TCP { later_fragment(fragment_bytes) } else { Transport::later() };
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
    Transport::unknown(Reason::ExtensionHeaders)
}

/// TCP at `at`, of which the IP header promises `carried_bytes` (`None`: it does not say).
#[inline(always)]
fn tcp(frame: &Frame, at: usize, carried_bytes: Option<usize>, first_fragment: bool) -> Transport {
    let short = |needed| matches!(carried_bytes, Some(carried) if carried < needed);
    let ports = match frame.bytes_at::<4>(at) {
        Some(ports) if !short(4) => ports,
        _ => return Transport::unknown(cut_off(first_fragment)),
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
    Transport {
        carries: Carries::Tcp,
        source_port: u16::from_be_bytes([ports[0], ports[1]]),
        port: u16::from_be_bytes([ports[2], ports[3]]),
        flags,
        first_fragment,
        fault,
    }
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
    if fragment_bytes < TCP_BYTES { Transport::unknown(Reason::TinyFragment) } else { Transport::later() }
}

#[inline(always)]
fn cut_off(first_fragment: bool) -> Reason {
    if first_fragment { Reason::TinyFragment } else { Reason::Truncated }
}
