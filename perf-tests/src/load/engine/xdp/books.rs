//! From the program's tables to a tally: what was since the last line.

use abi::clients::{Broadcast, Count, Script, delay_bucket_start_ns, state};

use super::error::XdpError;
use super::owed::{heard_by, of_script, stream_of};
use super::program::{Counts, Program};
use crate::load::engine::{Astray, MAX_SECONDS, Reasons, Tally};
use crate::load::ledger::{Balance, Counts as Heard};
use crate::load::report::Segments;
use crate::load::stamp::monotonic_ns;

/// Why clients did not get in, each counted once.
pub(super) const NEVER_IN: [Count; 5] =
    [Count::Refused, Count::UpgradeRefused, Count::SynReset, Count::ResetBeforeGrant, Count::ClosedBeforeGrant];

/// How the tables stood at the last line.
pub(super) struct Phase {
    counts: Counts,
    delays: Vec<u64>,
    heartbeats: u64,
    /// What the end of the building had to say, until a line is drawn.
    building: Option<Tally>,
    /// When the phase was opened, on the clock of the stamps.
    opened_ns: u64,
}

impl Phase {
    /// Open for a publisher that is not ours.
    pub(super) fn new(program: &Program) -> Result<Self, XdpError> {
        let (counts, delays) = (program.counts()?, program.delays()?);
        Ok(Self { counts, delays, heartbeats: 0, building: None, opened_ns: 0 })
    }

    /// Ends the building: takes down who never got an answer and how long the others took, `begun_ns` says from when on.
    pub(super) fn seal(&mut self, program: &Program, script: &Script, begun_ns: impl Fn(u32) -> u64) {
        self.building = Some(built(program, script, begun_ns));
    }

    /// Whatever was sent before belongs to another one.
    pub(super) fn open(&mut self) {
        self.opened_ns = monotonic_ns();
    }

    /// How far each stream's numbers went, as far as anybody heard.
    pub(super) fn heard(&self, program: &Program, script: &Script) -> Vec<u32> {
        let mut ends = vec![0; script.streams.max(1) as usize];
        for (number, client) in of_script(program, script) {
            let end: &mut u32 = &mut ends[stream_of(script, number)];
            *end = (*end).max(heard_by(script, &client).unwrap_or(0));
        }
        ends
    }

    /// Draws the line.
    pub(super) fn settle(&mut self, program: &Program, balance: Balance, ends: &[u32]) -> Result<Tally, XdpError> {
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
            segments: Segments {
                lost: since.of(Count::Lost),
                late: since.of(Count::Late),
                repeated: since.of(Count::Repeated),
            },
            ..Tally::default()
        };
        for what in NEVER_IN {
            add(&mut tally.failed, what, &since);
        }
        for what in [Count::Closed, Count::Reset, Count::Garbled] {
            add(&mut tally.closed, what, &since);
        }
        tally.astray = astray(program, &since);
        tally.returns.back = since.of(Count::Back);
        for (what, plainly) in BACK_FAILURES {
            add_as(&mut tally.returns.failed, what, plainly, &since);
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
    for (number, client) in of_script(program, script) {
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

/// Why attempts to come back failed, and what that is called of those who come for the first time.
const BACK_FAILURES: [(Count, Count); 5] = [
    (Count::BackRefused, Count::Refused),
    (Count::BackUpgradeRefused, Count::UpgradeRefused),
    (Count::BackSynReset, Count::SynReset),
    (Count::BackReset, Count::ResetBeforeGrant),
    (Count::BackClosed, Count::ClosedBeforeGrant),
];

/// What became of those who do not read as they should, but how many were told so.
fn astray(program: &Program, since: &Counts) -> Astray {
    let mut astray = Astray {
        counts: Heard {
            received: since.of(Count::AstrayMessages),
            gaps: since.of(Count::AstrayGaps),
            duplicates: since.of(Count::AstrayDuplicates),
            order_faults: since.of(Count::AstrayOrderFaults),
            unremembered: 0,
        },
        ..Astray::default()
    };
    for (fate, reset, closed) in [
        (&mut astray.stopped, Count::StoppedReset, Count::StoppedClosed),
        (&mut astray.slow, Count::SlowReset, Count::SlowClosed),
        (&mut astray.silent, Count::SilentReset, Count::SilentClosed),
    ] {
        add_as(&mut fate.closed, reset, Count::Reset, since);
        add_as(&mut fate.closed, closed, Count::Closed, since);
    }
    for client in program.clients().iter() {
        match client.state {
            state::STOPPED => astray.stopped.stuck += 1,
            state::SILENT => astray.silent.stuck += 1,
            at_a_rate => astray.slow.stuck += u64::from(state::rate_of(at_a_rate).is_some()),
        }
    }
    astray
}

fn add(reasons: &mut Reasons, what: Count, since: &Counts) {
    add_as(reasons, what, what, since);
}

fn add_as(reasons: &mut Reasons, what: Count, plainly: Count, since: &Counts) {
    if since.of(what) > 0 {
        reasons.add(plainly.name(), since.of(what));
    }
}
