//! How clients go: of their own will, in order or by reset, or because the server closed them.

use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;

use super::intake::State;
use super::shard::{Role, Shard};
use crate::load::behaviour::Goodbye;
use crate::load::engine::{Astray, Fate};
use crate::load::ledger::Standing;
use crate::websocket::{GOING_AWAY, opcode};

/// How long the server may take to answer a goodbye by closing.
pub(super) const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// What a client that says goodbye reads at most until the server's end.
pub(super) const MAX_GOODBYE_BYTES: usize = 16 << 20;

impl Shard {
    /// The connection is over, and not because the client wanted it.
    pub(super) fn end(&mut self, slot: usize, reason: &str) {
        let client = &mut self.clients[slot];
        let was = std::mem::replace(&mut client.state, State::Ended);
        client.stream = None;
        let (role, comes_back) = (client.role, client.comes_back);
        self.forget_tail(slot);
        match was {
            State::Ended | State::Waiting | State::Away | State::Leaving => {}
            State::Joined if role == Role::Reads => {
                self.present -= 1;
                self.closed += 1;
                self.intake.tally.closed.add(reason, 1);
            }
            State::Joined => {
                self.present -= 1;
                self.astray -= 1;
                self.closed_astray += 1;
                Self::fate(&mut self.intake.tally.astray, role).closed.add(reason, 1);
            }
            State::Connecting | State::Upgrading | State::Authenticating => {
                self.handshakes -= 1;
                if comes_back {
                    self.retry(slot, reason);
                } else {
                    self.failed += 1;
                    self.intake.tally.failed.add(reason, 1);
                }
            }
        }
    }

    /// A client that has joined says goodbye. With `back_after` it comes back that long afterwards.
    pub(super) fn leave(&mut self, slot: usize, goodbye: Goodbye, back_after: Option<Duration>) {
        let in_order = match goodbye {
            Goodbye::Orderly => true,
            Goodbye::Reset => false,
            Goodbye::Mixed => {
                self.mixed += 1;
                self.mixed % 2 == 1
            }
        };
        self.withdraw(slot);
        self.present -= 1;
        let after = back_after.unwrap_or_default();
        let moment_us = self.now_us() + after.as_micros() as u64;
        let client = &mut self.clients[slot];
        client.moment_us = moment_us;
        client.comes_back = back_after.is_some();
        self.returning += u64::from(client.comes_back);
        client.state = State::Leaving;
        self.come_back_in(slot, after);
        if in_order {
            self.intake.tally.returns.left_orderly += 1;
            self.say_goodbye(slot);
        } else {
            self.intake.tally.returns.left_reset += 1;
            if let Some(stream) = &self.clients[slot].stream {
                // Fails on a socket that the server has reset: gone all the same.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            self.gone(slot, true);
        }
    }

    fn say_goodbye(&mut self, slot: usize) {
        if self.shared.scenario.transport == crate::load::scenario::Transport::Websocket {
            self.send(slot, opcode::CLOSE, &GOING_AWAY);
        }
        match &self.clients[slot].stream {
            Some(stream) if stream.shutdown(Shutdown::Write).is_ok() => {}
            _ => self.gone(slot, true),
        }
    }

    /// Nothing more is heard of a goodbye: the server has closed (`answered`), or was given up.
    pub(super) fn gone(&mut self, slot: usize, answered: bool) {
        self.intake.tally.returns.unanswered += u64::from(!answered);
        let now_us = self.now_us();
        let client = &mut self.clients[slot];
        client.stream = None;
        if !client.comes_back {
            client.state = State::Ended;
            return;
        }
        client.state = State::Away;
        // The entry of its own time is there, or was taken while the goodbye lasted.
        if now_us >= client.moment_us {
            self.come_back_in(slot, Duration::ZERO);
        }
    }

    /// Settles what a client is owed that will not hear more of it.
    pub(super) fn withdraw(&mut self, slot: usize) {
        self.forget_tail(slot);
        if self.clients[slot].standing.take() == Some(Standing::Owed) {
            let begun = self.intake.begun(self.first_client + slot as u32);
            self.intake.ledger.leave(slot as u32, begun, &mut self.settled);
        }
    }

    /// Settles what a client is owed that the server has closed, before it comes back and its books begin anew: all that
    /// was begun until now.
    pub(super) fn write_off(&mut self, slot: usize) {
        if self.clients[slot].standing.take() == Some(Standing::Owed) {
            let heard = self.intake.ledger.end_of(slot as u32).unwrap_or(0);
            let end = self.intake.begun(self.first_client + slot as u32).max(heard);
            self.intake.ledger.settle(slot as u32, end, &mut self.settled);
        }
    }

    fn forget_tail(&mut self, slot: usize) {
        if std::mem::take(&mut self.clients[slot].has_tail) {
            self.tails.remove(&(slot as u32));
        }
    }

    /// Where the clients of a role are counted.
    pub(super) fn fate(astray: &mut Astray, role: Role) -> &mut Fate {
        match role {
            Role::Slow => &mut astray.slow,
            Role::Silent => &mut astray.silent,
            Role::Reads | Role::Stopped => &mut astray.stopped,
        }
    }
}
