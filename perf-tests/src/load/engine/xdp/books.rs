//! From the program's tables to a tally: what was since the last line, and what of the due was heard.

use abi::clients::{Broadcast, Client, Count, Script, delay_bucket_start_ns, habit, mark, state};

use super::error::XdpError;
use super::program::{Counts, Program};
use crate::load::engine::{MAX_SECONDS, Reasons, Tally};
use crate::load::ledger::{Balance, Counts as Heard};
use crate::load::stamp::monotonic_ns;

/// Why clients did not get in, each counted once.
pub(super) const NEVER_IN: [Count; 5] =
    [Count::Refused, Count::UpgradeRefused, Count::SynReset, Count::ResetBeforeGrant, Count::ClosedBeforeGrant];

/// How the tables stood at the last line, and who is owed what comes now.
pub(super) struct Phase {
    counts: Counts,
    delays: Vec<u64>,
    heartbeats: u64,
    /// Missing numbers when the phase was opened: what is added is this phase's.
    missing: u64,
    /// By client: whether it was in when the phase was opened or, of the first one of a publisher that is not ours, when the
    /// building ended.
    owed: Vec<bool>,
    /// What the end of the building had to say, until a line is drawn.
    building: Option<Tally>,
    /// When the phase was opened, on the clock of the stamps.
    opened_ns: u64,
}

impl Phase {
    /// Open for a publisher that is not ours.
    pub(super) fn new(program: &Program) -> Result<Self, XdpError> {
        let (counts, delays) = (program.counts()?, program.delays()?);
        let owed = vec![false; program.clients().count() as usize];
        Ok(Self {
            missing: counts.of(Count::Missing),
            counts,
            delays,
            heartbeats: 0,
            owed,
            building: None,
            opened_ns: 0,
        })
    }

    /// Ends the building: takes down who never got an answer and how long the others took, `begun_ns` says from when on.
    /// Where somebody else publishes, whoever is in now is owed what follows the first message that it hears.
    pub(super) fn seal(&mut self, program: &Program, script: &Script, begun_ns: impl Fn(u32) -> u64) {
        self.building = Some(built(program, script, begun_ns));
        for (number, client) in numbered(program, script) {
            self.owed[number as usize] = client.state == state::JOINED || heard_by(script, &client) > 0;
        }
    }

    /// Whoever is in now is owed the messages of the phase. Says how many follow each stream.
    pub(super) fn open(&mut self, program: &Program, script: &Script) -> Result<Vec<u32>, XdpError> {
        let mut members = vec![0; script.streams.max(1) as usize];
        let owed = &mut self.owed;
        for (number, client) in numbered(program, script) {
            let is_in = client.state == state::JOINED;
            owed[number as usize] = is_in;
            members[stream_of(script, number)] += u32::from(is_in);
        }
        self.missing = program.counts()?.of(Count::Missing);
        self.opened_ns = monotonic_ns();
        Ok(members)
    }

    /// How far each stream's numbers went, as far as anybody heard.
    pub(super) fn heard(&self, program: &Program, script: &Script) -> Vec<u32> {
        let mut ends = vec![0; script.streams.max(1) as usize];
        for (number, client) in numbered(program, script) {
            let end: &mut u32 = &mut ends[stream_of(script, number)];
            *end = (*end).max(heard_by(script, &client));
        }
        ends
    }

    /// What is due to those who are owed, and what of it was never heard, when the streams' numbers went to `ends`.
    pub(super) fn balance(&self, program: &Program, script: &Script, ends: &[u32]) -> Result<Balance, XdpError> {
        let mut balance = Balance::default();
        let is_anchored = script.habits & habit::FROM_FIRST_HEARD == 0;
        for (number, client) in numbered(program, script) {
            if !self.owed[number as usize] {
                continue;
            }
            let end = ends.get(stream_of(script, number)).copied().unwrap_or(0);
            let heard = heard_by(script, &client);
            let is_silent = end > 0 && heard == 0;
            let not_reached = match is_silent && !is_anchored {
                // How much it was owed is not known, but at least one, or it would not be silent.
                true => 1,
                false => end.saturating_sub(heard),
            };
            balance.due += u64::from(if is_anchored { end } else { not_reached });
            balance.missing += u64::from(not_reached);
            balance.incomplete_clients += u64::from(not_reached > 0 || (heard > 0 && client.missed != 0));
            balance.silent_clients += u64::from(is_silent);
        }
        // Those that a gap left out are known only in sum.
        let counts = program.counts()?;
        let left_out = counts.of(Count::Missing).wrapping_sub(self.missing);
        balance.missing += left_out;
        if !is_anchored {
            // From each one's first on: what it heard, and what it did not.
            balance.due += counts.since(&self.counts).of(Count::Messages) + left_out;
        }
        Ok(balance)
    }

