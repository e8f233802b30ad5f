//! The books by phases: who is owed what from an opening on, and what came of it at the line.

use std::sync::Arc;

use super::intake::State;
use super::shard::{Role, Shard};
use crate::load::engine::{Books, Tally};
use crate::load::ledger::{Balance, Standing};

impl Shard {
    /// Opens books. Says how many clients follow each stream.
    pub(super) fn open_books(&mut self, books: Arc<Books>) -> Vec<u32> {
        self.intake.open(books, &self.shared.scenario);
        let mut members = vec![0; self.intake.streams.count() as usize];
        let anchor = self.intake.anchor_from_the_start();
        for slot in 0..self.clients.len() {
            self.intake.ledger.anchor(slot as u32, anchor);
            let stream = self.stream_of(slot);
            let client = &mut self.clients[slot];
            client.standing = match (client.state, client.role) {
                (State::Joined, Role::Reads) => Some(Standing::Owed),
                (State::Joined, _) => Some(Standing::Astray),
                _ => None,
            };
            members[stream] += u32::from(client.standing == Some(Standing::Owed));
        }
        members
    }

    /// What clients that still have their connection are owed and have not heard.
    pub(super) fn outstanding(&self, ends: &[u32]) -> u64 {
        let mut balance = Balance::default();
        for (slot, client) in self.clients.iter().enumerate() {
            if client.state == State::Joined && client.standing == Some(Standing::Owed) {
                self.intake.ledger.settle(slot as u32, ends[self.stream_of(slot)], &mut balance);
            }
        }
        balance.missing
    }

    /// One past the highest number that anybody heard, by stream.
    pub(super) fn heard(&self) -> Vec<u32> {
        let mut ends = vec![0; self.intake.streams.count() as usize];
        for slot in 0..self.clients.len() {
            let end = &mut ends[self.stream_of(slot)];
            *end = self.intake.ledger.end_of(slot as u32).unwrap_or(0).max(*end);
        }
        ends
    }

    /// Closes the books, and begins to count anew.
    pub(super) fn settle(&mut self, ends: &[u32]) -> Box<Tally> {
        self.looking_into_unread = false;
        let mut tally = Box::new(std::mem::take(&mut self.intake.tally));
        tally.balance.absorb(&std::mem::take(&mut self.settled));
        for slot in 0..self.clients.len() {
            let stream = self.stream_of(slot);
            let client = &mut self.clients[slot];
            // Also whoever was closed meanwhile: what it missed is missing.
            if client.standing.take() == Some(Standing::Owed) {
                self.intake.ledger.settle(slot as u32, ends[stream], &mut tally.balance);
            }
            if client.state == State::Joined && client.role != Role::Reads {
                Self::fate(&mut tally.astray, client.role).stuck += 1;
            }
        }
        let [owed, astray] = self.intake.ledger.take_counts();
        tally.counts = owed;
        tally.astray.counts = astray;
        self.received_before += owed.received;
        self.faults_before += super::shard::faults(&tally, owed, astray);
        tally.returns.not_back = self.returning;
        tally
    }

    /// Index of the stream that a slot follows.
    fn stream_of(&self, slot: usize) -> usize {
        self.intake.streams.of_client(self.first_client + slot as u32) as usize
    }
}
