//! Acknowledgements that are said later than what they acknowledge came.

use std::collections::VecDeque;
use std::time::Duration;

use abi::clients::{Client, Late, Script, state};

use super::error::XdpError;
use super::line::Line;
use super::slow;
use crate::load::stamp::monotonic_ns;

/// Of one turn, at most: half a ring, so that 64,000 go out in a second. What the program cannot hand over meanwhile it
/// says itself, at once.
const MAX_PER_TURN: usize = 128;

/// Those that wait, at most. Behind them, the program keeps a ring of them, and says itself what does not fit.
const MAX_WAITING: usize = 1 << 20;

/// See the module.
pub(super) struct LateAcknowledgements {
    delay_ns: u64,
    /// By time.
    waiting: VecDeque<Late>,
}

impl LateAcknowledgements {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay_ns: delay.as_nanos() as u64, waiting: VecDeque::new() }
    }

    /// Says those whose time has come.
    pub(super) fn turn(&mut self, line: &Line, script: &Script) -> Result<(), XdpError> {
        if self.delay_ns == 0 {
            return Ok(());
        }
        if self.waiting.len() < MAX_WAITING {
            line.program().take_late(|late| self.waiting.push_back(late));
        }
        let until_ns = monotonic_ns().saturating_sub(self.delay_ns);
        for _ in 0..MAX_PER_TURN {
            let Some(Late { number, next_in, .. }) = self.waiting.pop_front_if(|late| late.came_ns <= until_ns) else {
                break;
            };
            let client = line.client(number)?;
            if state::is_connected(client.state) {
                let then = Client { next_in, ..client };
                line.send(&line.frames.acknowledgement(number, &then, slow::window(script, &client)))?;
            }
        }
        Ok(())
    }
}
