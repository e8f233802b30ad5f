//! When each client says that it is alive: all of a thread's clients in turn, spread evenly over the interval.
//!
//! A client keeps its turn whenever it came, so that two of its heartbeats are one interval apart and no two clients of a
//! thread are in step.

use std::time::Duration;

use wire::goim::op;

use super::intake::{State, client_packet};
use super::shard::{MAX_PER_TURN, Role, Shard};
use crate::load::ledger::Standing;
use crate::websocket::opcode;

impl Shard {
    /// Sends those that are due, and no more than what has come can wait for.
    pub(super) fn heartbeats(&mut self) {
        let due = turns_due(self.started.elapsed(), self.shared.scenario.heartbeat, self.clients.len());
        let packet = client_packet(op::HEARTBEAT, b"");
        for _ in 0..MAX_PER_TURN {
            if self.heartbeats_turned >= due {
                return;
            }
            let slot = (self.heartbeats_turned % self.clients.len() as u64) as usize;
            self.heartbeats_turned += 1;
            let client = &mut self.clients[slot];
            if client.state != State::Joined || client.role == Role::Silent {
                continue;
            }
            self.intake.tally.heartbeats_overdue += u64::from(client.pending > 0 && client.role == Role::Reads);
            client.pending = client.pending.saturating_add(1);
            self.intake.tally.heartbeats_sent += 1;
            self.send(slot, opcode::BINARY, &packet);
        }
    }

    /// Matches replies with what was sent. Who did not read for a while may have lost count.
    pub(super) fn heartbeats_answered(&mut self, slot: usize, replies: u32) {
        let client = &mut self.clients[slot];
        for _ in 0..replies {
            if client.pending == 0 && client.role == Role::Reads && client.standing != Some(Standing::Astray) {
                self.intake.tally.heartbeats_unasked += 1;
            } else {
                client.pending = client.pending.saturating_sub(1);
                self.intake.tally.heartbeats_answered += 1;
            }
        }
    }
}

/// Turns that have come by now: each of `clients` has one in each interval. None without an interval.
fn turns_due(elapsed: Duration, interval: Duration, clients: usize) -> u64 {
    if interval.is_zero() {
        return 0;
    }
    (elapsed.as_secs_f64() / interval.as_secs_f64() * clients as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_over_the_interval_and_come_again() {
        let interval = Duration::from_secs(60);
        for (seconds, due) in [(0, 0), (6, 100), (12, 200), (30, 500), (60, 1000), (66, 1100), (600, 10_000)] {
            assert_eq!(turns_due(Duration::from_secs(seconds), interval, 1000), due, "after {seconds} s");
        }
        assert_eq!(turns_due(Duration::from_secs(60), Duration::ZERO, 1000), 0, "no heartbeats were asked for");
        assert_eq!(turns_due(Duration::from_secs(60), interval, 0), 0);
    }
}
