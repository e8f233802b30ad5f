//! Who is told what: picks clients for an order, spread evenly, and has them obey.

use std::time::Duration;

use socket2::SockRef;

use super::intake::State;
use super::shard::{MAX_PER_TURN, Role, Shard};
use crate::load::behaviour::Order;
use crate::load::engine::EngineError;
use crate::load::engine::churn::Churning;
use crate::load::engine::picker::part_of_share;
use crate::load::ledger::Standing;
use crate::sys;

impl Shard {
    /// How many clients that told to do something at once.
    pub(super) fn obey(&mut self, order: Order) -> Result<u64, EngineError> {
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        match order {
            Order::StopReading { share } => Ok(self.lead_astray(share, Role::Stopped, |_, _| {})),
            Order::ReadSlowly { share, bytes_per_second } => {
                Ok(self.lead_astray(share, Role::Slow, |shard, slot| shard.slow.add(slot, bytes_per_second)))
            }
            Order::GoSilent { share } => Ok(self.lead_astray(share, Role::Silent, |_, _| {})),
            Order::Vanish { share } => self.vanish(share),
            Order::Resume => Ok(self.resume()),
            Order::Churn { per_second, goodbye, away_ms } => {
                let part = self.clients.len() as f64 / f64::from(self.shared.scenario.clients);
                self.churn = Churning::begin(per_second * part, goodbye, millis(away_ms));
                Ok(0)
            }
            Order::Reconnect { share, goodbye, away_ms } => {
                Ok(self.each_of(share, |shard, slot| shard.leave(slot, goodbye, Some(millis(away_ms)))))
            }
            Order::Leave { share, goodbye } => Ok(self.each_of(share, |shard, slot| shard.leave(slot, goodbye, None))),
            Order::ComeBack => Ok(self.come_back()),
        }
    }

    /// Sends those away whose turn has come. Nobody can go who is on the way back; a turn that finds nobody is gone.
    pub(super) fn churn_some(&mut self) {
        let Some(churn) = &mut self.churn else { return };
        let (goodbye, away) = (churn.goodbye, churn.away);
        for _ in 0..churn.take_due(MAX_PER_TURN as u64) {
            let Some(slot) = self.pick() else { return };
            self.leave(slot, goodbye, Some(away));
        }
    }

    /// Who does not read reads what has come, so that an end behind it is seen.
    pub(super) fn look_into_unread(&mut self) {
        self.looking_into_unread = true;
        for slot in 0..self.clients.len() {
            if self.clients[slot].state == State::Joined && self.clients[slot].role != Role::Reads {
                self.read(slot, usize::MAX);
            }
        }
    }

    /// Does `what` to this thread's part of `share`, and says to how many.
    fn each_of(&mut self, share: f64, mut what: impl FnMut(&mut Self, usize)) -> u64 {
        let (first, count) = (u64::from(self.first_client), self.clients.len() as u64);
        let wanted = part_of_share(first, count, share);
        for done in 0..wanted {
            let Some(slot) = self.pick() else { return done };
            what(self, slot);
        }
        wanted
    }

    /// The next client that is here and behaves; `None` when there is none.
    fn pick(&mut self) -> Option<usize> {
        (0..self.clients.len()).map(|_| self.picker.next()).find(|slot| {
            let client = &self.clients[*slot];
            let behaves = client.role == Role::Reads && client.standing != Some(Standing::Astray);
            client.state == State::Joined && behaves
        })
    }

    fn lead_astray(&mut self, share: f64, role: Role, mut also: impl FnMut(&mut Self, usize)) -> u64 {
        let buffer_bytes = self.shared.scenario.behaviour.slow_buffer_bytes;
        let told = self.each_of(share, |shard, slot| {
            // The beginning of a packet stays: it goes on where it stopped.
            let has_tail = std::mem::take(&mut shard.clients[slot].has_tail);
            shard.withdraw(slot);
            let client = &mut shard.clients[slot];
            client.has_tail = has_tail;
            client.role = role;
            client.standing = Some(Standing::Astray);
            if let Some(stream) = client.stream.as_ref().filter(|_| buffer_bytes > 0) {
                // Without it the pressure only comes later.
                let _ = SockRef::from(stream).set_recv_buffer_size(buffer_bytes);
            }
            also(shard, slot);
        });
        self.astray += told;
        Self::fate(&mut self.intake.tally.astray, role).clients += told;
        told
    }

    fn resume(&mut self) -> u64 {
        let mut resumed = 0;
        for slot in 0..self.clients.len() {
            let client = &mut self.clients[slot];
            if client.state == State::Joined && client.role != Role::Reads {
                client.role = Role::Reads;
                self.astray -= 1;
                resumed += 1;
                self.read(slot, usize::MAX);
            }
        }
        resumed
    }

    fn vanish(&mut self, share: f64) -> Result<u64, EngineError> {
        let mut refused = None;
        let told = self.each_of(share, |shard, slot| {
            let silenced = shard.clients[slot].stream.as_ref().map(sys::close_without_a_word);
            if let Some(Err(source)) = silenced {
                refused = Some(EngineError::Forbidden { doing: "let a client vanish without a FIN", source });
                return;
            }
            shard.withdraw(slot);
            shard.present -= 1;
            shard.clients[slot].state = State::Ended;
            shard.clients[slot].stream = None;
            shard.intake.tally.astray.vanished += 1;
        });
        refused.map_or(Ok(told), Err)
    }

    fn come_back(&mut self) -> u64 {
        let scenario = &self.shared.scenario;
        let rate = scenario.ramp.map_or(scenario.connects_per_second, |ramp| ramp.to_per_second);
        let per_second = rate / scenario.threads as f64;
        let mut told = 0_u64;
        for slot in 0..self.clients.len() {
            if self.clients[slot].state != State::Ended || !self.clients[slot].was_joined {
                continue;
            }
            self.write_off(slot);
            let after = if per_second > 0.0 { told as f64 / per_second } else { 0.0 };
            let after = Duration::from_secs_f64(after);
            let moment_us = self.now_us() + after.as_micros() as u64;
            let client = &mut self.clients[slot];
            client.state = State::Away;
            client.comes_back = true;
            client.moment_us = moment_us;
            self.returning += 1;
            self.come_back_in(slot, after);
            told += 1;
        }
        told
    }
}
