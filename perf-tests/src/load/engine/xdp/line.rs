//! What stands between userspace and one client: how it stands, what it is told, and frames in its name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::clients::{Client, state};
use socket2::Socket;

use super::error::XdpError;
use super::frames::Frames;
use super::program::{Clients, Program};

/// See the module.
pub(super) struct Line {
    pub(super) program: Arc<Mutex<Program>>,
    /// The program's.
    pub(super) clients: Arc<Clients>,
    pub(super) frames: Frames,
    pub(super) socket: Socket,
}

impl Line {
    /// The other tables.
    pub(super) fn program(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client(&self, number: u32) -> Result<Client, XdpError> {
        self.clients.client(number)
    }

    /// Sends the first SYN of a new connection of a client that has none.
    pub(super) fn begin_return(&self, number: u32) -> Result<(), XdpError> {
        let next_out = self.frames.sequence_after(number, self.client(number)?.next_out).wrapping_add(1);
        self.clients.put(number, &Client { next_out, state: state::RETURNING, ..Client::default() });
        self.say_return(number, next_out)
    }

    /// Sends the SYN of a client that is on its way back, and expects `next_out` to be acknowledged.
    pub(super) fn say_return(&self, number: u32, next_out: u32) -> Result<(), XdpError> {
        self.send(&self.frames.syn_from(number, next_out.wrapping_sub(1)))
    }

    pub(super) fn send(&self, frame: &[u8]) -> Result<(), XdpError> {
        match self.socket.send(frame) {
            Ok(_) => Ok(()),
            // The ring is full: it is sent again as if it had been lost.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(XdpError::io("send a client's frame")(error)),
        }
    }
}
