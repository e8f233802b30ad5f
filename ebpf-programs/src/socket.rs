//! What a socket says of itself when it calls us.

use abi::rules::V6;
use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_ops},
    helpers::bpf_get_netns_cookie,
    programs::SockOpsContext,
};

use crate::packet::Address;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Reads one field. The kernel rewrites each access to its own structure and takes only whole fields, so the compiler must not
/// join two of them.
macro_rules! field {
    ($socket:expr, $($field:tt)+) => {
        // SAFETY: the context lives as long as the program runs, and the kernel lets us read the field.
        unsafe { (&raw const (*$socket).$($field)+).read_volatile() }
    };
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
        field!(self.ops, __bindgen_anon_1.args[1])
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
    pub fn remote(&self) -> Option<Address> {
        match field!(self.ops, family) {
            AF_INET => Some(Address::V4(field!(self.ops, remote_ip4).to_ne_bytes())),
            AF_INET6 => Some(v6([
                field!(self.ops, remote_ip6[0]),
                field!(self.ops, remote_ip6[1]),
                field!(self.ops, remote_ip6[2]),
                field!(self.ops, remote_ip6[3]),
            ])),
            _ => None,
        }
    }

    /// This host's address.
    #[inline(always)]
    pub fn local(&self) -> Option<Address> {
        match field!(self.ops, family) {
            AF_INET => Some(Address::V4(field!(self.ops, local_ip4).to_ne_bytes())),
            AF_INET6 => Some(v6([
                field!(self.ops, local_ip6[0]),
                field!(self.ops, local_ip6[1]),
                field!(self.ops, local_ip6[2]),
                field!(self.ops, local_ip6[3]),
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
        field!(self.ops, __bindgen_anon_2.sk)
    }
}

/// IPv4 clients of a socket for both families show as IPv6.
#[inline(always)]
fn v6(words: [u32; 4]) -> Address {
    const MAPPED: u32 = u32::from_be(0xffff);
    if words[0] == 0 && words[1] == 0 && words[2] == MAPPED {
        return Address::V4(words[3].to_ne_bytes());
    }
    let mut address: V6 = [0; 16];
    for (to, from) in address.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    Address::V6(address)
}
