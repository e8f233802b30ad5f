//! What stands between userspace and one client: how it stands, and frames in its name.

use std::sync::{Arc, Mutex, PoisonError};

use abi::clients::Client;
use socket2::Socket;

use super::error::XdpError;
use super::frames::Frames;
use super::program::Program;

/// See the module.
pub(super) struct Line {
    pub(super) program: Arc<Mutex<Program>>,
    pub(super) frames: Frames,
    pub(super) socket: Socket,
}

impl Line {
    pub(super) fn client(&self, number: u32) -> Result<Client, XdpError> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).client(number)
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
