//! The kernel side of the push appliance: one object, all its programs.
//!
//! `filter` (XDP) judges packets to the protected TCP ports before the kernel makes a socket buffer for them.
//! `steer` (sk_reuseport) puts a new connection on a shard of the CPU that it came in on.
//! `shape` (TC egress) delays what is sent to an ISP's clients to his rate.
//! `measure` (sock_ops) counts connections, and takes round-trip times and loss of some.
//!
//! They do not: keep state per connection, answer packets, look into IP tunnels, or decide policy. The tables are userspace's; a
//! missing entry means pass, and the kill switch passes everything.
//!
//! Layout: `packet` one parse into one struct · `filter` the verdict · `rules`, `limits`, `isps` what it asks · `events`, `trace` who is
//! told · `shape` when a packet may leave · `measure`, `socket`, `open` what sockets tell · `guarded` which traffic is ours ·
//! `steer` the shard · `clock`, `counting` time and atomic words · `maps` the tables.
#![no_std]
#![no_main]
// Inline assembly for this target: both ways to build it use a compiler that takes unstable features (`build-std` is one).
#![feature(asm_experimental_arch)]

use aya_ebpf::{
    bindings::xdp_action,
    macros::{classifier, sk_reuseport, sock_ops, xdp},
    programs::{SkReuseportContext, SockOpsContext, TcContext, XdpContext},
};

mod clock;
mod counting;
mod events;
mod filter;
mod guarded;
mod isps;
mod limits;
mod maps;
mod measure;
mod open;
mod packet;
mod rules;
mod shape;
mod socket;
mod steer;
mod trace;

/// Judges a frame: `XDP_PASS` or `XDP_DROP`, nothing else.
///
/// `frags`: accepted on interfaces with an MTU above a page; the headers stand in the first buffer.
#[xdp(frags)]
pub fn filter(ctx: XdpContext) -> u32 {
    match filter::judge(&ctx) {
        abi::verdict::Verdict::Pass => xdp_action::XDP_PASS,
        abi::verdict::Verdict::Drop => xdp_action::XDP_DROP,
    }
}

/// Sets when a leaving packet goes, or by which class, or refuses it. What it does not refuse, the next program may judge.
#[classifier]
pub fn shape(ctx: TcContext) -> i32 {
    shape::shape(&ctx)
}

/// Counts what happens to a socket. It never changes an answer that the socket asks for.
#[sock_ops]
pub fn measure(ctx: SockOpsContext) -> u32 {
    measure::take_note(&ctx);
    1
}

/// Chooses the listening socket for a new connection, and for one whose listener went away before it was accepted
/// (`migrate`, Linux 5.14 and later).
#[sk_reuseport(migrate)]
pub fn steer(ctx: SkReuseportContext) -> u32 {
    steer::steer(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Nothing here panics: the verifier would refuse the endless loop if it were reachable.
    loop {}
}

/// Lets the programs call the kernel's helpers that are reserved for GPL-compatible code.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
