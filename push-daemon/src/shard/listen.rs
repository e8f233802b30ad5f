//! Listening sockets, one set per shard, and bounded accepts.
//!
//! Every shard listens on every address itself (SO_REUSEPORT), so the kernel spreads connections and no shard
//! hands a descriptor to another, which would mean nothing there. A shard that is full closes its listeners:
//! the kernel then gives new connections to the others. Where connections are steered (`kernel::steer`), what waited in a
//! closed listener's queue goes to the others too; else the kernel resets it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use abi::steer::ShardState;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use socket2::{Domain, Protocol, Socket, Type};

use super::conn::Manner;
use super::reason::CloseReason;
use super::{BELL_TOKEN, LISTENER_TOKEN_BASE, Shard, token_of};
use crate::sys::defer_accept;

/// Of the capacity, in percent: below this a shard that was full listens again.
const LISTEN_AGAIN_PERCENT: u64 = 95;

/// How long the kernel holds back a client that has not said anything yet.
const DEFER_ACCEPT_S: i32 = 1;

/// After `accept` failed for want of descriptors or memory, it is tried again this much later.
const ACCEPT_RETRY_MS: u32 = 100;

/// One listening socket of one shard.
pub(crate) struct Listener {
    socket: TcpListener,
    websocket: bool,
    /// There may be connections to accept.
    ready: bool,
}

