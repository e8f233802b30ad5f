//! The end of a run that was interrupted, around a server that goes on: each connection is reset, or the server would keep
//! it, and send to it, until its own patience ends. Nobody waits for more than that.

use std::thread;

use abi::clients::state;

use super::error::XdpError;
use super::line::Line;
use super::{BURST, TICK};

/// Resets whatever connection of `clients` clients stands. Lost ones are not repeated: nothing would show it.
pub(super) fn reset_all(line: &Line, clients: u32) -> Result<(), XdpError> {
    let mut of_burst = 0;
    for number in 0..clients {
        let client = line.client(number)?;
        if !state::is_connected(client.state) {
            continue;
        }
        line.send(&line.frames.reset(number, &client))?;
        of_burst += 1;
        if of_burst == BURST {
            of_burst = 0;
            thread::sleep(TICK);
        }
    }
    Ok(())
}
