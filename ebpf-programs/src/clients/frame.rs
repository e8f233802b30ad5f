//! One parse of a frame into one struct.
//!
//! The server's kernel sends plain frames: no VLAN tag, no IPv4 options, no extension headers. So the headers have one
//! length for each family, which is the parameter `HEADERS` here and elsewhere: Ethernet, IP and the fixed part of TCP.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

pub const ETHERNET_BYTES: usize = 14;
pub const TCP_BYTES: usize = 20;
/// Headers of an IPv4 frame.
pub const IPV4_HEADERS: usize = ETHERNET_BYTES + 20 + TCP_BYTES;
/// Headers of an IPv6 frame.
pub const IPV6_HEADERS: usize = ETHERNET_BYTES + 40 + TCP_BYTES;

const TCP: u8 = 6;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// A TCP segment from the server.
pub struct Segment<const HEADERS: usize> {
    /// As they came.
    pub headers: [u8; HEADERS],
    /// Length of the frame.
    pub frame_bytes: u32,
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    /// Where what it carries begins in the frame.
    pub payload_at: u32,
    pub payload_bytes: u32,
}

/// Why a frame is no segment.
pub enum NoSegment {
    /// It is something else.
    NotTcp,
    /// Its headers contradict each other, or it is cut off.
    Malformed,
}

/// The `T` at `offset`, when it is wholly inside. The one way from an offset to a pointer, in the form that the verifier
/// follows: the same sum is compared with the end and then used.
#[inline(always)]
pub fn ptr_at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() { None } else { Some(start as *mut T) }
}

/// Copies `length` bytes at `offset` to the start of `bytes`. False when it is none, or more than there is room for, or not
/// all there.
#[inline(always)]
pub fn load_into<const N: usize>(ctx: &XdpContext, offset: u32, bytes: &mut [u8; N], length: u32) -> bool {
    // Hidden, or the compiler moves the comparison to what `length` was made of, where the verifier learns nothing from it.
    let length = core::hint::black_box(length);
    if length == 0 || length > N as u32 {
        return false;
    }
    // SAFETY: `bytes` holds `length` bytes; the verifier checks it once more, and the kernel the frame's end.
    unsafe { bpf_xdp_load_bytes(raw(ctx), offset, bytes.as_mut_ptr().cast(), length) == 0 }
}

/// The context as the helpers want it.
#[inline(always)]
pub fn raw(ctx: &XdpContext) -> *mut xdp_md {
    ctx.ctx
}

/// What the frame carries.
#[inline(always)]
pub fn ethertype(ctx: &XdpContext) -> Option<u16> {
    // SAFETY: `ptr_at` checked that both bytes are inside the frame, and bytes have no alignment.
    ptr_at::<[u8; 2]>(ctx, ETHERNET_BYTES - 2).map(|bytes| u16::from_be_bytes(unsafe { *bytes }))
}

impl<const HEADERS: usize> Segment<HEADERS> {
    /// Where TCP begins.
    pub const TCP_AT: usize = HEADERS - TCP_BYTES;

    #[inline(always)]
    pub fn parse(ctx: &XdpContext) -> Result<Self, NoSegment> {
        let ip = ETHERNET_BYTES;
        let protocol_at = ip + if HEADERS == IPV4_HEADERS { 9 } else { 6 };
        // SAFETY: `ptr_at` checked that the byte is inside the frame.
        let protocol = ptr_at::<u8>(ctx, protocol_at).map(|byte| unsafe { *byte });
        if protocol.is_some_and(|protocol| protocol != TCP) {
            return Err(NoSegment::NotTcp);
        }
        // SAFETY: `ptr_at` checked that all bytes are inside the frame, and bytes have no alignment.
        let headers = ptr_at::<[u8; HEADERS]>(ctx, 0).map(|bytes| unsafe { *bytes }).ok_or(NoSegment::Malformed)?;
        // SAFETY: the helper only reads the context that the kernel gave us.
        let frame_bytes = unsafe { bpf_xdp_get_buff_len(raw(ctx)) } as u32;
        // What IP says that it carries.
        let carried = if HEADERS == IPV4_HEADERS {
            let is_fragment = (headers[ip + 6] & 0x3f) | headers[ip + 7] != 0;
            if headers[ip] != 0x45 || is_fragment {
                return Err(NoSegment::Malformed);
            }
            u32::from(half(&headers, ip + 2)).wrapping_sub(20)
        } else {
            u32::from(half(&headers, ip + 4))
        };
        let tcp = Self::TCP_AT;
        let header_bytes = u32::from(headers[tcp + 12] >> 4) * 4;
        if header_bytes < TCP_BYTES as u32 || header_bytes > carried || carried > frame_bytes - tcp as u32 {
            return Err(NoSegment::Malformed);
        }
        Ok(Self {
            frame_bytes,
            sequence: whole(&headers, tcp + 4),
            acknowledged: whole(&headers, tcp + 8),
            flags: headers[tcp + 13],
            payload_at: tcp as u32 + header_bytes,
            payload_bytes: carried - header_bytes,
            headers,
        })
    }

    /// Low 32 bits of the address that it goes to.
    #[inline(always)]
    pub fn destination_low(&self) -> u32 {
        whole(&self.headers, Self::TCP_AT - 4)
    }

    /// The port that it goes to.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        half(&self.headers, Self::TCP_AT + 2)
    }

    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The big-endian number at `at`.
#[inline(always)]
pub fn whole<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn half<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
