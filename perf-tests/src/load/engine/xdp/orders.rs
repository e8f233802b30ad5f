//! What orders do to clients: who is told, and what each is brought into.

use std::time::{Duration, Instant};

use abi::clients::{Script, state};

use super::error::XdpError;
use super::flock::Flock;
use super::line::Line;
use crate::load::behaviour::{Goodbye, Order};
use crate::load::engine::Returns;
use crate::load::engine::churn::Churning;
use crate::load::engine::picker::part_of_share;

/// Goodbyes of a churn in one turn, at most.
const MAX_PER_TURN: u64 = 256;

/// What was told since the last line.
#[derive(Default)]
pub(super) struct Told {
    pub(super) stopped: u64,
    pub(super) slow: u64,
    pub(super) silent: u64,
    pub(super) vanished: u64,
    /// Of it: goodbyes, and how long coming back took.
    pub(super) returns: Returns,
    pub(super) begun_by_second: Vec<u32>,
}

impl Flock {
    /// How many clients that told to do something at once.
    pub(super) fn obey(&mut self, order: Order, line: &Line) -> Result<u64, XdpError> {
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        match order {
            Order::StopReading { share } => {
                let told = self.lead_astray(share, state::STOPPED, line)?;
                self.told.stopped += told;
                Ok(told)
            }
            Order::ReadSlowly { share, bytes_per_second } => {
                let state = self.state_at(bytes_per_second, line)?;
                let told = self.lead_astray(share, state, line)?;
                self.told.slow += told;
                Ok(told)
            }
            Order::GoSilent { share } => {
                let told = self.lead_astray(share, state::SILENT, line)?;
                self.told.silent += told;
                Ok(told)
            }
            Order::Vanish { share } => {
                let told = self.each_of(share, line, |flock, number| flock.vanish(number, line))?;
                self.told.vanished += told;
                Ok(told)
            }
            Order::Resume => Ok(self.resume(line)),
            Order::Churn { per_second, goodbye, away_ms } => {
                self.churn = Churning::begin(per_second, goodbye, millis(away_ms));
                Ok(0)
            }
            Order::Reconnect { share, goodbye, away_ms } => {
                self.each_of(share, line, |flock, number| flock.leave(number, goodbye, Some(millis(away_ms)), line))
            }
            Order::Leave { share, goodbye } => {
                self.each_of(share, line, |flock, number| flock.leave(number, goodbye, None, line))
            }
            Order::ComeBack => self.come_back(line),
        }
    }

    /// Sends those away whose turn has come.
    pub(super) fn churn_some(&mut self, line: &Line) -> Result<(), XdpError> {
        let Some(churn) = &mut self.churn else { return Ok(()) };
        let (goodbye, away) = (churn.goodbye, churn.away);
        for _ in 0..churn.take_due(MAX_PER_TURN) {
            let Some(number) = self.pick(line)? else { break };
            self.leave(number, goodbye, Some(away), line)?;
        }
        Ok(())
    }

    /// Everybody reads whatever comes, until the next line, or as before.
    pub(super) fn all_read(&mut self, all: bool, line: &Line) -> Result<(), XdpError> {
        if (self.script.all_read != 0) == all {
            return Ok(());
        }
        self.script.all_read = u32::from(all);
        line.program().set_script(&self.script)?;
        if all {
            let at_a_rate = line.clients.numbered().filter(|(_, client)| state::rate_of(client.state).is_some());
            at_a_rate.for_each(|(number, _)| self.windows.open(number));
        }
        Ok(())
    }

    /// Everybody reads whatever comes and says so at once, for good: a close may stand behind it.
    pub(super) fn hear_all(&mut self, line: &Line) -> Result<(), XdpError> {
        self.script = Script { all_read: 1, lost: 0, acknowledges_late: 0, ..self.script };
        line.program().set_script(&self.script)
    }

    /// Does `what` to a share of all, as far as it says that it was done, and says to how many.
    fn each_of(
        &mut self,
        share: f64,
        line: &Line,
        mut what: impl FnMut(&mut Self, u32) -> Result<bool, XdpError>,
    ) -> Result<u64, XdpError> {
        let wanted = part_of_share(0, u64::from(self.scenario.clients), share);
        let mut done = 0;
        while done < wanted {
            let Some(number) = self.pick(line)? else { break };
            done += u64::from(what(self, number)?);
        }
        Ok(done)
    }

