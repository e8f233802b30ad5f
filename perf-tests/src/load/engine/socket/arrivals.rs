//! How clients come: at a pace, through connect, upgrade and auth, and back again after they were away.

use std::cmp::Reverse;
use std::io;
use std::time::{Duration, Instant};

use mio::{Interest, Token};
use wire::goim::op;

use super::departures::GOODBYE_WITHIN;
use super::intake::{State, client_packet};
use super::open;
use super::shard::{MAX_PER_TURN, Role, Shard};
use crate::load::engine::MAX_SECONDS;
use crate::load::ledger::Standing;
use crate::load::scenario::Transport;
use crate::websocket::opcode;

/// When a client comes back, and its slot.
pub(super) type Comeback = Reverse<(Instant, u32)>;

/// After an attempt to come back that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Shard {
    /// Begins as many clients as the pace allows by now.
    pub(super) fn begin_some(&mut self) {
        let scenario = &self.shared.scenario;
        let allowed = scenario.connects_by(self.started.elapsed().as_secs_f64()) / scenario.threads as f64;
        // As a cast, infinity is the greatest number.
        let allowed = self.clients.len().min((allowed as usize).saturating_add(1));
        let open = scenario.open_handshakes;
        let mut begun = 0;
        while self.next_begin < allowed && self.handshakes < open && begun < MAX_PER_TURN {
            let slot = self.next_begin;
            self.next_begin += 1;
            begun += 1;
            self.clients[slot].moment_us = self.now_us();
            if let Err(error) = self.begin(slot) {
                self.clients[slot].state = State::Ended;
                self.failed += 1;
                self.intake.tally.failed.add(&format!("connect: {error}"), 1);
            }
        }
    }

    /// Begins those whose time to come back has come, as many as may be under way.
    pub(super) fn come_back_some(&mut self) {
        let open = self.shared.scenario.open_handshakes;
        for _ in 0..MAX_PER_TURN {
            if self.handshakes >= open || !self.comeback_is_due() {
                return;
            }
            let Some(Reverse((_, slot))) = self.comebacks.pop() else { return };
            let slot = slot as usize;
            let client = &self.clients[slot];
            // An entry from before, when the client has been back and gone again, is too early.
            let due = self.now_us() >= client.moment_us;
            match client.state {
                State::Leaving if due => {
                    let waited = Duration::from_micros(self.now_us() - client.moment_us);
                    match GOODBYE_WITHIN.checked_sub(waited) {
                        None | Some(Duration::ZERO) => self.gone(slot, false),
                        Some(left) => self.come_back_in(slot, left),
                    }
                }
                State::Away if due => {
                    if let Err(error) = self.begin(slot) {
                        self.retry(slot, &format!("connect: {error}"));
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn comeback_is_due(&self) -> bool {
        self.comebacks.peek().is_some_and(|Reverse((at, _))| *at <= Instant::now())
    }

    pub(super) fn come_back_in(&mut self, slot: usize, after: Duration) {
        self.comebacks.push(Reverse((Instant::now() + after, slot as u32)));
    }

    /// An attempt of a client that was here before has failed: it tries again.
    pub(super) fn retry(&mut self, slot: usize, reason: &str) {
        self.clients[slot].state = State::Away;
        self.intake.tally.returns.failed.add(reason, 1);
        self.come_back_in(slot, RETRY_AFTER);
    }

    fn begin(&mut self, slot: usize) -> io::Result<()> {
        let mut stream = open::begin(&self.shared.scenario, self.first_client + slot as u32)?;
        self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        let second = (self.started.elapsed().as_secs() as usize).min(MAX_SECONDS - 1);
        let begun = &mut self.intake.tally.begun_by_second;
        begun.resize(begun.len().max(second + 1), 0);
        begun[second] += 1;
        let client = &mut self.clients[slot];
        client.stream = Some(stream);
        client.state = State::Connecting;
        // Whatever it was told before: it has to read its grant.
        client.role = Role::Reads;
        self.handshakes += 1;
        Ok(())
    }

    pub(super) fn greet(&mut self, slot: usize) {
        match self.shared.scenario.transport {
            Transport::Tcp => self.send_auth(slot),
            Transport::Websocket => {
                self.clients[slot].state = State::Upgrading;
                let upgrade = std::mem::take(&mut self.upgrade);
                self.write(slot, &upgrade);
                self.upgrade = upgrade;
            }
        }
    }

    pub(super) fn send_auth(&mut self, slot: usize) {
        self.clients[slot].state = State::Authenticating;
        let body = self.shared.scenario.auth_of(self.first_client + slot as u32).to_body();
        self.send(slot, opcode::BINARY, &client_packet(op::AUTH, &body));
    }

    /// The intake has opened its books.
    pub(super) fn joined(&mut self, slot: usize) {
        let waited_us = self.now_us().saturating_sub(self.clients[slot].moment_us).max(1);
        let client = &mut self.clients[slot];
        client.state = State::Joined;
        client.standing = Some(Standing::Owed);
        client.pending = 0;
        self.handshakes -= 1;
        self.present += 1;
        let tally = &mut self.intake.tally;
        if std::mem::replace(&mut client.was_joined, true) {
            client.comes_back = false;
            self.returning -= 1;
            tally.returns.back += 1;
            tally.returns.back_us.saturating_record(waited_us);
        } else {
            self.joined += 1;
            tally.joined += 1;
            tally.join_us.saturating_record(waited_us);
        }
    }

    /// The building is over.
    pub(super) fn abandon_the_unjoined(&mut self) {
        for slot in 0..self.clients.len() {
            let state = self.clients[slot].state;
            match state {
                State::Connecting | State::Upgrading | State::Authenticating => {
                    self.end(slot, &format!("not joined in time: still {state:?}"));
                }
                State::Waiting => {
                    self.clients[slot].state = State::Ended;
                    self.failed += 1;
                    self.intake.tally.failed.add("not begun in time", 1);
                }
                State::Joined | State::Leaving | State::Away | State::Ended => {}
            }
        }
        self.next_begin = self.clients.len();
    }
}
