//! The end of a run around a server that goes on: each connection is reset, or the server would keep it, and send to it,
//! until its own patience ends.

use std::thread;
use std::time::Duration;

use abi::clients::state;

use super::error::XdpError;
use super::injector::{BURST, Injector};

/// Between two bursts.
const PAUSE: Duration = Duration::from_micros(500);

impl Injector {
    /// Resets whatever connection stands. Lost ones are not repeated: nothing would show it.
    pub(super) fn bid_farewell(&self) -> Result<(), XdpError> {
        let mut of_burst = 0;
        for number in 0..self.scenario.clients {
            let client = self.client(number)?;
            if !matches!(client.state, state::UPGRADING | state::GREETED | state::JOINED | state::REFUSED) {
                continue;
            }
            self.send(&self.frames.reset(number, &client))?;
            of_burst += 1;
            if of_burst == BURST {
                of_burst = 0;
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}
