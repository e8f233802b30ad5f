//! What userspace tells single clients, past the script.

use abi::clients::{Client, HEARD_FROM_MAP};
use aya::maps::Array;

use super::{Program, failed, typed};
use crate::load::engine::xdp::error::XdpError;

impl Program {
    /// Brings a client from one state into another. False when it is not in that one.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn turn(&mut self, number: u32, from: u8, to: u8) -> Result<bool, XdpError> {
        let client = self.client(number)?;
        if client.state != from {
            return Ok(false);
        }
        self.set_client(number, &Client { state: to, ..client })?;
        Ok(true)
    }

    /// The first message of the phase that a client heard, when it came back in its middle and heard one.
    ///
    /// # Errors
    /// [`XdpError::Table`].
    pub fn heard_from(&self, number: u32) -> Result<u32, XdpError> {
        let table: Array<_, u32> = typed(self.object.map(HEARD_FROM_MAP), HEARD_FROM_MAP)?;
        table.get(&number, 0).map_err(failed("read", HEARD_FROM_MAP))
    }
}
