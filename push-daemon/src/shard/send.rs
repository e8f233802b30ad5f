//! How a slice's bytes reach the kernel: one `send` at a time, or all of them as one io_uring submission.
//!
//! Both do the same, and say of each socket how much it took. Which one a shard has is chosen when it starts, because
//! kernels and sandboxes may forbid io_uring, and stays for its life.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, RawFd};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use super::ring::{Ring, borrow};
use crate::block::{Block, View};
use crate::config::SendPath;

/// Below this many sends a submission costs more than it saves.
const RING_WORTHWHILE: usize = 2;

/// Sends of one submission.
pub(crate) const RING_ENTRIES: u32 = 256;

/// One send of a slice. A connection stands in a slice once: two sends to one socket could be taken in part, out of order.
pub(crate) struct Outgoing {
    pub(crate) slot: u32,
    /// The connection's; it stays open for as long as the slice is under way.
    pub(crate) socket: RawFd,
    pub(crate) piece: Piece,
    pub(crate) outcome: Outcome,
}

/// What one send of a slice carries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece {
    /// A view of the slice's block of this number.
    Block(u32, View),
    /// A part of the slice's answers: from where, and how many bytes.
    Answer(u32, u32),
}

/// What the sends of a slice carry, all together.
#[derive(Default)]
pub(crate) struct Pieces {
    /// At most one a send.
    pub(crate) blocks: Vec<Block>,
    /// Answers to clients, one after another. Bounded by the sends of a slice and the longest answer.
    pub(crate) answers: Vec<u8>,
}

impl Pieces {
    /// The bytes of one; none if its block has not the view.
    pub(crate) fn bytes(&self, piece: Piece) -> &[u8] {
        match piece {
            Piece::Block(number, view) => self.blocks.get(number as usize).and_then(|block| block.view(view)),
            Piece::Answer(at, length) => self.answers.get(at as usize..(at + length) as usize),
        }
        .unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
        self.answers.clear();
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
    /// The path that the settings ask for, for a shard of so many `slots`. `Auto` takes io_uring if there is any.
    ///
    /// # Errors
    /// io_uring was asked for and cannot be had.
    pub(crate) fn open(path: SendPath, shard: u16, slots: u32) -> io::Result<Self> {
        if path == SendPath::Plain {
            return Ok(Self::Plain);
        }
        match Ring::new(RING_ENTRIES, slots) {
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

    /// Connections whose sockets the ring holds by itself.
    pub(crate) fn held(&self) -> u32 {
        match self {
            Self::Ring(ring) => ring.held(),
            Self::Plain => 0,
        }
    }

    /// A connection came to be in `slot`.
    pub(crate) fn opened(&mut self, slot: u32, socket: RawFd) {
        if let Self::Ring(ring) = self {
            ring.opened(slot, socket);
        }
    }

    /// The connection in `slot` is about to close its socket, which may live on until [`Self::let_go`].
    pub(crate) fn closed(&mut self, slot: u32) {
        if let Self::Ring(ring) = self {
            ring.closed(slot);
        }
    }

    /// Ends the sockets of closed connections that the ring still holds. Once a turn, before the shard waits: until then
    /// such a socket is in the poll as well.
    pub(crate) fn let_go(&mut self) {
        if let Self::Ring(ring) = self {
            ring.let_go();
        }
    }

    /// Sends every connection of the slice its piece and writes down what became of it. Gives how many system calls it
    /// took.
    ///
    /// # Errors
    /// The ring is broken, and with it the knowledge of what was sent: the shard cannot go on.
    pub(crate) fn run(&mut self, pieces: &Pieces, slice: &mut [Outgoing]) -> io::Result<u64> {
        #[cfg(test)]
        let slice = super::send_faults::struck(slice);
        match self {
            Self::Ring(ring) if slice.len() >= RING_WORTHWHILE => ring.send_all(pieces, slice),
            _ => {
                for outgoing in &mut *slice {
                    outgoing.outcome = offer(borrow(outgoing.socket), pieces.bytes(outgoing.piece));
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

/// Hands several pieces to one socket with one call, without waiting.
pub(crate) fn offer_all(socket: impl AsFd, pieces: &[IoSlice<'_>]) -> Outcome {
    #[cfg(test)]
    if let Some(outcome) = super::send_faults::next() {
        return outcome;
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match sendmsg(&socket, pieces, &mut SendAncillaryBuffer::default(), flags) {
            Err(Errno::INTR) => {}
            result => return Outcome::of(result),
        }
    }
}
