//! How a slice's bytes reach the kernel: one `send` at a time, or all of them as one io_uring submission.
//!
//! Both do the same, and say of each socket how much it took. Which one a shard has is chosen when it starts, because
//! kernels and sandboxes may forbid io_uring, and stays for its life.

use std::io;
use std::os::fd::{AsFd, RawFd};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::ring::{Ring, borrow};
use crate::block::{Block, View};
use crate::config::SendPath;

/// Below this many sends a submission costs more than it saves.
const RING_WORTHWHILE: usize = 8;

/// Sends of one submission.
pub(crate) const RING_ENTRIES: u32 = 256;

/// One send of a slice. A connection stands in a slice once: two sends to one socket could be taken in part, out of order.
pub(crate) struct Outgoing {
    pub(crate) slot: u32,
    /// The connection's; it stays open for as long as the slice is under way.
    pub(crate) socket: RawFd,
    /// Which of the slice's blocks.
    pub(crate) block: u32,
    pub(crate) view: View,
    pub(crate) outcome: Outcome,
}

impl Outgoing {
    /// What is to be sent; nothing if the block has not the view.
    pub(crate) fn bytes<'a>(&self, blocks: &'a [Block]) -> &'a [u8] {
        blocks.get(self.block as usize).and_then(|block| block.view(self.view)).unwrap_or_default()
    }
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The socket took this many bytes; it makes an event when it takes more.
    Taken(usize),
    /// The kernel is short of memory: nothing was taken, and no event will come.
    NoMemory,
    /// The connection is broken.
    Broken,
}

impl Outcome {
    /// From what the system call gave.
    pub(crate) fn of(result: Result<usize, Errno>) -> Self {
        match result {
            Ok(taken) => Self::Taken(taken),
            Err(Errno::AGAIN) => Self::Taken(0),
            Err(Errno::NOBUFS | Errno::NOMEM) => Self::NoMemory,
            Err(_) => Self::Broken,
        }
    }
}

/// How slices are sent.
pub(crate) enum Outlet {
    /// A system call for each send.
    Plain,
    /// A system call for up to [`RING_ENTRIES`] sends.
    Ring(Box<Ring>),
}

impl Outlet {
    /// The path that the settings ask for. `Auto` takes io_uring if there is any.
    ///
    /// # Errors
    /// io_uring was asked for and cannot be had.
    pub(crate) fn open(path: SendPath, shard: u16) -> io::Result<Self> {
        if path == SendPath::Plain {
            return Ok(Self::Plain);
        }
        match Ring::new(RING_ENTRIES) {
            Ok(ring) => Ok(Self::Ring(Box::new(ring))),
            Err(error) if path == SendPath::Auto => {
                tracing::info!(shard, %error, "no io_uring here: sends one by one");
                Ok(Self::Plain)
            }
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!(
                    "cannot set up io_uring: {error} (kernel.io_uring_disabled, a sandbox, or Linux before 6.1; use shard.send = \"plain\")"
                ),
            )),
        }
    }

    /// Whether sends go through io_uring.
    pub(crate) fn is_ring(&self) -> bool {
        matches!(self, Self::Ring(_))
    }

    /// Sends every connection of the slice its block and writes down what became of it. Gives how many system calls it
    /// took.
    ///
    /// # Errors
    /// The ring is broken, and with it the knowledge of what was sent: the shard cannot go on.
    pub(crate) fn run(&mut self, blocks: &[Block], slice: &mut [Outgoing]) -> io::Result<u64> {
        #[cfg(test)]
        let slice = super::send_faults::struck(slice);
        match self {
            Self::Ring(ring) if slice.len() >= RING_WORTHWHILE => ring.send_all(blocks, slice),
            _ => {
                for outgoing in &mut *slice {
                    outgoing.outcome = offer(borrow(outgoing.socket), outgoing.bytes(blocks));
                }
                Ok(slice.len() as u64)
            }
        }
    }
}

/// Hands `bytes` to one socket, without waiting.
pub(crate) fn offer(socket: impl AsFd, bytes: &[u8]) -> Outcome {
    #[cfg(test)]
    if let Some(outcome) = super::send_faults::next() {
        return outcome;
    }
    loop {
        match send(&socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return Outcome::of(result),
        }
    }
}
