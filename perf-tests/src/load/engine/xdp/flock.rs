//! All clients as orders see them: who is where, who is owed what, and what is under way because of an order.
//!
//! Orders come from the engine, and only bring clients into other states; the frames that follow go out by turns, from the
//! injector's thread.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use abi::clients::{Script, state};

use super::error::XdpError;
use super::goodbyes::{Gone, Goodbyes, Resets};
use super::late::LateAcknowledgements;
use super::line::Line;
use super::orders::Told;
use super::owed::Owed;
use super::program::{Counts, Program};
use super::returns::Returns;
use super::slow::Windows;
use crate::load::engine::churn::Churning;
use crate::load::engine::picker::Picker;
use crate::load::engine::{Gauges, MAX_SECONDS, Tally};
use crate::load::scenario::Scenario;

/// See the module.
pub(super) struct Flock {
    pub(super) scenario: Scenario,
    pub(super) script: Script,
    pub(super) owed: Owed,
    pub(super) picker: Picker,
    pub(super) churn: Option<Churning>,
    /// Goodbyes of the mixed kind, to tell which is next.
    pub(super) mixed: u64,
    pub(super) goodbyes: Goodbyes,
    pub(super) resets: Resets,
    pub(super) returns: Returns,
    pub(super) windows: Windows,
    late: LateAcknowledgements,
    /// Who is leaving to come back, or coming back.
    pub(super) away: HashSet<u32>,
    /// Who has said goodbye in order to come back, and when it wants to be back.
    pub(super) leaving: HashMap<u32, Instant>,
    /// Since the last line.
    pub(super) told: Told,
    /// Connections that were ended by an order, goodbyes and vanishing.
    pub(super) ended: u64,
    /// Times that a client was told not to read as it should, and times that one was told to read again.
    pub(super) led_astray: u64,
    pub(super) resumed: u64,
    began: Instant,
}

impl Flock {
    pub(super) fn new(scenario: &Scenario, script: Script, at_start: Counts) -> Self {
        let acknowledging = scenario.behaviour.acknowledging;
        Self {
            scenario: scenario.clone(),
            script,
            owed: Owed::new(scenario.clients, at_start),
            picker: Picker::new(scenario.clients as usize),
            churn: None,
            mixed: 0,
            goodbyes: Goodbyes::new(super::GOODBYE_WITHIN),
            resets: Resets::default(),
            returns: Returns::default(),
            windows: Windows::new(),
            late: LateAcknowledgements::new(Duration::from_millis(u64::from(acknowledging.delay_ms))),
            away: HashSet::new(),
            leaving: HashMap::new(),
            told: Told::default(),
            ended: 0,
            led_astray: 0,
            resumed: 0,
            began: Instant::now(),
        }
    }

    /// Sends what is due because of orders, at most `most` frames or a few more.
    pub(super) fn turn(&mut self, line: &Line, mut most: usize) -> Result<(), XdpError> {
        self.late.turn(line, &self.script)?;
        self.churn_some(line)?;
        self.resets.turn(line, &mut most)?;
        for Gone { number, answered } in self.goodbyes.turn(line, &mut most)? {
            if !answered && line.clients.turn(number, state::LEAVING, state::ABORTED) {
                self.told.returns.unanswered += 1;
                self.resets.add(number);
            }
            self.gone(number);
        }
        let open = self.scenario.open_handshakes.saturating_mul(self.scenario.threads);
        let turned = self.returns.turn(line, open, &mut most)?;
        self.note_begun(turned.begun);
        for (number, waited) in turned.back {
            self.away.remove(&number);
            self.told.returns.back_us.saturating_record((waited.as_micros() as u64).max(1));
            self.owed.enter(&self.script, number);
        }
        self.windows.turn(line, &self.script, &mut most)
    }

    /// What the program cannot know of how clients stand.
    pub(super) fn add_to(&self, gauges: &mut Gauges) {
        gauges.present = gauges.present.saturating_sub(self.ended);
        gauges.astray = (self.led_astray - self.resumed).saturating_sub(gauges.closed_astray);
        gauges.returning = self.away.len() as u64;
    }

    /// Draws the line.
    pub(super) fn settle(&mut self, program: &Program, tally: &mut Tally) -> Result<(), XdpError> {
        let told = std::mem::take(&mut self.told);
        tally.astray.stopped.clients = told.stopped;
        tally.astray.slow.clients = told.slow;
        tally.astray.silent.clients = told.silent;
        tally.astray.vanished = told.vanished;
        tally.returns.left_orderly = told.returns.left_orderly;
        tally.returns.left_reset = told.returns.left_reset;
        tally.returns.unanswered = told.returns.unanswered;
        tally.returns.back_us = told.returns.back_us;
        tally.returns.not_back = self.away.len() as u64;
        let begun = &mut tally.begun_by_second;
        begun.resize(begun.len().max(told.begun_by_second.len()), 0);
        for (sum, part) in begun.iter_mut().zip(&told.begun_by_second) {
            *sum += part;
        }
        self.owed.close(program)
    }

    /// The next client that is here and behaves; `None` when there is none.
    pub(super) fn pick(&mut self, line: &Line) -> Result<Option<u32>, XdpError> {
        for _ in 0..self.scenario.clients {
            let number = self.picker.next() as u32;
            if line.client(number)?.state == state::JOINED && !self.away.contains(&number) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The connection of a client that said goodbye is over.
    pub(super) fn gone(&mut self, number: u32) {
        if let Some(back_at) = self.leaving.remove(&number) {
            self.returns.add(number, back_at);
        }
    }

    fn note_begun(&mut self, begun: u32) {
        if begun > 0 {
            let second = (self.began.elapsed().as_secs() as usize).min(MAX_SECONDS - 1);
            let by_second = &mut self.told.begun_by_second;
            by_second.resize(by_second.len().max(second + 1), 0);
            by_second[second] += begun;
        }
    }
}
