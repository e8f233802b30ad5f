//! What connections of clients see, by ISP.
//!
//! Each connection to a protected port, of the namespace that the filter's interface is in, is counted when it opens and when it
//! closes, and tells of its retransmissions. One in `Measuring::one_in` also calls with each acknowledgement that
//! tells a round-trip time. The kernel keeps per connection which of these it wants to hear, so what is not asked for costs
//! nothing, and only a sampled connection has a record here.
//!
//! Connections from before the program was there are not seen.

use abi::{
    measuring::{Measured, Sampled, rtt_bucket},
    settings::{ONLY_LISTED_ADDRESSES, Settings},
};
use aya_ebpf::{
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RETRANS_CB,
        BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG,
    },
    helpers::{bpf_get_prandom_u32, generated::bpf_sk_storage_get},
    programs::SockOpsContext,
};

use crate::{
    clock::generation,
    counting::add_atomically,
    guarded::{is_listed, is_protected},
    isps::isp_of,
    maps::{MEASURED, MEASURING, SAMPLED, SETTINGS},
    open,
    packet::Address,
    socket::{Peer, Socket},
};

/// `TCP_CLOSE` among the kernel's states.
const CLOSE: u32 = 7;

/// Takes note of what happens to a socket.
#[inline(always)]
pub fn take_note(ctx: &SockOpsContext) {
    let socket = Socket::of(ctx);
    match socket.event() {
        BPF_SOCK_OPS_RTT_CB => acknowledged(&socket),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => opened(&socket),
        BPF_SOCK_OPS_RETRANS_CB => sent_again(&socket),
        BPF_SOCK_OPS_STATE_CB if socket.argument() == CLOSE => closed(&socket),
        _ => {}
    }
}

#[inline(always)]
fn opened(socket: &Socket) {
    let Some(client) = client(socket) else { return };
    let generation = generation();
    open::opened(generation, &client);
    let mut events = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG;
    if is_chosen() && sample(socket, BPF_SK_STORAGE_GET_F_CREATE).is_some() {
        events |= BPF_SOCK_OPS_RTT_CB_FLAG;
    }
    socket.listen_to(events);
    let Some(measured) = measured(generation, &client) else { return };
    // SAFETY: see `measured`.
    unsafe { add_atomically(&raw mut (*measured).opened, 1) };
    // The handshake's; 0 when a cookie stood in for it.
    if socket.rtt_us() != 0 {
        count_rtt(measured, socket.rtt_us());
    }
}

#[inline(always)]
fn acknowledged(socket: &Socket) {
    // Whoever else asks for these events, only a connection that we sample has a record.
    let Some(sampled) = sample(socket, 0) else { return };
    let Some(measured) = socket.remote().and_then(|client| measured(generation(), &client)) else { return };
    count_rtt(measured, socket.rtt_us());
    count_segments(measured, sampled, socket);
}

#[inline(always)]
fn sent_again(socket: &Socket) {
    let Some(client) = client(socket) else { return };
    let Some(measured) = measured(generation(), &client) else { return };
    // SAFETY: see `measured`.
    unsafe { add_atomically(&raw mut (*measured).retransmissions, u64::from(socket.argument())) };
}

#[inline(always)]
fn closed(socket: &Socket) {
    let Some(client) = client(socket) else { return };
    let generation = generation();
    open::closed(generation, &client);
    let Some(measured) = measured(generation, &client) else { return };
    // SAFETY: see `measured`.
    unsafe { add_atomically(&raw mut (*measured).closed, 1) };
    if let Some(sampled) = sample(socket, 0) {
        count_segments(measured, sampled, socket);
    }
}

/// Who is at the other end, when the socket is one of those that we look at.
#[inline(always)]
fn client(socket: &Socket) -> Option<Peer> {
    let settings = SETTINGS.get(0)?;
    if !is_protected(socket.port()) || !is_here(settings, socket) {
        return None;
    }
    if settings.addresses == ONLY_LISTED_ADDRESSES && !is_listed(&socket.local()?.mapped()) {
        return None;
    }
    socket.remote()
}

/// All namespaces call: they share the tree of control groups.
#[inline(always)]
fn is_here(settings: &Settings, socket: &Socket) -> bool {
    settings.namespace_cookie != 0 && settings.namespace_cookie == socket.namespace_cookie()
}

#[inline(always)]
fn is_chosen() -> bool {
    match MEASURING.get(0) {
        Some(measuring) if measuring.one_in != 0 => {
            // SAFETY: the helper takes nothing.
            unsafe { bpf_get_prandom_u32() }.is_multiple_of(measuring.one_in)
        }
        _ => false,
    }
}

/// The record of a sampled connection; with the flag, one is made.
#[inline(always)]
fn sample(socket: &Socket, flags: u32) -> Option<*mut Sampled> {
    let kernel_socket = socket.kernel_socket();
    if kernel_socket.is_null() {
        return None;
    }
    // SAFETY: the map's definition stands for the map, and the socket is not null; a new record is all zeros.
    let sampled = unsafe {
        bpf_sk_storage_get(
            (&raw const SAMPLED).cast_mut().cast(),
            kernel_socket.cast(),
            core::ptr::null_mut(),
            flags.into(),
        )
    };
    if sampled.is_null() { None } else { Some(sampled.cast()) }
}

/// This CPU's counts of the client's ISP. To be added to atomically all the same: sockets call from where an interrupt may
/// bring another to call, on the same CPU.
#[inline(always)]
fn measured(generation: u32, client: &Peer) -> Option<*mut Measured> {
    MEASURED.get_ptr_mut(match client.v4() {
        Some(address) => isp_of(generation, &Address::of_v4(address)),
        None => isp_of(generation, &Address::of_v6(client.mapped())),
    })
}

#[inline(always)]
fn count_rtt(measured: *mut Measured, rtt_us: u32) {
    // SAFETY: see `measured`; the bucket is below `RTT_BUCKETS`, which the mask lets the verifier see.
    unsafe {
        add_atomically(&raw mut (*measured).rtt_count, 1);
        add_atomically(&raw mut (*measured).rtt_sum_us, rtt_us.into());
        add_atomically((&raw mut (*measured).rtt).cast::<u64>().add(rtt_bucket(rtt_us)), 1);
    }
}

#[inline(always)]
fn count_segments(measured: *mut Measured, sampled: *mut Sampled, socket: &Socket) {
    let (segments, retransmissions) = (socket.segments(), socket.retransmissions());
    // SAFETY: see `measured`; the record is this socket's own, which calls from one place at a time.
    unsafe {
        let since = &mut *sampled;
        add_atomically(&raw mut (*measured).sampled_segments, segments.wrapping_sub(since.segments).into());
        add_atomically(
            &raw mut (*measured).sampled_retransmissions,
            retransmissions.wrapping_sub(since.retransmissions).into(),
        );
        *since = Sampled { segments, retransmissions };
    }
}