    /// Draws the line.
    pub(super) fn settle(&mut self, program: &Program, script: &Script, ends: &[u32]) -> Result<Tally, XdpError> {
        let balance = self.balance(program, script, ends)?;
        let (counts, delays) = (program.counts()?, program.delays()?);
        let since = counts.since(&self.counts);
        let mut tally = Tally {
            joined: since.of(Count::Joined),
            counts: Heard {
                received: since.of(Count::Messages),
                gaps: since.of(Count::Gaps),
                duplicates: since.of(Count::Duplicates),
                order_faults: since.of(Count::OrderFaults),
                unremembered: 0,
            },
            balance,
            misrouted: since.of(Count::Misrouted),
            foreign: since.of(Count::Foreign),
            stragglers: since.of(Count::Stragglers),
            heartbeats_answered: since.of(Count::HeartbeatReplies),
            bytes_received: since.of(Count::Bytes),
            ..Tally::default()
        };
        for what in NEVER_IN {
            add(&mut tally.failed, what, &since);
        }
        for what in [Count::Closed, Count::Reset, Count::Garbled] {
            add(&mut tally.closed, what, &since);
        }
        for (bucket, (now, before)) in delays.iter().zip(&self.delays).enumerate() {
            // The middle of the bucket, which is at most an eighth wide.
            let (from, to) = (delay_bucket_start_ns(bucket as u32), delay_bucket_start_ns(bucket as u32 + 1));
            let times = now.wrapping_sub(*before);
            // Even none would raise the highest.
            if times > 0 {
                tally.delay_us.saturating_record_n(((from + to) / 2000).max(1), times);
            }
        }
        program.for_each_broadcast(ends, |stream, number, Broadcast { sent_ns, last_ns }| {
            // What nobody heard may still show an earlier phase's.
            if last_ns > 0 && sent_ns >= self.opened_ns {
                tally.broadcasts.note(stream, number, sent_ns, last_ns);
            }
        })?;
        tally.time_broadcasts();
        if let Some(building) = self.building.take() {
            tally.merge(&building);
        }
        (self.counts, self.delays) = (counts, delays);
        Ok(tally)
    }

    /// Heartbeats sent since the last line, when `sent` were in all.
    pub(super) fn heartbeats_since(&mut self, sent: u64) -> u64 {
        sent - std::mem::replace(&mut self.heartbeats, sent)
    }
}

/// Who never got an answer, and how long the others took.
fn built(program: &Program, script: &Script, begun_ns: impl Fn(u32) -> u64) -> Tally {
    let mut tally = Tally::default();
    let second = |ns: u64| (ns.saturating_sub(begun_ns(0)) / 1_000_000_000) as usize;
    for (number, client) in numbered(program, script) {
        let begun_ns = begun_ns(number);
        if begun_ns > 0 && second(begun_ns) < MAX_SECONDS {
            let seconds = tally.begun_by_second.len().max(second(begun_ns) + 1);
            tally.begun_by_second.resize(seconds, 0);
            tally.begun_by_second[second(begun_ns)] += 1;
        }
        match client.state {
            // The time stands there until the first message comes.
            state::JOINED if client.next_number == 0 && client.sent_ns >= begun_ns => {
                tally.join_us.saturating_record(((client.sent_ns - begun_ns) / 1000).max(1));
            }
            state::FRESH => tally.failed.add("no answer to the SYN", 1),
            state::UPGRADING => tally.failed.add("no answer to the upgrade", 1),
            state::GREETED => tally.failed.add("no answer to the auth", 1),
            _ => {}
        }
    }
    tally
}

fn add(reasons: &mut Reasons, what: Count, since: &Counts) {
    if since.of(what) > 0 {
        reasons.add(what.name(), since.of(what));
    }
}

/// The script's clients. The table may have room for more.
fn numbered(program: &Program, script: &Script) -> impl Iterator<Item = (u32, Client)> {
    (0..script.clients).zip(program.clients().iter())
}

fn stream_of(script: &Script, number: u32) -> usize {
    (number % script.streams.max(1)) as usize
}

/// One past the highest number of the script's phase that the client heard.
fn heard_by(script: &Script, client: &Client) -> u32 {
    let is_of_phase = u32::from(client.marks >> mark::PHASE_SHIFT) == script.phase & 0b111;
    if is_of_phase { client.next_number } else { 0 }
}
