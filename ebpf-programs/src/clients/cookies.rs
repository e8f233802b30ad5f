//! A prototype: what it would cost if XDP answered SYNs with the kernel's cookies. For the bench of the kernel plane alone.
//!
//! It knows IPv4 without options, and SYNs without options or with those that Linux sends, in Linux's order; the answer is then as
//! long as the SYN. It leaves everything else to the kernel, so what it costs is the least that such a program can.
//!
//! The kernel finds window scaling and SACK in the timestamp that comes back only when timestamps start at no random offset
//! (`net.ipv4.tcp_timestamps = 2`), and takes the ACK only of a listener that it saw overflow within two minutes: hence the SYNs that
//! are left to it. It needs Linux 6.0.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::{
        bpf_get_prandom_u32, bpf_ktime_get_ns,
        generated::{bpf_tcp_raw_gen_syncookie_ipv4, bpf_xdp_get_buff_len},
    },
    programs::XdpContext,
};

use crate::{
    frame::{ETHERNET_BYTES, ptr_at, raw},
    maps::REFUSED,
};

const IP: usize = ETHERNET_BYTES;
const IP_BYTES: usize = 20;
const TCP: usize = IP + IP_BYTES;
const PLAIN_BYTES: usize = 20;
const LINUX_BYTES: usize = 40;

/// The one that the bench floods.
const PORT: u16 = 3101;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// Every so many SYNs, one is the kernel's to answer.
const LEFT_TO_THE_KERNEL: u32 = 4096;

const MSS: u16 = 1460;
/// What the kernel will choose for the connection when the ACK comes, which `net.ipv4.tcp_rmem` and the listener's buffer decide. Userspace
/// writes it when it loads the object. Any other would garble every window that the server tells.
#[unsafe(no_mangle)]
static WINDOW_SCALE: u8 = 7;
/// How the kernel's cookies keep options in the lower bits of a timestamp.
const OPTION_BITS: u64 = 6;
const SACK: u64 = 1 << 4;

/// Answers a SYN, or leaves it to the kernel.
#[inline(always)]
pub fn answer(ctx: &XdpContext) -> u32 {
    let Some(headers) = ptr_at::<[u8; TCP + PLAIN_BYTES]>(ctx, 0) else { return XDP_PASS };
    // SAFETY: `ptr_at` checked that all bytes are inside the frame, and bytes have no alignment.
    let headers = unsafe { &*headers };
    let to_port = u16::from_be_bytes([headers[TCP + 2], headers[TCP + 3]]);
    if headers[12..14] != [0x08, 0x00] || headers[IP] != 0x45 || headers[IP + 9] != 6 || to_port != PORT {
        return XDP_PASS;
    }
    // SAFETY: the helper takes nothing and only gives a number.
    if headers[TCP + 13] & !0xc0 != SYN || unsafe { bpf_get_prandom_u32() } % LEFT_TO_THE_KERNEL == 0 {
        return XDP_PASS;
    }
    match usize::from(headers[TCP + 12] >> 4) * 4 {
        PLAIN_BYTES => turn_round::<PLAIN_BYTES, { TCP + PLAIN_BYTES }>(ctx),
        LINUX_BYTES => turn_round::<LINUX_BYTES, { TCP + LINUX_BYTES }>(ctx),
        _ => XDP_PASS,
    }
}

/// Makes the SYN its own answer.
#[inline(always)]
fn turn_round<const TCP_BYTES: usize, const FRAME_BYTES: usize>(ctx: &XdpContext) -> u32 {
    // SAFETY: the helper only reads the context that the kernel gave us.
    let frame_bytes = unsafe { bpf_xdp_get_buff_len(raw(ctx)) };
    let Some(place) = ptr_at::<[u8; FRAME_BYTES]>(ctx, 0) else { return XDP_PASS };
    if frame_bytes != FRAME_BYTES as u64 {
        return XDP_PASS;
    }
    // SAFETY: `ptr_at` checked that all bytes are inside the frame, which nobody else reads or writes meanwhile.
    let frame = unsafe { &mut *place };
    let has_options = TCP_BYTES == LINUX_BYTES;
    if has_options && !is_linux(frame) {
        return XDP_PASS;
    }
    // SAFETY: both headers are inside the frame, and the second is as long as is said.
    let cookie = unsafe {
        bpf_tcp_raw_gen_syncookie_ipv4(
            frame.as_mut_ptr().add(IP).cast(),
            frame.as_mut_ptr().add(TCP).cast(),
            TCP_BYTES as u32,
        )
    };
    if cookie < 0 {
        return XDP_DROP;
    }
    swap::<6>(frame, 0, 6);
    swap::<4>(frame, IP + 12, IP + 16);
    swap::<2>(frame, TCP, TCP + 2);
    frame[IP + 1] = 0;
    frame[IP + 8] = 64;
    put(frame, IP + 10, [0, 0]);
    let ip = fold(sum(frame, IP, IP_BYTES));
    put(frame, IP + 10, (!ip).to_be_bytes());

    let sequence = u32::from_be_bytes([frame[TCP + 4], frame[TCP + 5], frame[TCP + 6], frame[TCP + 7]]);
    put(frame, TCP + 4, (cookie as u32).to_be_bytes());
    put(frame, TCP + 8, sequence.wrapping_add(1).to_be_bytes());
    frame[TCP + 13] = SYN_ACK;
    put(frame, TCP + 14, [0xff, 0xff]);
    put(frame, TCP + 16, [0; 4]);
    if has_options {
        answer_options(frame);
    }
    let pseudo_header = sum(frame, IP + 12, 8) + 6 + TCP_BYTES as u32;
    let tcp = fold(sum(frame, TCP, TCP_BYTES) + pseudo_header);
    put(frame, TCP + 16, (!tcp).to_be_bytes());
    XDP_TX
}

