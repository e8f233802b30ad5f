//! Who is owed which messages of a phase, and what of them was heard. As the ledger of the socket engine has it, but that
//! the program remembers who heard what, and numbers that a gap left out are known in sum only.

use std::sync::Arc;

use abi::clients::{Client, Count, Script, UNHEARD, habit, mark, state};

use super::error::XdpError;
use super::program::{Counts, Program};
use crate::load::ledger::Balance;
use crate::load::numbers::Numbers;

/// Of a client that is owed nothing.
const NOTHING: u32 = u32::MAX;

/// Of a client that came in the middle: it is owed from the first message that it hears, and from the number in the other
/// bits at the latest.
const IN_THE_MIDDLE: u32 = 1 << 31;

/// See the module.
pub(super) struct Owed {
    /// By client: from which number on.
    from: Vec<u32>,
    /// How far we have published; `None` when somebody else does.
    numbers: Option<Arc<Numbers>>,
    /// What clients that went were owed until then.
    settled: Balance,
    /// What was counted when the phase was opened, or before that at the last line: what is added is this phase's.
    before: Counts,
}

/// What a client is owed, and what it heard of that.
struct Part {
    from: u32,
    /// One past the highest number that it heard; `from` when it heard nothing.
    next: u32,
    /// Owed in front of the first that it heard.
    missing: u32,
    heard: bool,
    has_holes: bool,
}

impl Part {
    /// Adds it to `balance`, when its stream's numbers ended before `end`.
    fn settle(&self, end: u32, balance: &mut Balance) {
        let missing = self.missing + end.saturating_sub(self.next);
        balance.due += u64::from(end.saturating_sub(self.from));
        balance.missing += u64::from(missing);
        balance.incomplete_clients += u64::from(missing > 0 || self.has_holes);
        balance.silent_clients += u64::from(end > self.from && !self.heard);
    }

    /// The same for one that is owed from the first that it hears: of who heard something the counts tell the rest. How much
    /// a silent one was owed is not known, but at least one message, or it would not be silent.
    fn settle_from_the_first(&self, end: u32, balance: &mut Balance) {
        let is_silent = end > 0 && !self.heard;
        let not_reached = if is_silent { 1 } else { end.saturating_sub(self.next) };
        balance.due += u64::from(not_reached);
        balance.missing += u64::from(not_reached);
        balance.incomplete_clients += u64::from(not_reached > 0 || self.has_holes);
        balance.silent_clients += u64::from(is_silent);
    }
}

impl Owed {
    /// Nobody is owed anything yet.
    pub(super) fn new(clients: u32, before: Counts) -> Self {
        let from = vec![NOTHING; clients as usize];
        Self { from, numbers: None, settled: Balance::default(), before }
    }

    /// The building has ended: where somebody else publishes, whoever is in now is owed what follows the first message that it
    /// hears.
    pub(super) fn seal(&mut self, program: &Program, script: &Script) {
        for (number, client) in of_script(program, script) {
            let is_owed = client.state == state::JOINED || heard_by(script, &client).is_some();
            self.from[number as usize] = if is_owed { 0 } else { NOTHING };
        }
    }

    /// Whoever is in now is owed all of a phase, and whoever reads again is as well. Says how many follow each stream.
    pub(super) fn open(
        &mut self,
        program: &Program,
        script: &Script,
        numbers: Option<Arc<Numbers>>,
    ) -> Result<Vec<u32>, XdpError> {
        self.numbers = numbers;
        self.settled = Balance::default();
        self.before = program.counts()?;
        let mut members = vec![0; script.streams.max(1) as usize];
        for (from, (number, client)) in self.from.iter_mut().zip(program.clients().numbered()) {
            let reads_again = program.clients().turn(number, state::RESUMED, state::JOINED);
            let is_owed = reads_again || client.state == state::JOINED;
            *from = if is_owed { 0 } else { NOTHING };
            members[stream_of(script, number)] += u32::from(is_owed);
        }
        Ok(members)
    }

    /// A client has come in the middle of a phase.
    pub(super) fn enter(&mut self, script: &Script, number: u32) {
        self.from[number as usize] = IN_THE_MIDDLE | self.begun(script, number).unwrap_or(!IN_THE_MIDDLE);
    }

