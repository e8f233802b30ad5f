//! Clients that read so many bytes a second and no more: each a little, in turns.

use std::time::{Duration, Instant};

use super::intake::State;
use super::shard::{Role, Shard};

/// How often each slow client reads.
const TURN: Duration = Duration::from_millis(100);

/// The slow clients of a thread.
#[derive(Debug, Default)]
pub(super) struct SlowReaders {
    /// Slot, and bytes a second. Who is gone or reads again is taken out at the next turn.
    readers: Vec<(u32, u32)>,
    turns: u64,
    next: Option<Instant>,
}

impl SlowReaders {
    pub(super) fn add(&mut self, slot: usize, bytes_per_second: u32) {
        self.readers.push((slot as u32, bytes_per_second));
    }
}

impl Shard {
    /// Has each slow client read its part, when it is time.
    pub(super) fn slow_turn(&mut self) {
        let now = Instant::now();
        if self.slow.readers.is_empty() || self.slow.next.is_some_and(|next| now < next) {
            return;
        }
        self.slow.next = Some(now + TURN);
        self.slow.turns += 1;
        let turn = self.slow.turns;
        let mut readers = std::mem::take(&mut self.slow.readers);
        readers.retain(|&(slot, rate)| {
            let client = &self.clients[slot as usize];
            let still = client.role == Role::Slow && client.state == State::Joined;
            if still && !self.looking_into_unread {
                self.read(slot as usize, part_of(rate, turn));
            }
            still
        });
        self.slow.readers = readers;
    }
}

/// Bytes to read in the `turn`th turn, from 1, so that whole seconds come out right.
fn part_of(bytes_per_second: u32, turn: u64) -> usize {
    let per_second = u64::from(bytes_per_second);
    let turns = (Duration::from_secs(1).as_millis() / TURN.as_millis()) as u64;
    (per_second * turn / turns - per_second * (turn - 1) / turns) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_second_add_up() {
        for rate in [0, 1, 7, 10, 999, 1_000_000] {
            for first in [1, 4, 1000] {
                let read: usize = (first..first + 10).map(|turn| part_of(rate, turn)).sum();
                assert_eq!(read, rate as usize, "{rate} bytes a second from turn {first} on");
            }
        }
    }
}
