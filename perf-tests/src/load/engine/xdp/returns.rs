//! Coming back: at its time, with a new connection, and again until it is granted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use abi::clients::{Client, UNHEARD, state};

use super::error::XdpError;
use super::line::Line;
use crate::load::stamp::monotonic_ns;

/// How long the server may take to answer a SYN, or the auth packet that came with the answer to it.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// After an attempt that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who is looked at in one turn, at most.
const MAX_LOOKS: usize = 256;

/// When a client wants to be back, on the clock of the stamps.
type Wanted = u64;

/// An attempt.
struct Attempt {
    number: u32,
    wanted_ns: Wanted,
    sent: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Returns {
    /// By time, the earliest first.
    due: BinaryHeap<Reverse<(Instant, u32, Wanted)>>,
    under_way: VecDeque<Attempt>,
}

/// What came of a turn.
#[derive(Default)]
pub(super) struct Turned {
    /// Who is back, and after how long.
    pub(super) back: Vec<(u32, Duration)>,
    /// Attempts begun.
    pub(super) begun: u32,
}

impl Returns {
    /// A client without a connection wants to be back, from `wanted` on.
    pub(super) fn add(&mut self, number: u32, wanted: Instant) {
        let now = Instant::now();
        let (ahead, behind) = (wanted.saturating_duration_since(now), now.saturating_duration_since(wanted));
        let wanted_ns = monotonic_ns() + ahead.as_nanos() as u64 - behind.as_nanos() as u64;
        self.due.push(Reverse((wanted, number, wanted_ns)));
    }

    /// Begins those whose time has come, with at most `open` under way and at most `most` frames, and says who is back.
    pub(super) fn turn(&mut self, line: &Line, open: usize, most: &mut usize) -> Result<Turned, XdpError> {
        let mut turned = Turned::default();
        for _ in 0..self.under_way.len().min(MAX_LOOKS) {
            let Some(attempt) = self.under_way.pop_front() else { break };
            self.look(line, attempt, most, &mut turned)?;
        }
        while *most > 0 && self.under_way.len() < open {
            let now = Instant::now();
            if self.due.peek().is_none_or(|Reverse((at, ..))| *at > now) {
                break;
            }
            let Some(Reverse((_, number, wanted_ns))) = self.due.pop() else { break };
            *most -= 1;
            turned.begun += 1;
            line.begin_return(number)?;
            self.under_way.push_back(Attempt { number, wanted_ns, sent: now });
        }
        Ok(turned)
    }

    fn look(&mut self, line: &Line, attempt: Attempt, most: &mut usize, turned: &mut Turned) -> Result<(), XdpError> {
        let Attempt { number, wanted_ns, sent } = attempt;
        let client = line.client(number)?;
        match client.state {
            state::RETURNING | state::UPGRADING_AGAIN | state::GREETED_AGAIN => {
                let again = sent.elapsed() >= ANSWER_WITHIN && *most > 0;
                if again {
                    *most -= 1;
                    line.say_return(number, client.next_out)?;
                }
                self.under_way.push_back(Attempt { sent: if again { Instant::now() } else { sent }, ..attempt });
            }
            // Granted, whatever became of it since.
            now if state::is_in(now) || client.sent_ns != 0 => turned.back.push((number, waited(&client, wanted_ns))),
            _ => self.due.push(Reverse((Instant::now() + RETRY_AFTER, number, wanted_ns))),
        }
        Ok(())
    }
}

/// From the moment that it wanted to be back to its grant, or, when that was forgotten over its first message, until now.
fn waited(client: &Client, wanted_ns: Wanted) -> Duration {
    let granted_ns = if client.next_number == UNHEARD { client.sent_ns } else { monotonic_ns() };
    Duration::from_nanos(granted_ns.saturating_sub(wanted_ns))
}
