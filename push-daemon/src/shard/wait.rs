//! What the loop waits for: clients, and the door, where orders and new connections come in.
//!
//! A client that speaks wakes the shard at once. Then the shard rests: for a few milliseconds only the door wakes it, and
//! the clients that speak up meanwhile are heard together. A million clients' heartbeats come one by one, and most
//! of what each costs is the waking. Orders and new connections are never kept waiting.
//!
//! It does not decide how long a rest is, nor what an event means.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

/// Events taken at once, of clients and of the door each.
const EVENTS: usize = 1_024;

/// The door, among the clients.
const DOOR_TOKEN: Token = Token(usize::MAX - 1);

/// The two sets that a shard waits for.
pub(crate) struct Waits {
    /// Clients; and the door, so that one call waits for both.
    all: Poll,
    /// The waker and the listeners.
    door: Poll,
}

/// What has come.
pub(crate) struct Came {
    clients: Events,
    door: Events,
}

impl Came {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { clients: Events::with_capacity(EVENTS), door: Events::with_capacity(EVENTS) }
    }

    /// Clients that can be read from or written to.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &Event> {
        self.clients.iter().filter(|event| event.token() != DOOR_TOKEN)
    }

    /// Listeners that have connections, and the waker.
    pub(crate) fn door(&self) -> impl Iterator<Item = &Event> {
        self.door.iter()
    }

    /// Whether there may be more clients than one call could tell of.
    pub(crate) fn is_full(&self) -> bool {
        self.clients.iter().count() >= EVENTS
    }
}

impl Waits {
    /// With `door`, in which the waker is.
    ///
    /// # Errors
    /// No descriptor, or no memory, for the clients' set.
    pub(crate) fn new(door: Poll) -> io::Result<Self> {
        let all = Poll::new()?;
        all.registry().register(&mut SourceFd(&door.as_raw_fd()), DOOR_TOKEN, Interest::READABLE)?;
        Ok(Self { all, door })
    }

    /// Where clients are registered.
    pub(crate) fn clients(&self) -> &Registry {
        self.all.registry()
    }

    /// Where listeners are registered.
    pub(crate) fn door(&self) -> &Registry {
        self.door.registry()
    }

    /// Waits until something comes, at most `longest`. A shard that `rests` hears the door alone; the clients are told
    /// of later.
    ///
    /// # Errors
    /// `epoll_wait` failed. An interruption is none.
    pub(crate) fn wait(&mut self, came: &mut Came, longest: Duration, rests: bool) -> io::Result<()> {
        came.clients.clear();
        came.door.clear();
        if rests {
            return uninterrupted(self.door.poll(&mut came.door, Some(longest)));
        }
        uninterrupted(self.all.poll(&mut came.clients, Some(longest)))?;
        if came.clients.iter().any(|event| event.token() == DOOR_TOKEN) {
            uninterrupted(self.door.poll(&mut came.door, Some(Duration::ZERO)))?;
        }
        Ok(())
    }
}

fn uninterrupted(polled: io::Result<()>) -> io::Result<()> {
    match polled {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use mio::Waker;

    use super::*;

    const WAKER: Token = Token(7);
    const CLIENT: Token = Token(8);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn tokens<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<Token> {
        events.map(Event::token).collect()
    }

    #[test]
    fn a_rest_ends_at_the_door_and_loses_no_client() {
        let door = Poll::new().unwrap();
        let waker = Waker::new(door.registry(), WAKER).unwrap();
        let mut waits = Waits::new(door).unwrap();
        let mut came = Came::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        waits.clients().register(&mut SourceFd(&accepted.as_raw_fd()), CLIENT, Interest::READABLE).unwrap();

        client.write_all(b"!").unwrap();
        waits.wait(&mut came, Duration::from_millis(20), true).unwrap();
        assert_eq!(tokens(came.clients().chain(came.door())), [], "a client does not end a rest");
        waker.wake().unwrap();
        waits.wait(&mut came, PATIENCE, true).unwrap();
        assert_eq!((tokens(came.clients()), tokens(came.door())), (vec![], vec![WAKER]));
        waits.wait(&mut came, PATIENCE, false).unwrap();
        assert_eq!((tokens(came.clients()), tokens(came.door())), (vec![CLIENT], vec![]), "it was only kept waiting");

        waker.wake().unwrap();
        client.write_all(b"!").unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            waits.wait(&mut came, PATIENCE, false).unwrap();
            seen.extend(tokens(came.clients().chain(came.door())));
        }
        seen.sort_unstable();
        assert_eq!(seen, [WAKER, CLIENT], "who does not rest hears both");
    }
}
