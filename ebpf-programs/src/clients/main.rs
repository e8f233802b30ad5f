//! Clients made of XDP: the program at the clients' end of a veth pair answers for all of them, and keeps no socket.
//!
//! `clients` takes the server's segments, does to them what a client's TCP would, reads the goim packets in the stream,
//! counts, and sends the frame back as the answer. `pass` stands at the other end, where something has to.
//! `sink` is no client: it drops. Nor are `cookies`, `refuse` and `withhold`, which serve a bench of SYN floods.
//!
//! It does not: begin anything (userspace injects SYNs and heartbeats), repeat what was lost (the server does, or
//! userspace), verify checksums (over a veth pair they are partial), or speak TCP options.
//!
//! Layout: `frame` one parse into one struct · `connection` what a segment does to a client, `window` which can be one's at
//! all · `stream` packets in the bytes · `websocket` what is around them · `books` message numbers and delays · `room` what a
//! slow client takes · `endings` what an end is counted as · `answer` the frame that goes back · `maps` the tables · `cookies` for the bench
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

mod answer;
mod books;
mod connection;
mod cookies;
mod endings;
mod frame;
mod maps;
mod room;
mod stream;
mod websocket;
mod window;

/// Plays the clients: `XDP_TX` with an answer, `XDP_DROP` without one, `XDP_PASS` for what is no client's.
#[xdp]
pub fn clients(ctx: XdpContext) -> u32 {
    match frame::ethertype(&ctx) {
        Some(frame::ETHERTYPE_IPV4) => connection::play::<{ frame::IPV4_HEADERS }>(&ctx),
        Some(frame::ETHERTYPE_IPV6) => connection::play::<{ frame::IPV6_HEADERS }>(&ctx),
        _ => xdp_action::XDP_PASS,
    }
}

/// Lets everything pass.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Lets nothing pass: where a bench sends packets to learn what all but the filter costs.
#[xdp]
pub fn sink(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Answers SYNs with the kernel's cookies, and lets everything else pass.
#[xdp]
pub fn cookies(ctx: XdpContext) -> u32 {
    cookies::answer(&ctx)
}

/// Drops what goes to sources that a bench invented, at their end of the veth pair.
#[xdp]
pub fn refuse(ctx: XdpContext) -> u32 {
    if cookies::is_for_nobody(frame::ptr_at(&ctx, 0)) { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// Drops the same before it is sent.
#[classifier]
pub fn withhold(ctx: TcContext) -> i32 {
    let headers = cookies::headers_of(ctx.data(), ctx.data_end());
    if cookies::is_for_nobody(headers) { TC_ACT_SHOT } else { TC_ACT_OK }
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