    fn lead_astray(&mut self, share: f64, state: u8, line: &Line) -> Result<u64, XdpError> {
        let told = self.each_of(share, line, |flock, number| {
            if !line.clients.turn(number, state::JOINED, state) {
                return Ok(false);
            }
            flock.withdraw(number, line)?;
            if state::rate_of(state).is_some_and(|rate| rate > 0) {
                flock.windows.add(number, &line.client(number)?);
            }
            Ok(true)
        })?;
        self.led_astray += told;
        Ok(told)
    }

    /// The state of clients that read at a rate, which the script has to know.
    fn state_at(&mut self, bytes_per_second: u32, line: &Line) -> Result<u8, XdpError> {
        let rates = &mut self.script.bytes_per_second;
        let known = rates[1..].iter().position(|rate| *rate == bytes_per_second || *rate == 0);
        let Some(rate) = known.filter(|_| bytes_per_second > 0) else {
            let what = format!("read {bytes_per_second} bytes a second, with {rates:?} taken already");
            return Err(XdpError::Beyond(what));
        };
        rates[rate + 1] = bytes_per_second;
        line.program().set_script(&self.script)?;
        Ok(state::SLOW + 1 + rate as u8)
    }

    fn resume(&mut self, line: &Line) -> u64 {
        let mut resumed = 0;
        for (number, client) in line.clients.numbered() {
            let at_a_rate = state::rate_of(client.state).is_some();
            if at_a_rate && line.clients.turn(number, client.state, state::RESUMED) {
                resumed += 1;
                self.windows.open(number);
            }
        }
        self.resumed += resumed;
        resumed
    }

    fn vanish(&mut self, number: u32, line: &Line) -> Result<bool, XdpError> {
        if !line.clients.turn(number, state::JOINED, state::VANISHED) {
            return Ok(false);
        }
        self.ended += 1;
        self.withdraw(number, line)?;
        Ok(true)
    }

    /// A client says goodbye. With `back_after` it comes back that long afterwards.
    fn leave(
        &mut self,
        number: u32,
        goodbye: Goodbye,
        back_after: Option<Duration>,
        line: &Line,
    ) -> Result<bool, XdpError> {
        let in_order = match goodbye {
            Goodbye::Orderly => true,
            Goodbye::Reset => false,
            Goodbye::Mixed => self.mixed.is_multiple_of(2),
        };
        if !line.clients.turn(number, state::JOINED, if in_order { state::LEAVING } else { state::ABORTED }) {
            return Ok(false);
        }
        self.mixed += u64::from(goodbye == Goodbye::Mixed);
        self.ended += 1;
        self.withdraw(number, line)?;
        if let Some(after) = back_after {
            self.away.insert(number);
            self.leaving.insert(number, Instant::now() + after);
        }
        if in_order {
            self.told.returns.left_orderly += 1;
            self.goodbyes.add(number);
        } else {
            self.told.returns.left_reset += 1;
            self.resets.add(number);
            self.gone(number);
        }
        Ok(true)
    }

    fn come_back(&mut self, line: &Line) -> Result<u64, XdpError> {
        let scenario = &self.scenario;
        let per_second = scenario.ramp.map_or(scenario.connects_per_second, |ramp| ramp.to_per_second);
        let mut told = 0_u64;
        for (number, client) in line.clients.numbered() {
            let has_none = matches!(client.state, state::CLOSED | state::RESET | state::ABORTED | state::VANISHED);
            // On WebSocket a packet that was cut when the end came may have left no time.
            let was_let_in = client.sent_ns != 0 || client.next_number != 0;
            if !has_none || !was_let_in || self.away.contains(&number) {
                continue;
            }
            self.owed.write_off(&line.program(), &self.script, number, &client)?;
            let after = if per_second > 0.0 { told as f64 / per_second } else { 0.0 };
            self.away.insert(number);
            self.returns.add(number, Instant::now() + Duration::from_secs_f64(after));
            told += 1;
        }
        Ok(told)
    }

    /// Settles what a client is owed that will not hear more of it, as it has been told already.
    fn withdraw(&mut self, number: u32, line: &Line) -> Result<(), XdpError> {
        let client = line.client(number)?;
        self.owed.withdraw(&line.program(), &self.script, number, &client)
    }
}
