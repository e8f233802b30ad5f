//! The rig's IPv6 network, beside the other: each client has an address in both, with the same lower half.

use std::net::Ipv6Addr;
use std::path::Path;

use super::{GATEWAY_MAC, SERVER_END, XdpError, ip, text_of};

/// The server's address.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 1);
/// Where all clients live, as the server sees it.
const GATEWAY: &str = "fd64::2";
pub(super) const CLIENTS_NETWORK: &str = "fd80::/64";
/// The upper half of every client's address; the other half's lower half is its IPv4 address.
const CLIENTS_PREFIX: u128 = 0xfd80 << 112;

/// The address of a client whose IPv4 address would be `low`.
#[must_use]
pub fn client_address(low: u32) -> Ipv6Addr {
    Ipv6Addr::from(CLIENTS_PREFIX | u128::from(low))
}

/// Whether this kernel has IPv6 at all.
pub(super) fn is_there() -> bool {
    Path::new("/proc/sys/net/ipv6").is_dir()
}

/// Before the server's end is up: no address of its own making, which would have to be looked for on the link first, and no
/// routers asked for.
pub(super) fn prepare() -> Result<(), XdpError> {
    ip(&["link", "set", SERVER_END, "addrgenmode", "none"])
}

/// Gives the server's end an address, without asking around whether somebody has it.
pub(super) fn give_address(address: Ipv6Addr) -> Result<(), XdpError> {
    ip(&["-6", "address", "add", &format!("{address}/128"), "dev", SERVER_END, "nodad"])
}

/// The one route, when the server's end is up.
pub(super) fn lead_to_clients() -> Result<(), XdpError> {
    let gateway_mac = text_of(GATEWAY_MAC);
    ip(&["-6", "neighbour", "add", GATEWAY, "lladdr", &gateway_mac, "dev", SERVER_END, "nud", "permanent"])?;
    ip(&["-6", "route", "add", CLIENTS_NETWORK, "via", GATEWAY, "dev", SERVER_END, "onlink"])
}
