//! A TCP connection whose reads end at a deadline, with what has come and is not taken yet.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::{Domain, Socket, Type};

use super::error::{Closed, ProbeError};
use crate::sys;

/// How long a connect, and the WebSocket upgrade behind it, may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How a probe connects, when plainly is not what the test needs.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Source address; the kernel's choice when none.
    pub from: Option<IpAddr>,
    /// `SO_RCVBUF`, set before the handshake: a small one makes a slow client early.
    pub receive_buffer_bytes: Option<usize>,
    /// WebSocket only: the path asked for.
    pub path: String,
    /// WebSocket only: further header lines of the upgrade, each with its CRLF (`Cookie: a=b\r\n`).
    pub extra_headers: String,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { from: None, receive_buffer_bytes: None, path: "/sub".to_owned(), extra_headers: String::new() }
    }
}

impl ConnectOptions {
    /// From this address.
    #[must_use]
    pub fn from(address: IpAddr) -> Self {
        Self { from: Some(address), ..Self::default() }
    }
}

pub(super) enum Fill {
    Some,
    Closed(Closed),
}

/// The connection, and the bytes that came but were not taken.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    pub(super) unread: BytesMut,
}

impl Stream {
    pub(super) fn connect(to: SocketAddr, options: &ConnectOptions) -> Result<Self, ProbeError> {
        let socket = Self::open(to, options).map_err(ProbeError::io(format!("connect to {to}")))?;
        Ok(Self { socket, unread: BytesMut::new() })
    }

    fn open(to: SocketAddr, options: &ConnectOptions) -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(bytes) = options.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(from) = options.from {
            sys::bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), CONNECT_WITHIN)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_write_timeout(Some(CONNECT_WITHIN))?;
        Ok(socket.into())
    }

    /// Reads once into `unread`; gives up at `deadline` with a timeout that names `awaited`.
    pub(super) fn fill(&mut self, deadline: Instant, asked: Duration, awaited: &str) -> Result<Fill, ProbeError> {
        let timeout = || ProbeError::Timeout { awaited: awaited.to_owned(), within: asked };
        let mut scratch = [0; 64 << 10];
        loop {
            // A deadline that is already past still gets what has arrived: one read of the shortest kind.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).map_err(ProbeError::io("set a read deadline"))?;
            return match self.socket.read(&mut scratch) {
                Ok(0) => Ok(Fill::Closed(match self.unread.len() {
                    0 => Closed::Fin,
                    bytes => Closed::MidPacket(bytes),
                })),
                Ok(bytes) => {
                    self.unread.extend_from_slice(&scratch[..bytes]);
                    Ok(Fill::Some)
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut if Instant::now() < deadline => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(timeout()),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(Fill::Closed(Closed::Reset)),
                    _ => Err(ProbeError::io(format!("read {awaited}"))(error)),
                },
            };
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        self.socket.write_all(bytes).map_err(|error| match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ProbeError::Closed(Closed::Reset),
            _ => ProbeError::io(format!("send {} bytes", bytes.len()))(error),
        })
    }

    pub(super) fn local_address(&self) -> SocketAddr {
        let unknown = match self.socket.peer_addr() {
            Ok(SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        self.socket.local_addr().unwrap_or(SocketAddr::new(unknown, 0))
    }

    pub(super) fn finish_sending(&self) -> Result<(), ProbeError> {
        self.socket.shutdown(Shutdown::Write).map_err(ProbeError::io("end our half of the connection"))
    }

    /// Ends the connection with a reset instead of a FIN.
    pub(super) fn abort(self) -> Result<(), ProbeError> {
        let socket = Socket::from(self.socket);
        socket.set_linger(Some(Duration::ZERO)).map_err(ProbeError::io("arm a reset"))
    }
}
