//! goim on plain TCP: packets one after another.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use wire::goim;

use super::error::ProbeError;
use super::stream::{ConnectOptions, Fill, Stream};
use super::verbs::{Event, Packet, Probe, Transport};
use super::{MAX_SERVER_BODY_BYTES, TcpProbe};

/// The transport of a [`TcpProbe`].
#[derive(Debug)]
pub struct Tcp {
    stream: Stream,
}

impl TcpProbe {
    /// Connects; the kernel chooses the source.
    ///
    /// # Errors
    /// [`ProbeError::Io`] when the connection is not there within ten seconds.
    pub fn connect(to: SocketAddr) -> Result<Self, ProbeError> {
        Self::connect_with(to, &ConnectOptions::default())
    }

    /// Connects from a source address of the test's choice.
    ///
    /// # Errors
    /// As [`TcpProbe::connect`], and when the address cannot be bound.
    pub fn connect_from(to: SocketAddr, from: IpAddr) -> Result<Self, ProbeError> {
        Self::connect_with(to, &ConnectOptions::from(from))
    }

    /// Connects as `options` say.
    ///
    /// # Errors
    /// As [`TcpProbe::connect`].
    pub fn connect_with(to: SocketAddr, options: &ConnectOptions) -> Result<Self, ProbeError> {
        Ok(Probe::over(Tcp { stream: Stream::connect(to, options)? }))
    }
}

impl Transport for Tcp {
    fn send_message(&mut self, packets: &[u8]) -> Result<(), ProbeError> {
        self.stream.write(packets)
    }

    fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        self.stream.write(bytes)
    }

    fn recv(&mut self, deadline: Instant, asked: Duration) -> Result<Event, ProbeError> {
        loop {
            if let Some(packet) = goim::parse(&self.stream.unread, MAX_SERVER_BODY_BYTES)? {
                let (owned, taken) = (Packet::from(packet), packet.wire_bytes());
                let _ = self.stream.unread.split_to(taken);
                return Ok(Event::Packet(owned));
            }
            if let Fill::Closed(how) = self.stream.fill(deadline, asked, "a packet")? {
                return Ok(Event::Closed(how));
            }
        }
    }

    fn local_address(&self) -> SocketAddr {
        self.stream.local_address()
    }

    fn finish_sending(&mut self) -> Result<(), ProbeError> {
        self.stream.finish_sending()
    }

    fn abort(self) -> Result<(), ProbeError> {
        self.stream.abort()
    }
}
