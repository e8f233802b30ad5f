//! The frame that goes back: the server's own, turned round and cut or grown to what the client says.

use abi::clients::{Client, Count, GREETING_BYTES, MAX_GREETING_BYTES, NUMBER_DIGITS, Script, state};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_TX},
    helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_store_bytes},
    programs::XdpContext,
};

use crate::{
    frame::{ETHERNET_BYTES, IPV4_HEADERS, RST, Segment, TCP_BYTES, ptr_at, raw},
    maps::{GREETING, count},
};

const HOPS: u8 = 64;
const TCP: u8 = 6;
const DONT_FRAGMENT: u8 = 0x40;

/// What a client says.
#[derive(Clone, Copy)]
pub struct Answer {
    /// TCP's flags.
    pub flags: u8,
    /// Bytes that may be under way to the client. Whoever sends it knows.
    pub window: u16,
    /// The client whose auth packet goes with it, or whose request for WebSocket, if any does.
    pub greets: Option<u32>,
    /// Length of what stands in `GREETING` already and goes with it.
    pub says: u32,
}

impl Answer {
    /// Nothing but flags.
    #[inline(always)]
    pub fn plain(flags: u8) -> Self {
        Self { flags, window: 0, greets: None, says: 0 }
    }

    /// The reset of a connection that the client does not know of.
    #[inline(always)]
    pub fn reset() -> Self {
        Self::plain(RST)
    }
}

/// Makes the frame the client's answer.
#[inline(never)]
pub fn send<const HEADERS: usize>(
    ctx: &XdpContext,
    script: &Script,
    segment: &Segment<HEADERS>,
    client: &Client,
    answer: &Answer,
) -> u32 {
    let Some(words) = GREETING.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: this CPU's own slot, and an XDP program is not preempted by another on the same CPU.
    let words = unsafe { &mut *words };
    let bytes = match answer.greets {
        Some(number) => greet(script, number, client.state, words),
        None => answer.says,
    };
    // Zeros behind them add nothing.
    let sum = if bytes > 0 { sum_of(words, 0, GREETING_BYTES as u32, 0) } else { 0 };
    let headers = headers(segment, client, answer, bytes, sum);
    let delta = (HEADERS as u32 + bytes).wrapping_sub(segment.frame_bytes) as i32;
    // It grows at its head, where XDP has room for certain. Behind a frame that came over a veth pair there may be none.
    // SAFETY: the context is the kernel's; all pointers into the frame are taken anew behind this.
    let adjusted =
        unsafe { if delta > 0 { bpf_xdp_adjust_head(raw(ctx), -delta) } else { bpf_xdp_adjust_tail(raw(ctx), delta) } };
    if adjusted != 0 {
        count(Count::Unanswered, 1);
        return XDP_DROP;
    }
    let Some(place) = ptr_at::<[u8; HEADERS]>(ctx, 0) else { return XDP_DROP };
    // SAFETY: `ptr_at` checked that all bytes are inside the frame, and bytes have no alignment.
    unsafe { *place = headers };
    if bytes > 0 {
        // Hidden and compared once more, because the verifier forgets what was made sure of; and not both ends at once, which
        // becomes one comparison, from which it learns nothing.
        let bytes = core::hint::black_box(bytes);
        let is_stored = bytes <= MAX_GREETING_BYTES && {
            let bytes = if bytes == 0 { 1 } else { bytes };
            // SAFETY: the buffer holds `bytes` bytes, and the verifier checks it.
            unsafe { bpf_xdp_store_bytes(raw(ctx), HEADERS as u32, words.as_mut_ptr().cast(), bytes) == 0 }
        };
        if !is_stored {
            count(Count::Unanswered, 1);
            return XDP_DROP;
        }
    }
    XDP_TX
}