/// Binds a socket that shares its address with the other shards. What is set here is inherited by what it accepts.
/// Until it listens, the kernel gives it no connection.
pub(crate) fn bind(address: SocketAddr, unsent_bytes: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    defer_accept(&socket, DEFER_ACCEPT_S)?;
    // A client that does not read is noticed when the kernel holds this much for it, not its whole send buffer.
    socket.set_tcp_notsent_lowat(unsent_bytes)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Shard {
    /// Opens this shard's listeners on the addresses that were resolved at the start.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        let addresses = self.tcp.iter().map(|address| (*address, false));
        let addresses: Vec<_> = addresses.chain(self.websocket.iter().map(|address| (*address, true))).collect();
        for (number, (address, websocket)) in addresses.into_iter().enumerate() {
            let socket = bind(address, self.limits.unsent_bytes.get_u32())
                .and_then(|socket| socket.listen(self.backlog).map(|()| TcpListener::from(socket)))
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
            if let Some(seat) = &self.seat
                && let Err(error) = seat.enlist(number, address, &socket)
            {
                tracing::warn!(shard = self.id, %address, %error, "connections to this listener are not steered");
            }
            let token = Token(LISTENER_TOKEN_BASE + self.listeners.len());
            self.waits.door().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
            self.listeners.push(Listener { socket, websocket, ready: true });
        }
        if let Some(seat) = &self.seat {
            seat.set_state(ShardState::Open);
        }
        Ok(())
    }

    /// Has the shard look when another has closed its listeners.
    pub(crate) fn hang_the_bell(&mut self) -> io::Result<()> {
        let Some(seat) = &self.seat else { return Ok(()) };
        self.waits.door().register(&mut SourceFd(&seat.bell()), BELL_TOKEN, Interest::READABLE)
    }

    /// There may be connections that the kernel has moved here from a listener that closed.
    pub(crate) fn look_at_all_listeners(&mut self) {
        for listener in &mut self.listeners {
            listener.ready = true;
        }
    }

    /// Has no more connections come in, and closes the listeners. Where connections are steered, the kernel moves what still waits
    /// to others that are open, and those are told to look.
    pub(crate) fn close_doors(&mut self, state: ShardState) {
        if let Some(seat) = &self.seat {
            // First, so that nothing is moved here and back.
            seat.set_state(state);
        }
        if self.listeners.is_empty() {
            return;
        }
        self.listeners.clear();
        if let Some(seat) = &self.seat
            && let Err(error) = seat.ring()
        {
            tracing::warn!(shard = self.id, %error, "cannot tell the others to take what waited here");
        }
    }

    /// Has the kernel send no more connections, and takes those that are on their way until `last_call_ms` have passed.
    pub(crate) fn call_last(&mut self, last_call_ms: u32) {
        if last_call_ms == 0 || self.seat.is_none() || self.listeners.is_empty() {
            return self.close_doors(ShardState::Draining);
        }
        if let Some(seat) = &self.seat {
            seat.set_state(ShardState::Draining);
        }
        self.last_call = Some(self.now.after(last_call_ms));
    }

    /// Closes the listeners when the last call is over. True once, then.
    pub(crate) fn last_call_is_over(&mut self) -> bool {
        let over = self.last_call.take_if(|end| end.is_due(self.now)).is_some();
        if over {
            self.close_doors(ShardState::Draining);
        }
        over
    }

    /// Notes that a listener has connections.
    pub(crate) fn listener_is_ready(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.ready = true;
        }
    }

    /// Whether a call of [`Self::accept`] could do something.
    pub(crate) fn accepts_are_due(&self) -> bool {
        self.asking < self.most_asking
            && self.accept_again.is_none_or(|moment| moment.is_due(self.now))
            && self.listeners.iter().any(|l| l.ready)
    }

    /// Takes a bounded number of new connections in.
    pub(crate) fn accept(&mut self) {
        if self.listeners.is_empty() {
            return self.listen_again();
        }
        if !self.accepts_are_due() {
            return;
        }
        self.accept_again = None;
        for index in 0..self.listeners.len() {
            for _ in 0..self.accepts_per_turn {
                if self.connections.is_full() {
                    return self.stop_listening();
                }
                let may_ask = self.asking < self.most_asking;
                if !may_ask || !self.listeners[index].ready || !self.accept_one(index) {
                    break;
                }
            }
        }
    }

    /// Accepts one connection. False when there is none, or none can be taken now.
    fn accept_one(&mut self, index: usize) -> bool {
        let listener = &mut self.listeners[index];
        let socket = match accept_with(&listener.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => {
                listener.ready = false;
                return false;
            }
            Err(Errno::INTR | Errno::CONNABORTED) => return true,
            Err(error) => {
                if self.counters.accept_errors_total.get() == 0 {
                    tracing::warn!(shard = self.id, %error, "cannot accept connections; will try again");
                }
                self.counters.accept_errors_total.add(1);
                self.accept_again = Some(self.now.after(ACCEPT_RETRY_MS));
                return false;
            }
        };
        let websocket = listener.websocket;
        self.counters.accepted_total.add(1);
        let descriptor = socket.as_raw_fd();
        // The caller saw that there is room.
        let Ok(slot) = self.connections.insert(socket, Manner::new(websocket), self.now) else {
            return false;
        };
        self.outlet.opened(slot, descriptor);
        self.label(slot);
        self.websocket_connections += u32::from(websocket);
        let place = self.place(slot);
        self.handshakes.push_back((place, self.now.after(self.limits.handshake_timeout_ms.get_u32())));
        // The kernel held it back until its first bytes were there.
        if self.read(slot) {
            self.unread.push(place);
        }
        // What comes between the read and this makes an event of its own.
        if self.slot_of(&place).is_some()
            && let Err(error) = register(self.waits.clients(), descriptor, token_of(slot, place.generation))
        {
            tracing::warn!(shard = self.id, %error, "cannot watch a connection");
            self.part(slot, CloseReason::Unwatched, None);
        }
        true
    }

    fn stop_listening(&mut self) {
        self.counters.full_total.add(1);
        tracing::warn!(shard = self.id, connections = self.connections.live(), "full: takes no more connections");
        let drains = self.draining.is_some();
        self.close_doors(if drains { ShardState::Draining } else { ShardState::Full });
    }

    fn listen_again(&mut self) {
        let low = u64::from(self.connections.capacity()) * LISTEN_AGAIN_PERCENT / 100;
        let due = self.accept_again.is_none_or(|moment| moment.is_due(self.now));
        if self.draining.is_some() || !due || u64::from(self.connections.live()) > low {
            return;
        }
        if let Err(error) = self.listen() {
            tracing::error!(shard = self.id, %error, "cannot listen again; will try again");
            self.close_doors(ShardState::Full);
            self.accept_again = Some(self.now.after(ACCEPT_RETRY_MS));
        }
    }
}

/// Both directions at once and for good: an edge costs nothing while it does not come.
fn register(registry: &Registry, descriptor: i32, token: Token) -> io::Result<()> {
    registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE | Interest::WRITABLE)
}
