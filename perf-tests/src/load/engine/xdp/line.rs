//! What stands between userspace and one client: how it stands, and frames in its name.

use std::sync::Arc;

use abi::clients::Client;
use socket2::Socket;

use super::error::XdpError;
use super::frames::Frames;
use super::program::Clients;

/// See the module.
pub(super) struct Line {
    pub(super) clients: Arc<Clients>,
    pub(super) frames: Frames,
    pub(super) socket: Socket,
}

impl Line {
    pub(super) fn client(&self, number: u32) -> Result<Client, XdpError> {
        self.clients.client(number)
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