/// Both headers and TCP's, checksums included.
#[inline(always)]
fn headers<const HEADERS: usize>(
    segment: &Segment<HEADERS>,
    client: &Client,
    answer: &Answer,
    payload_bytes: u32,
    payload_sum: u32,
) -> [u8; HEADERS] {
    let (ip, tcp) = (ETHERNET_BYTES, Segment::<HEADERS>::TCP_AT);
    let came = &segment.headers;
    let mut out = *came;
    out[0..6].copy_from_slice(&came[6..12]);
    out[6..12].copy_from_slice(&came[0..6]);
    let carried = TCP_BYTES as u32 + payload_bytes;
    if HEADERS == IPV4_HEADERS {
        out[ip + 1] = 0;
        out[ip + 2..ip + 4].copy_from_slice(&(carried as u16 + 20).to_be_bytes());
        out[ip + 4..ip + 8].copy_from_slice(&[0, 0, DONT_FRAGMENT, 0]);
        out[ip + 8..ip + 12].copy_from_slice(&[HOPS, TCP, 0, 0]);
        out[ip + 12..ip + 16].copy_from_slice(&came[ip + 16..ip + 20]);
        out[ip + 16..ip + 20].copy_from_slice(&came[ip + 12..ip + 16]);
        let checksum = folded(sum_of(&mut out, ip, 20, 0));
        out[ip + 10..ip + 12].copy_from_slice(&checksum);
    } else {
        out[ip..ip + 4].copy_from_slice(&[0x60, 0, 0, 0]);
        out[ip + 4..ip + 6].copy_from_slice(&(carried as u16).to_be_bytes());
        out[ip + 6..ip + 8].copy_from_slice(&[TCP, HOPS]);
        out[ip + 8..ip + 24].copy_from_slice(&came[ip + 24..ip + 40]);
        out[ip + 24..ip + 40].copy_from_slice(&came[ip + 8..ip + 24]);
    }
    // A reset says what the server awaits, whatever that is, or would not be believed.
    let sequence = if answer.flags == RST { segment.acknowledged } else { client.next_out };
    out[tcp..tcp + 2].copy_from_slice(&came[tcp + 2..tcp + 4]);
    out[tcp + 2..tcp + 4].copy_from_slice(&came[tcp..tcp + 2]);
    out[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
    out[tcp + 8..tcp + 12].copy_from_slice(&client.next_in.to_be_bytes());
    out[tcp + 12..tcp + 14].copy_from_slice(&[(TCP_BYTES as u8 / 4) << 4, answer.flags]);
    out[tcp + 14..tcp + 16].copy_from_slice(&answer.window.to_be_bytes());
    out[tcp + 16..tcp + 20].copy_from_slice(&[0; 4]);
    // The pseudo header: addresses, length and protocol.
    let address_bytes = if HEADERS == IPV4_HEADERS { 8 } else { 32 };
    let seed = once(payload_sum) + u32::from((carried as u16 + u16::from(TCP)).to_be());
    let sum = sum_of(&mut out, tcp - address_bytes, address_bytes as u32, seed);
    let checksum = folded(sum_of(&mut out, tcp, TCP_BYTES as u32, sum));
    out[tcp + 16..tcp + 18].copy_from_slice(&checksum);
    out
}

/// One's complement sum of `length` bytes at `at`, on top of `seed`.
#[inline(always)]
fn sum_of<const N: usize>(bytes: &mut [u8; N], at: usize, length: u32, seed: u32) -> u32 {
    let from = bytes[at..].as_mut_ptr();
    // SAFETY: callers stay inside `bytes`, and the verifier checks it.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from.cast(), length, seed) as u32 }
}

/// The checksum of a sum, in the order of the bytes that were summed.
#[inline(always)]
fn folded(sum: u32) -> [u8; 2] {
    (!once(once(sum)) as u16).to_ne_bytes()
}

/// A sum with its carries brought in: below 0x1ffff, and below 0x10000 the second time.
#[inline(always)]
fn once(sum: u32) -> u32 {
    (sum >> 16) + (sum & 0xffff)
}

/// Puts the client's auth packet, or its request, into `buffer`, and says how long it is: 0 when there is none.
#[inline(always)]
fn greet(script: &Script, number: u32, state: u8, buffer: &mut [u8; GREETING_BYTES]) -> u32 {
    let is_upgrade = state::is_upgrading(state);
    let bytes = if is_upgrade { script.upgrade_bytes } else { script.greeting_bytes };
    if bytes == 0 || bytes > MAX_GREETING_BYTES {
        return 0;
    }
    *buffer = if is_upgrade { script.upgrade } else { script.greeting };
    if !is_upgrade {
        write_numbers(script, number, buffer);
    }
    bytes
}

/// Writes what is the client's own.
#[inline(always)]
fn write_numbers(script: &Script, number: u32, buffer: &mut [u8; GREETING_BYTES]) {
    write_number(buffer, script.mid_at, NUMBER_DIGITS as u32, script.first_mid.wrapping_add(number), b' ');
    let room = if script.rooms < 2 { 0 } else { number % script.rooms };
    write_number(buffer, script.room_at, script.room_digits, script.first_room.wrapping_add(room), b'0');
}

/// Writes the lowest `digits` digits of `number` at `at`, `filling` in front.
#[inline(always)]
fn write_number(buffer: &mut [u8; GREETING_BYTES], at: u32, digits: u32, number: u32, filling: u8) {
    let mut rest = number;
    for place in 0..NUMBER_DIGITS as u32 {
        if place >= digits {
            break;
        }
        let byte = if rest == 0 && place > 0 { filling } else { b'0' + (rest % 10) as u8 };
        // The mask is for the verifier: userspace keeps both inside.
        buffer[(at + digits - 1 - place) as usize & (GREETING_BYTES - 1)] = byte;
        rest /= 10;
    }
}
