//! A non-blocking socket on its way to the server, from one of many source addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::load::scenario::Scenario;
use crate::sys;

/// Begins to connect client `client`. Clients take the targets in turn, and each target's clients the sources in turn.
pub(crate) fn begin(scenario: &Scenario, client: u32) -> io::Result<TcpStream> {
    let targets = scenario.connect.len() as u32;
    let to = scenario.connect[(client % targets) as usize];
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if scenario.sources > 0 && to.is_ipv4() {
        sys::bind_address_no_port(&socket)?;
        let source = source_of(scenario.first_source, scenario.sources, client / targets);
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

fn source_of(first: Ipv4Addr, sources: u32, turn: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first).wrapping_add(turn % sources))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_taken_in_turn_and_carry_over_octets() {
        let first = Ipv4Addr::new(127, 0, 0, 254);
        let drawn: Vec<Ipv4Addr> = (0..4).map(|turn| source_of(first, 3, turn)).collect();
        let [a, b, c] = [first, Ipv4Addr::new(127, 0, 0, 255), Ipv4Addr::new(127, 0, 1, 0)];
        assert_eq!(drawn, [a, b, c, a]);
    }
}
