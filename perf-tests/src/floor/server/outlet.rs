//! A round: one block to every socket of a thread, by either way, and what a socket did not take at once.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::ring::Ring;
use crate::floor::options::SendPath;
use crate::floor::orders::Sent;

/// How long full sockets are waited for before they are tried again in any case.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Sockets waited for at once.
const MAX_WAITED_FOR: usize = 64;

/// A socket that has not taken the whole block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owed {
    /// Index of the socket.
    pub(super) socket: u32,
    /// Bytes that it took: less than the block has.
    pub(super) taken: u32,
}

/// What a round found out of the ordinary.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    pub(super) owed: Vec<Owed>,
    pub(super) broken: u64,
}

impl Troubles {
    /// Notes what a socket made of `length` bytes, when that is not all of them.
    pub(super) fn note(&mut self, socket: u32, result: Result<usize, Errno>, length: usize) {
        match result {
            Ok(taken) if taken >= length => {}
            Ok(taken) => self.owed.push(Owed { socket, taken: taken as u32 }),
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => self.owed.push(Owed { socket, taken: 0 }),
            Err(_) => self.broken += 1,
        }
    }
}

/// A thread's way to the kernel.
pub(super) enum Outlet {
    Send,
    Ring(Box<Ring>),
}

impl Outlet {
    /// Made by the thread that uses it.
    pub(super) fn open(path: SendPath) -> io::Result<Self> {
        Ok(match path {
            SendPath::Send => Self::Send,
            SendPath::Ring => Self::Ring(Box::new(Ring::new()?)),
        })
    }

    /// Makes ready to send to `sockets`, which stay as they are until [`Outlet::forget`].
    pub(super) fn prepare(&mut self, sockets: &[OwnedFd]) -> io::Result<()> {
        match self {
            Self::Send => Ok(()),
            Self::Ring(ring) => ring.register(sockets),
        }
    }

    /// Lets go of the sockets.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        match self {
            Self::Send => Ok(()),
            Self::Ring(ring) => ring.unregister(),
        }
    }

    /// Writes `block` to every socket, wholly: returns when the last one has taken the last of it, or is broken.
    pub(super) fn round(&mut self, sockets: &[OwnedFd], block: &[u8], sent: &mut Sent) -> io::Result<()> {
        let mut troubles = Troubles::default();
        sent.writes += sockets.len() as u64;
        sent.system_calls += match self {
            Self::Ring(ring) => ring.send_to_all(block, &mut troubles)?,
            Self::Send => {
                for (index, socket) in sockets.iter().enumerate() {
                    troubles.note(index as u32, offer(socket, block), block.len());
                }
                sockets.len() as u64
            }
        };
        make_good(sockets, block, &mut troubles, sent)?;
        sent.broken += troubles.broken;
        Ok(())
    }
}

/// Brings the rest of `block` to those that did not take all of it.
fn make_good(sockets: &[OwnedFd], block: &[u8], troubles: &mut Troubles, sent: &mut Sent) -> io::Result<()> {
    while !troubles.owed.is_empty() {
        sent.short_writes += troubles.owed.len() as u64;
        wait_for_some(sockets, &troubles.owed)?;
        sent.writes += troubles.owed.len() as u64;
        sent.system_calls += 1 + troubles.owed.len() as u64;
        for Owed { socket, taken } in std::mem::take(&mut troubles.owed) {
            let rest = &block[taken as usize..];
            match offer(&sockets[socket as usize], rest) {
                Ok(more) if more < rest.len() => {
                    troubles.owed.push(Owed { socket, taken: taken + more as u32 });
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => troubles.owed.push(Owed { socket, taken }),
                other => troubles.note(socket, other, rest.len()),
            }
        }
    }
    Ok(())
}

fn wait_for_some(sockets: &[OwnedFd], owed: &[Owed]) -> io::Result<()> {
    let some = owed.iter().take(MAX_WAITED_FOR);
    let mut waited: Vec<PollFd<'_>> =
        some.map(|owed| PollFd::new(&sockets[owed.socket as usize], PollFlags::OUT)).collect();
    let most = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.as_nanos() as i64 };
    match poll(&mut waited, Some(&most)) {
        Err(error) if error != Errno::INTR => Err(error.into()),
        _ => Ok(()),
    }
}

/// Hands `bytes` to one socket, without waiting.
fn offer(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
