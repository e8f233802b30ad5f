//! What a socket says of itself when it calls us.

use core::{arch::asm, mem::offset_of};

use abi::rules::{V4, V6};
use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_ops},
    helpers::bpf_get_netns_cookie,
    programs::SockOpsContext,
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Reads one field of 4 bytes, or the given word of an array of such.
///
/// In assembly, because the kernel rewrites each access to its own structure by the offset in the instruction: the compiler must
/// neither join two accesses nor compute an address that is one of two fields.
macro_rules! field {
    ($socket:expr, $field:ident) => {
        field!($socket, $field, 0)
    };
    ($socket:expr, $field:ident, $word:literal) => {{
        let value: u64;
        // SAFETY: the context lives as long as the program runs, and the kernel lets us read the field.
        unsafe {
            asm!(
                "{value} = *(u32 *)({ops} + {offset})",
                value = out(reg) value,
                ops = in(reg) $socket,
                offset = const offset_of!(bpf_sock_ops, $field) + 4 * $word,
                options(nostack, readonly)
            );
        }
        value as u32
    }};
}

/// The socket that calls.
pub struct Socket {
    ops: *mut bpf_sock_ops,
}

impl Socket {
    #[inline(always)]
    pub fn of(ctx: &SockOpsContext) -> Self {
        Self { ops: ctx.ops }
    }

    /// What happens to it (`BPF_SOCK_OPS_*`).
    #[inline(always)]
    pub fn event(&self) -> u32 {
        field!(self.ops, op)
    }

    /// The event's second argument: of a new state which, of a retransmission how many segments.
    #[inline(always)]
    pub fn argument(&self) -> u32 {
        field!(self.ops, __bindgen_anon_1, 1)
    }

    /// This host's port.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        field!(self.ops, local_port) as u16
    }

    /// Cookie of its network namespace.
    #[inline(always)]
    pub fn namespace_cookie(&self) -> u64 {
        // SAFETY: the helper takes the context that the kernel gave us.
        unsafe { bpf_get_netns_cookie(self.ops.cast()) }
    }

    /// The client's address.
    #[inline(always)]
    pub fn remote(&self) -> Option<Peer> {
        match field!(self.ops, family) {
            AF_INET => Some(Peer([0, 0, MAPPED, field!(self.ops, remote_ip4)])),
            AF_INET6 => Some(Peer([
                field!(self.ops, remote_ip6, 0),
                field!(self.ops, remote_ip6, 1),
                field!(self.ops, remote_ip6, 2),
                field!(self.ops, remote_ip6, 3),
            ])),
            _ => None,
        }
    }

    /// This host's address.
    #[inline(always)]
    pub fn local(&self) -> Option<Peer> {
        match field!(self.ops, family) {
            AF_INET => Some(Peer([0, 0, MAPPED, field!(self.ops, local_ip4)])),
            AF_INET6 => Some(Peer([
                field!(self.ops, local_ip6, 0),
                field!(self.ops, local_ip6, 1),
                field!(self.ops, local_ip6, 2),
                field!(self.ops, local_ip6, 3),
            ])),
            _ => None,
        }
    }

    /// Smoothed round-trip time in microseconds.
    #[inline(always)]
    pub fn rtt_us(&self) -> u32 {
        // The kernel keeps it in eighths.
        field!(self.ops, srtt_us) >> 3
    }

    /// Data segments sent, those sent again included.
    #[inline(always)]
    pub fn segments(&self) -> u32 {
        field!(self.ops, data_segs_out)
    }

    /// Segments sent again.
    #[inline(always)]
    pub fn retransmissions(&self) -> u32 {
        field!(self.ops, total_retrans)
    }

    /// The events that it tells from now on, beside those that others asked for.
    #[inline(always)]
    pub fn listen_to(&self, events: u32) {
        let ctx = SockOpsContext::new(self.ops);
        // Refused for flags that the kernel does not know, of which we use none.
        let _ = ctx.set_cb_flags((ctx.cb_flags() | events) as i32);
    }

    /// The kernel's socket; null where there is none yet.
    #[inline(always)]
    pub fn kernel_socket(&self) -> *mut bpf_sock {
        let socket: *mut bpf_sock;
        // SAFETY: as for a field of 4 bytes.
        unsafe {
            asm!(
                "{socket} = *(u64 *)({ops} + {offset})",
                socket = out(reg) socket,
                ops = in(reg) self.ops,
                offset = const offset_of!(bpf_sock_ops, __bindgen_anon_2),
                options(nostack, readonly)
            );
        }
        socket
    }
}

/// The third word of an IPv4 address among those of IPv6.
const MAPPED: u32 = u32::from_be(0xffff);

/// An address as IPv6 has it, IPv4 mapped: that is also what a socket for both families says of IPv4 clients.
///
/// Of four whole words, and taken apart only where it is used: of an enum with two sizes the compiler makes shifts of registers that
/// the verifier has seen pointers in.
#[derive(Clone, Copy)]
pub struct Peer([u32; 4]);

impl Peer {
    /// The IPv4 address that it is.
    #[inline(always)]
    pub fn v4(&self) -> Option<V4> {
        let [a, b, c, d] = self.0;
        if a == 0 && b == 0 && c == MAPPED { Some(d.to_ne_bytes()) } else { None }
    }

    /// As IPv6 has it.
    #[inline(always)]
    pub fn mapped(&self) -> V6 {
        let mut address: V6 = [0; 16];
        for (to, from) in address.chunks_exact_mut(4).zip(self.0) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        address
    }
}
