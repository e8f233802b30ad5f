//! Windows: what a client that does not read all has room for, and who says so when nothing comes that could be answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use abi::clients::reading::{self, Reading};
use abi::clients::{Client, Script, state};

use super::error::XdpError;
use super::frames::WINDOW;
use super::line::Line;
use crate::load::stamp::monotonic_ns;

/// How often it is looked what a slow client has read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who has room again.
pub(super) struct Windows {
    /// Who reads slowly, and up to which byte the server has been told that there is room.
    readers: VecDeque<(u32, u32)>,
    /// Readers to be looked at, with the part of one that is left from the last turn.
    due: f64,
    last: Instant,
    /// Who reads everything from now on, and has to say so.
    opened: VecDeque<u32>,
}

impl Windows {
    pub(super) fn new() -> Self {
        Self { readers: VecDeque::new(), due: 0.0, last: Instant::now(), opened: VecDeque::new() }
    }

    /// A client begins to read slowly.
    pub(super) fn add(&mut self, number: u32, client: &Client) {
        self.readers.push_back((number, client.next_in));
    }

    /// A client has room for everything again.
    pub(super) fn open(&mut self, number: u32) {
        self.opened.push_back(number);
    }

    /// Sends what is due, at most `most` frames.
    pub(super) fn turn(&mut self, line: &Line, script: &Script, most: &mut usize) -> Result<(), XdpError> {
        while *most > 0 {
            let Some(number) = self.opened.pop_front() else { break };
            let client = line.client(number)?;
            if state::is_in(client.state) {
                *most -= 1;
                line.send(&line.frames.acknowledgement(number, &client, window(script, &client)))?;
            }
        }
        let all = self.readers.len() as f64;
        self.due = (self.due + all * self.last.elapsed().as_secs_f64() / LOOK_EVERY.as_secs_f64()).min(all);
        self.last = Instant::now();
        while self.due >= 1.0 && *most > 0 {
            self.due -= 1.0;
            let Some((number, told)) = self.readers.pop_front() else { break };
            let client = line.client(number)?;
            // Who is gone or reads again is one no more.
            if state::rate_of(client.state).is_none_or(|rate| rate == 0) {
                continue;
            }
            let end = client.next_in.wrapping_add(free(script, &client).unwrap_or(0));
            let offered = window(script, &client);
            let is_news = end.wrapping_sub(told).cast_signed() >= script.room_bytes.div_ceil(2).min(1460).cast_signed();
            if offered > 0 && is_news {
                *most -= 1;
                line.send(&line.frames.acknowledgement(number, &client, offered))?;
            }
            self.readers.push_back((number, if is_news { end } else { told }));
        }
        Ok(())
    }
}

/// The window that a client offers.
pub(super) fn window(script: &Script, client: &Client) -> u16 {
    free(script, client).map_or(WINDOW, |free| reading::window(free, script.room_bytes))
}

/// Bytes that a client has room for; `None` when it reads whatever comes.
fn free(script: &Script, client: &Client) -> Option<u32> {
    let rate = state::rate_of(client.state).filter(|_| script.all_read == 0)?;
    let now_ms = (monotonic_ns() / 1_000_000) as u32;
    let (bytes_per_second, room) = (script.bytes_per_second[usize::from(rate)], script.room_bytes);
    let reading = Reading::of(client.sent_ns).at(client.next_in, now_ms, bytes_per_second, room);
    Some(reading.free(client.next_in, now_ms, bytes_per_second, room))
}
