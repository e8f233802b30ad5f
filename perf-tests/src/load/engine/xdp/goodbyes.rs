//! Goodbyes: in order by FIN, said again until the server's kernel has it; by reset, said again until the server knows of no
//! such connection.
//!
//! The program does the rest: it acknowledges what the server still sends, answers its FIN, and resets whatever comes to a
//! connection that was reset.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use abi::clients::{Client, state};

use super::error::XdpError;
use super::frames::WINDOW;
use super::line::Line;
use super::{BURST, TICK};

/// FINs that the server's kernel has not acknowledged, at most: half of what the rings of the pair hold.
const MAX_UNHEARD: usize = 4_096;

/// Who is looked at in one turn, at most, of those who wait for something that is the server's to do.
const MAX_LOOKS: usize = 4_096;

/// How long the server's kernel may take to acknowledge a FIN or to answer for a connection that was reset.
const HEARD_WITHIN: Duration = Duration::from_millis(200);

/// Times that a client is reset, as long as it shows no effect.
const RESETS: u32 = 5;

/// How long the server may take to close all in the end, and what it gets beyond for every client.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
const CLOSES_A_CLIENT_WITHIN: Duration = Duration::from_micros(200);

/// A FIN that was not acknowledged yet.
struct Fin {
    number: u32,
    /// What the server awaits when it has heard it.
    until: u32,
    sent: Instant,
    /// When it was said first.
    since: Instant,
}

/// Those on their way out, in order.
pub(super) struct Goodbyes {
    /// Whether a client in a state is still on its way out: else the server has closed, and it may be back already.
    is_leaving: fn(u8) -> bool,
    /// How long the server may take to close.
    patience: Duration,
    /// Who has not said it yet.
    waiting: VecDeque<u32>,
    /// By time. At most [`MAX_UNHEARD`].
    unheard: VecDeque<Fin>,
    /// Whose FIN has come, and whose server has not closed yet, and when they said it.
    heard: VecDeque<(u32, Instant)>,
}

/// What became of a goodbye.
pub(super) struct Gone {
    pub(super) number: u32,
    /// Whether the server has closed.
    pub(super) answered: bool,
}

impl Goodbyes {
    /// For clients that are told to be [`state::LEAVING`].
    pub(super) fn new(patience: Duration) -> Self {
        Self::of(|state| state == state::LEAVING, patience)
    }

    fn of(is_leaving: fn(u8) -> bool, patience: Duration) -> Self {
        Self { is_leaving, patience, waiting: VecDeque::new(), unheard: VecDeque::new(), heard: VecDeque::new() }
    }

    pub(super) fn add(&mut self, number: u32) {
        self.waiting.push_back(number);
    }

    /// Whether all are gone.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.unheard.is_empty() && self.heard.is_empty()
    }

    /// Sends what may be sent now, at most `most` frames, and says who is gone. What was sent is taken from `most`.
    pub(super) fn turn(&mut self, line: &Line, most: &mut usize) -> Result<Vec<Gone>, XdpError> {
        let mut gone = Vec::new();
        for _ in 0..self.unheard.len() {
            let Some(fin) = self.unheard.pop_front() else { break };
            let client = line.client(fin.number)?;
            if !(self.is_leaving)(client.state) {
                gone.push(Gone { number: fin.number, answered: true });
            } else if client.next_out == fin.until {
                self.heard.push_back((fin.number, fin.since));
            } else if fin.since.elapsed() >= self.patience {
                gone.push(Gone { number: fin.number, answered: false });
            } else if fin.sent.elapsed() >= HEARD_WITHIN && *most > 0 {
                // Whatever was under way in front of it has come or is lost: it is said where the server is now.
                *most -= 1;
                self.say(line, fin.number, &client, fin.since)?;
            } else {
                self.unheard.push_back(fin);
            }
        }
        while *most > 0 && self.unheard.len() < MAX_UNHEARD {
            let Some(number) = self.waiting.pop_front() else { break };
            let client = line.client(number)?;
            if (self.is_leaving)(client.state) {
                *most -= 1;
                self.say(line, number, &client, Instant::now())?;
            } else {
                gone.push(Gone { number, answered: true });
            }
        }
        for _ in 0..self.heard.len().min(MAX_LOOKS) {
            let Some((number, since)) = self.heard.pop_front() else { break };
            if !(self.is_leaving)(line.client(number)?.state) {
                gone.push(Gone { number, answered: true });
            } else if since.elapsed() >= self.patience {
                gone.push(Gone { number, answered: false });
            } else {
                self.heard.push_back((number, since));
            }
        }
        Ok(gone)
    }

    fn say(&mut self, line: &Line, number: u32, client: &Client, since: Instant) -> Result<(), XdpError> {
        line.send(&line.frames.fin(number, client))?;
        self.unheard.push_back(Fin { number, until: line.frames.behind_fin(client), sent: Instant::now(), since });
        Ok(())
    }
}

