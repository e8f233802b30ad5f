//! What one room has to send: the round under way, what came meanwhile, and the merge window.
//!
//! A round sends one block to the members that a room had when it began. It is served in slices, between which members
//! come and go, so the list of members is kept in three parts while a round is under way:
//!
//! ```text
//! members: [ served ... | due ... | joined since ... ]
//!                       ^ next    ^ end
//! ```
//!
//! It knows nothing of names and of who the members are (`rooms`), nor of time: whoever opened a window closes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::order::RoomRun;
use crate::block::Block;

/// How long messages of a room wait for others, by the type of the room.
#[derive(Debug, Clone, Default)]
pub struct MergeWindows {
    /// For types that are not named, in milliseconds.
    pub default_ms: u32,
    /// Milliseconds by type: what stands before `://`.
    pub by_type: BTreeMap<String, u32>,
}

impl MergeWindows {
    /// The window of the room `room`, by its type.
    pub(crate) fn of(&self, room: &str) -> u32 {
        let kind = room.split_once("://").map_or(room, |(kind, _)| kind);
        self.by_type.get(kind).copied().unwrap_or(self.default_ms)
    }
}

/// What a room has to send.
#[derive(Default)]
pub(crate) struct Activity {
    round: Option<Round>,
    /// Runs that came while the round was under way, or whose merge window is open; they ride in the next block.
    backlog: VecDeque<Arc<RoomRun>>,
    /// Runs at the front of the backlog whose window has closed. Invariant: at most `backlog.len()`.
    ready: usize,
}

/// What [`Activity::serve`] came to.
pub(crate) enum Served {
    /// This block, to the members that were named.
    Send {
        /// Of the round.
        block: Block,
        /// Bytes that left the backlog with it.
        taken_bytes: usize,
        /// There is more: members that are still due the block, or a backlog.
        goes_on: bool,
    },
    /// What waits has to wait for the end of its merge window.
    Wait,
    /// Nothing more.
    Over,
}

struct Round {
    block: Block,
    /// `members[..next]` were served. Invariant: `next <= end <= members.len()`.
    next: u32,
    /// `members[end..]` joined since the round began and are not due.
    end: u32,
}

impl Activity {
    /// Puts `run` behind what the room still has to send. Without a merge window it is ready at once.
    pub(crate) fn push(&mut self, run: Arc<RoomRun>, merge_ms: u32) {
        self.backlog.push_back(run);
        if merge_ms == 0 {
            self.ready = self.backlog.len();
        }
    }

    /// The merge window is over: what has come goes. False when nothing has.
    pub(crate) fn close_window(&mut self) -> bool {
        self.ready = self.backlog.len();
        self.ready > 0
    }

    /// Bytes that wait.
    pub(crate) fn backlog_bytes(&self) -> usize {
        bytes_of(self.backlog.iter())
    }

    /// Empty, with its memory.
    pub(crate) fn cleared(mut self) -> Self {
        self.backlog.clear();
        Self { backlog: self.backlog, ..Self::default() }
    }

    /// Appends to `due` up to `most` of `members`, whose turn this call is, and gives the block that they are due and
    /// how many bytes of the backlog have gone into it just now.
    pub(crate) fn serve(
        &mut self,
        members: &[u32],
        most: usize,
        block_bytes: usize,
        build: impl FnOnce(&[Arc<RoomRun>]) -> Block,
        due: &mut Vec<u32>,
    ) -> Served {
        let mut taken_bytes = 0;
        let under_way = self.round.take().filter(|round| round.next < round.end);
        let mut round = match under_way {
            Some(round) => round,
            None if self.backlog.is_empty() => return Served::Over,
            None if self.ready == 0 => return Served::Wait,
            None => {
                let runs = &self.backlog.make_contiguous()[..self.ready];
                let runs = &runs[..fitting(runs, block_bytes)];
                let (count, block) = (runs.len(), build(runs));
                taken_bytes = bytes_of(runs.iter());
                self.backlog.drain(..count);
                self.ready -= count;
                Round { block, next: 0, end: members.len() as u32 }
            }
        };
        let upto = round.end.min(round.next.saturating_add(most as u32));
        due.extend_from_slice(&members[round.next as usize..upto as usize]);
        round.next = upto;
        if upto == round.end {
            return Served::Send { block: round.block, taken_bytes, goes_on: !self.backlog.is_empty() };
        }
        let block = round.block.clone();
        self.round = Some(round);
        Served::Send { block, taken_bytes, goes_on: true }
    }

    /// The member at `hole` goes: moves the hole, by swaps that keep the three parts apart, to where `fill` may take it
    /// from. `fill` swaps two positions and gives the second.
    pub(crate) fn leave(&mut self, hole: u32, mut fill: impl FnMut(u32, u32) -> u32) -> u32 {
        let mut hole = hole;
        if let Some(round) = &mut self.round {
            if hole < round.next {
                round.next -= 1;
                hole = fill(hole, round.next);
            }
            if hole < round.end {
                round.end -= 1;
                hole = fill(hole, round.end);
            }
        }
        hole
    }
}

fn bytes_of<'a>(runs: impl Iterator<Item = &'a Arc<RoomRun>>) -> usize {
    runs.map(|of_room| of_room.run.packets.len()).sum()
}

/// How many runs of the backlog fit into one block; at least one if there is one.
fn fitting(backlog: &[Arc<RoomRun>], block_bytes: usize) -> usize {
    let mut bytes = 0;
    let fit = backlog
        .iter()
        .take_while(|of_room| {
            bytes += of_room.run.packets.len();
            bytes <= block_bytes
        })
        .count();
    fit.max(backlog.len().min(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Run;
    use crate::shard::presence::Presence;

    fn run(bytes: usize) -> Arc<RoomRun> {
        let run = Run { packets: vec![0; bytes].into(), count: 1, compressed: crate::compress::Compressed::default() };
        Arc::new(RoomRun { room: Presence::new(1, 1).name("live://1"), run })
    }

    #[test]
    fn a_block_takes_what_fits_and_at_least_one_run() {
        let backlog = [run(20), run(20), run(20)];
        let rows = [(0, 1), (20, 1), (39, 1), (40, 2), (1000, 3)];
        for (block_bytes, expected) in rows {
            assert_eq!(fitting(&backlog, block_bytes), expected, "{block_bytes} bytes");
        }
        assert_eq!(fitting(&[], 100), 0);
    }

    #[test]
    fn windows_go_by_the_type_of_the_room() {
        let windows = MergeWindows { default_ms: 5, by_type: [("live".to_owned(), 100)].into() };
        assert_eq!((windows.of("live://1"), windows.of("quiz://1")), (100, 5));
    }
}