/// MSS, SACK permitted, timestamps, one of padding, window scaling.
#[inline(always)]
fn is_linux(frame: &[u8]) -> bool {
    const OPTIONS: usize = TCP + PLAIN_BYTES;
    frame[OPTIONS..OPTIONS + 2] == [2, 4]
        && frame[OPTIONS + 4..OPTIONS + 8] == [4, 2, 8, 10]
        && frame[OPTIONS + 16..OPTIONS + 19] == [1, 3, 3]
}

/// The same options as they are answered, with what the client asked for in the timestamp that it will send back.
#[inline(always)]
fn answer_options(frame: &mut [u8]) {
    const OPTIONS: usize = TCP + PLAIN_BYTES;
    put(frame, OPTIONS + 2, MSS.to_be_bytes());
    let theirs = [frame[OPTIONS + 8], frame[OPTIONS + 9], frame[OPTIONS + 10], frame[OPTIONS + 11]];
    let wanted = SACK | u64::from(frame[OPTIONS + 19].min(14));
    // SAFETY: the helper takes nothing and only gives a number.
    let now_ms = unsafe { bpf_ktime_get_ns() } / 1_000_000;
    let mut stamp = now_ms >> OPTION_BITS << OPTION_BITS | wanted;
    if stamp > now_ms {
        stamp -= 1 << OPTION_BITS;
    }
    put(frame, OPTIONS + 8, (stamp as u32).to_be_bytes());
    put(frame, OPTIONS + 12, theirs);
    // SAFETY: a constant of our own, which userspace may have written before the program was loaded; hence not the compiler's to know.
    frame[OPTIONS + 19] = unsafe { core::ptr::read_volatile(&raw const WINDOW_SCALE) };
}

#[inline(always)]
fn swap<const BYTES: usize>(frame: &mut [u8], one: usize, other: usize) {
    for at in 0..BYTES {
        frame.swap(one + at, other + at);
    }
}

#[inline(always)]
fn put<const BYTES: usize>(frame: &mut [u8], at: usize, bytes: [u8; BYTES]) {
    frame[at..at + BYTES].copy_from_slice(&bytes);
}

/// RFC 1071, of an even number of bytes.
#[inline(always)]
fn sum(frame: &[u8], at: usize, bytes: usize) -> u32 {
    let mut sum = 0;
    let mut word = 0;
    while word < bytes {
        sum += u32::from(u16::from_be_bytes([frame[at + word], frame[at + word + 1]]));
        word += 2;
    }
    sum
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Whether the IPv4 frame goes to one of the sources that the bench invents, 198.18.0.0/15. Counts those.
#[inline(always)]
pub fn is_for_nobody(headers: Option<*mut [u8; IP + IP_BYTES]>) -> bool {
    let Some(headers) = headers else { return false };
    // SAFETY: whoever took the pointer checked that all bytes are inside the frame, and bytes have no alignment.
    let headers = unsafe { &*headers };
    let is = headers[12..14] == [0x08, 0x00] && headers[IP + 16] == 198 && headers[IP + 17] & 0xfe == 18;
    if is && let Some(refused) = REFUSED.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot, and a program of its kind is not preempted by another on the same CPU.
        unsafe { *refused += 1 };
    }
    is
}

/// The headers of a frame that lies from one address to the other, when it is long enough.
#[inline(always)]
pub fn headers_of(start: usize, end: usize) -> Option<*mut [u8; IP + IP_BYTES]> {
    if start + IP + IP_BYTES > end { None } else { Some(start as *mut _) }
}