/// Those who reset their connection, in order.
#[derive(Default)]
pub(super) struct Resets {
    waiting: VecDeque<u32>,
    /// Who has said it, how often, and when last.
    said: VecDeque<(u32, u32, Instant)>,
}

impl Resets {
    pub(super) fn add(&mut self, number: u32) {
        self.waiting.push_back(number);
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.said.is_empty()
    }

    /// Sends what may be sent now, at most `most` frames and one.
    pub(super) fn turn(&mut self, line: &Line, most: &mut usize) -> Result<(), XdpError> {
        for _ in 0..self.said.len().min(MAX_LOOKS) {
            if *most == 0 {
                return Ok(());
            }
            let Some((number, times, sent)) = self.said.pop_front() else { break };
            if sent.elapsed() < HEARD_WITHIN {
                // By time.
                self.said.push_front((number, times, sent));
                break;
            }
            if times < RESETS {
                self.say(line, number, times, most)?;
            }
        }
        while *most > 0 {
            let Some(number) = self.waiting.pop_front() else { break };
            self.say(line, number, 0, most)?;
        }
        Ok(())
    }

    fn say(&mut self, line: &Line, number: u32, times: u32, most: &mut usize) -> Result<(), XdpError> {
        let client = line.client(number)?;
        // Else the server has said that it knows of none, or the client is on its way back.
        if client.state == state::ABORTED {
            *most = most.saturating_sub(2);
            line.send(&line.frames.reset(number, &client))?;
            // Nothing answers a reset. What comes to a connection that is no more is answered by one.
            line.send(&line.frames.acknowledgement(number, &client, WINDOW))?;
            self.said.push_back((number, times + 1, Instant::now()));
        }
        Ok(())
    }
}

/// Ends the connections of all `clients` clients, of which no frame is under way any more, and who read whatever comes.
pub(super) fn end_all(line: &Line, clients: u32) -> Result<(), XdpError> {
    let deadline = Instant::now() + CLOSES_WITHIN + CLOSES_A_CLIENT_WITHIN * clients;
    // Again, because the answer to a SYN may have come meanwhile.
    let mut left = connected(line);
    while !left.is_empty() && Instant::now() < deadline {
        let mut goodbyes = Goodbyes::of(state::is_connected, Duration::MAX);
        left.iter().for_each(|number| goodbyes.add(*number));
        while !goodbyes.is_done() && Instant::now() < deadline {
            let mut most = BURST;
            goodbyes.turn(line, &mut most)?;
            thread::sleep(TICK);
        }
        left = connected(line);
    }
    let mut resets = Resets::default();
    for (number, client) in line.clients.numbered() {
        let has_none = matches!(client.state, state::FRESH | state::CLOSED | state::RESET | state::RETURNING);
        if !has_none && line.clients.turn(number, client.state, state::ABORTED) {
            resets.add(number);
        }
    }
    while !resets.is_done() {
        let mut most = BURST;
        resets.turn(line, &mut most)?;
        thread::sleep(TICK);
    }
    Ok(())
}

/// Those who have a connection that can be ended in order.
fn connected(line: &Line) -> Vec<u32> {
    line.clients.numbered().filter(|(_, client)| state::is_connected(client.state)).map(|(number, _)| number).collect()
}
