//! Goodbyes: in order by FIN, repeated until the server has closed; by reset for whom it has not closed in time.
//!
//! The program does the rest: it acknowledges what the server still sends, and answers its FIN.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use abi::clients::{Client, state};

use super::error::XdpError;
use super::line::Line;

/// Frames go out in bursts, one in each of these.
const TICK: Duration = Duration::from_millis(2);

/// Frames of a burst, at most: a quarter of the ring.
const BURST: usize = 64;

/// FINs that the server's kernel has not acknowledged, at most: a ring of them.
const MAX_UNHEARD: usize = 256;

/// How long the server's kernel may take to acknowledge one.
const HEARD_WITHIN: Duration = Duration::from_millis(200);

/// How long the server may take to close all, and what it gets beyond for every client.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
const CLOSES_A_CLIENT_WITHIN: Duration = Duration::from_micros(200);

/// Times that who is left is reset, as long as it shows no effect.
const RESETS: u32 = 5;

/// A FIN that was not acknowledged yet.
struct Fin {
    number: u32,
    /// Its sequence number.
    at: u32,
    sent: Instant,
}

/// Those on their way out, in order.
#[derive(Default)]
pub(super) struct Goodbyes {
    /// Who has not said it yet.
    waiting: VecDeque<u32>,
    /// By time. At most [`MAX_UNHEARD`].
    unheard: VecDeque<Fin>,
    /// Whose FIN has come, and whose server has not closed yet.
    heard: VecDeque<u32>,
}

impl Goodbyes {
    pub(super) fn add(&mut self, number: u32) {
        self.waiting.push_back(number);
    }

    /// Whether all are gone.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.unheard.is_empty() && self.heard.is_empty()
    }

    /// Sends what may be sent now, and takes out who is gone. Gives the number of frames, at most `most`.
    pub(super) fn turn(&mut self, line: &Line, most: usize) -> Result<usize, XdpError> {
        let mut sent = 0;
        for _ in 0..self.unheard.len() {
            let Some(fin) = self.unheard.pop_front() else { break };
            let client = line.client(fin.number)?;
            if !is_connected(&client) {
                continue;
            }
            if client.next_out == fin.at.wrapping_add(1) {
                self.heard.push_back(fin.number);
            } else if fin.sent.elapsed() >= HEARD_WITHIN && sent < most {
                // Whatever was under way in front of it has come or is lost: it is said where the server is now.
                sent += 1;
                self.say(line, fin.number, &client)?;
            } else {
                self.unheard.push_back(fin);
            }
        }
        while sent < most && self.unheard.len() < MAX_UNHEARD {
            let Some(number) = self.waiting.pop_front() else { break };
            let client = line.client(number)?;
            if is_connected(&client) {
                sent += 1;
                self.say(line, number, &client)?;
            }
        }
        // Whoever is behind the first is looked at when the first is gone: all have to be.
        while let Some(&number) = self.heard.front() {
            if is_connected(&line.client(number)?) {
                break;
            }
            self.heard.pop_front();
        }
        Ok(sent)
    }

    fn say(&mut self, line: &Line, number: u32, client: &Client) -> Result<(), XdpError> {
        line.send(&line.frames.fin(number, client))?;
        self.unheard.push_back(Fin { number, at: client.next_out, sent: Instant::now() });
        Ok(())
    }
}

/// Ends the connections of all `clients` clients, of which no frame is under way any more.
pub(super) fn end_all(line: &Line, clients: u32) -> Result<(), XdpError> {
    let deadline = Instant::now() + CLOSES_WITHIN + CLOSES_A_CLIENT_WITHIN * clients;
    // Again, because the answer to a SYN may have come meanwhile.
    let mut left = connected(line, 0..clients)?;
    while !left.is_empty() && Instant::now() < deadline {
        let mut goodbyes = Goodbyes::default();
        left.iter().for_each(|number| goodbyes.add(*number));
        while !goodbyes.is_done() && Instant::now() < deadline {
            goodbyes.turn(line, BURST)?;
            thread::sleep(TICK);
        }
        left = connected(line, 0..clients)?;
    }
    for _ in 0..RESETS {
        if left.is_empty() {
            break;
        }
        for burst in left.chunks(BURST / 2) {
            for &number in burst {
                let client = line.client(number)?;
                line.send(&line.frames.reset(number, &client))?;
                // Nothing answers a reset. What comes to a connection that is no more is answered by one.
                line.send(&line.frames.acknowledgement(number, &client))?;
            }
            thread::sleep(TICK);
        }
        thread::sleep(HEARD_WITHIN);
        left = connected(line, left)?;
    }
    Ok(())
}

/// Those of `numbers` who have a connection.
fn connected(line: &Line, numbers: impl IntoIterator<Item = u32>) -> Result<Vec<u32>, XdpError> {
    let mut connected = Vec::new();
    for number in numbers {
        if is_connected(&line.client(number)?) {
            connected.push(number);
        }
    }
    Ok(connected)
}

pub(super) fn is_connected(client: &Client) -> bool {
    matches!(client.state, state::UPGRADING | state::GREETED | state::JOINED | state::REFUSED)
}
