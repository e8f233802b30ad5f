//! The rig around a server that is not ours, in a network namespace that somebody else made.
//!
//! ```text
//! the server's namespace, theirs                                    clients' namespace, ours
//! server    ADDRESS    push0  <=== veth, driver mode at both ends ===>  clients0   (no address, no socket)
//!           the clients' network by a gateway, a permanent neighbour         program `clients` plays all addresses
//!           a program that lets everything pass
//! ```
//!
//! Of what is put into their namespace, everything hangs on our end of the pair: its address, its neighbour, its route. So
//! all of it goes with the pair, and the pair with the clients' namespace, which only this process holds: at once when the
//! rig is dropped, else as soon as the kernel has cleared that namespace away. Their settings are left as they are.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{
    CLIENTS_END, CLIENTS_NETWORK, GATEWAY, GATEWAY_MAC, Rig, SERVER_END, ServerEnd, XdpError, ip, ip_says, ipv6,
    text_of,
};
use crate::load::engine::xdp::program::Program;

impl Rig {
    /// Puts the server's end of the pair into the namespace at `path`, where a server listens at `server`. An address that
    /// the namespace does not have yet is given to our end.
    ///
    /// # Errors
    /// [`XdpError`] says what is missing or in the way; nothing is left then.
    pub fn build_around(program: Program, path: &Path, server: SocketAddr) -> Result<Self, XdpError> {
        let address = server.ip();
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            let what = format!(
                "reach {address} from outside its namespace: have the server listen on every address, or on one of its \
                 own, and say that one (if no interface has it, the run brings it along)"
            );
            return Err(XdpError::Beyond(what));
        }
        let doing = format!("open the network namespace {}", path.display());
        let theirs = File::open(path).map_err(XdpError::io(doing))?;
        let rig = Self::around(theirs, true, program)?;
        rig.in_server(|| refuse_overlap(address))??;
        rig.link_pair()?;
        rig.set_up_clients_end()?;
        rig.in_server(|| lead_to_clients(address))??;
        rig.attach(&ServerEnd::Pass)
    }

    /// Whether the server goes on when the rig is gone.
    pub(in super::super) fn is_server_borrowed(&self) -> bool {
        self.is_server_borrowed
    }

    /// Takes out of a borrowed namespace what was put there.
    pub(super) fn give_back(&self) {
        if self.is_server_borrowed {
            // Should it fail, the kernel does the same once nobody holds the clients' namespace.
            let _ = self.in_clients(|| ip(&["link", "delete", CLIENTS_END]));
        }
    }
}

/// Address, neighbour and route of our end, in the one family that is needed.
fn lead_to_clients(address: IpAddr) -> Result<(), XdpError> {
    let is_theirs = !ip_says(&["-o", "address", "show", "to", &address.to_string()])?.is_empty();
    if ipv6::is_there() {
        ipv6::prepare()?;
    }
    match address {
        IpAddr::V4(address) => {
            if !is_theirs {
                ip(&["address", "add", &format!("{address}/32"), "dev", SERVER_END])?;
            }
            ip(&["link", "set", SERVER_END, "up"])?;
            let gateway_mac = text_of(GATEWAY_MAC);
            ip(&["neighbour", "add", GATEWAY, "lladdr", &gateway_mac, "dev", SERVER_END, "nud", "permanent"])?;
            // On link, so that it needs no address beside it.
            ip(&["route", "add", CLIENTS_NETWORK, "via", GATEWAY, "dev", SERVER_END, "onlink"])
        }
        IpAddr::V6(address) => {
            if !is_theirs {
                ipv6::give_address(address)?;
            }
            ip(&["link", "set", SERVER_END, "up"])?;
            ipv6::lead_to_clients()
        }
    }
}

/// Where the namespace has routes of its own into the clients' network, or over it, they would go astray: theirs or ours.
fn refuse_overlap(address: IpAddr) -> Result<(), XdpError> {
    let (family, network) = match address {
        IpAddr::V4(_) => ("-4", CLIENTS_NETWORK),
        IpAddr::V6(_) => ("-6", ipv6::CLIENTS_NETWORK),
    };
    let inside = ip_says(&[family, "route", "show", "table", "all", "root", network])?;
    let over = ip_says(&[family, "route", "show", "table", "all", "match", network])?;
    let mut routes = inside.lines().chain(over.lines());
    match routes.find(|route| !route.starts_with("default")) {
        None => Ok(()),
        Some(route) => Err(XdpError::Beyond(format!(
            "live in {network}, where the server's namespace has a route already: {} (another run?)",
            route.trim()
        ))),
    }
}