    /// A client that goes of its own will, or does not read any more, was owed what it heard the end of.
    pub(super) fn withdraw(
        &mut self,
        program: &Program,
        script: &Script,
        number: u32,
        client: &Client,
    ) -> Result<(), XdpError> {
        let Some(part) = self.part(program, script, number, client)? else { return Ok(()) };
        self.from[number as usize] = NOTHING;
        let Some(begun) = self.begun(script, number) else { return Ok(()) };
        self.settled.in_doubt += u64::from(begun.saturating_sub(part.next));
        if part.heard {
            part.settle(part.next, &mut self.settled);
        }
        Ok(())
    }

    /// A client that the server closed is owed all that was begun until now, before its books begin anew.
    pub(super) fn write_off(
        &mut self,
        program: &Program,
        script: &Script,
        number: u32,
        client: &Client,
    ) -> Result<(), XdpError> {
        let Some(part) = self.part(program, script, number, client)? else { return Ok(()) };
        self.from[number as usize] = NOTHING;
        let Some(begun) = self.begun(script, number) else { return Ok(()) };
        part.settle(begun.max(part.next), &mut self.settled);
        Ok(())
    }

    /// What is due to those who are owed, and what of it was never heard, when the streams' numbers went to `ends`. With
    /// `connected`, only those who still have their connection count.
    pub(super) fn balance(
        &self,
        program: &Program,
        script: &Script,
        ends: &[u32],
        connected: bool,
    ) -> Result<Balance, XdpError> {
        let mut balance = self.settled;
        let is_anchored = script.habits & habit::FROM_FIRST_HEARD == 0;
        for (from, (number, client)) in self.from.iter().zip(program.clients().numbered()) {
            if *from == NOTHING || (connected && client.state != state::JOINED) {
                continue;
            }
            let end = ends.get(stream_of(script, number)).copied().unwrap_or(0);
            let Some(part) = self.part(program, script, number, &client)? else { continue };
            if is_anchored {
                part.settle(end, &mut balance);
            } else {
                part.settle_from_the_first(end, &mut balance);
            }
        }
        // Those that a gap left out are known only in sum.
        let since = program.counts()?.since(&self.before);
        balance.missing += since.of(Count::Missing);
        if !is_anchored {
            // From each one's first on: what it heard, and what it did not.
            balance.due += since.of(Count::Messages).wrapping_add(since.of(Count::Missing));
        }
        Ok(balance)
    }

    /// The line is drawn: nobody is owed anything any more.
    pub(super) fn close(&mut self, program: &Program) -> Result<(), XdpError> {
        self.from.fill(NOTHING);
        self.settled = Balance::default();
        self.before = program.counts()?;
        Ok(())
    }

    fn part(&self, program: &Program, script: &Script, number: u32, client: &Client) -> Result<Option<Part>, XdpError> {
        let from = self.from[number as usize];
        if from == NOTHING {
            return Ok(None);
        }
        if from & IN_THE_MIDDLE == 0 {
            return Ok(Some(part_of(script, client, from, None)));
        }
        let first = if heard_by(script, client).is_some() { Some(program.heard_from(number)?) } else { None };
        Ok(Some(part_of(script, client, from & !IN_THE_MIDDLE, first)))
    }

    /// One past the highest number that may have been sent to a client; `None` when somebody else publishes.
    fn begun(&self, script: &Script, number: u32) -> Option<u32> {
        self.numbers.as_ref().map(|numbers| numbers.begun(stream_of(script, number) as u32))
    }
}

/// What a client is owed from `latest` on, or from the `first` that it heard.
fn part_of(script: &Script, client: &Client, latest: u32, first: Option<u32>) -> Part {
    let heard = heard_by(script, client);
    let from = first.map_or(latest, |first| first.min(latest));
    Part {
        from,
        next: heard.unwrap_or(from),
        missing: first.map_or(0, |first| first.saturating_sub(latest)),
        heard: heard.is_some(),
        has_holes: heard.is_some() && client.missed != 0,
    }
}

/// The script's clients. The table may have room for more.
pub(super) fn of_script(program: &Program, script: &Script) -> impl Iterator<Item = (u32, Client)> {
    program.clients().numbered().take(script.clients as usize)
}

pub(super) fn stream_of(script: &Script, number: u32) -> usize {
    (number % script.streams.max(1)) as usize
}

/// One past the highest number of the script's phase that the client heard; `None` when it heard nothing.
pub(super) fn heard_by(script: &Script, client: &Client) -> Option<u32> {
    let is_of_phase = u32::from(client.marks >> mark::PHASE_SHIFT) == script.phase & 0b111;
    (is_of_phase && client.next_number != UNHEARD && client.next_number > 0).then_some(client.next_number)
}
