//! The phases of a run: everybody joins, messages are published and heard, the last come in, the books are settled.
//!
//! Each phase ends by a condition and, should that never come, by a deadline. A stop ends them all, and what was found
//! until then is the result.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Due, Engine, EngineError, Gauges, Tally};
use super::publish::{Published, Publishing};
use super::report::{Connections, Heartbeats, Host, Messages, Percentiles, PublishedReport, Report, SCHEMA};
use super::scenario::Scenario;
use super::stamp::monotonic_ns;
use super::watch::{Step, View, Watch};

/// How often conditions are looked at, and the watcher is called.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The clients' side broke.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The publisher's side did not start.
    #[error("cannot start a publisher: {0}")]
    Publisher(#[source] std::io::Error),
}

/// Runs `scenario` on the engine that `start` makes, until it is done or `stop` is set.
///
/// # Errors
/// [`RunError`] when the generator itself breaks; whatever the servers do is a result.
pub fn run(
    mut scenario: Scenario,
    start: impl FnOnce(&Scenario) -> Result<Box<dyn Engine>, EngineError>,
    stop: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<Report, RunError> {
    if scenario.publish.is_some() && scenario.run == 0 {
        scenario.run = draw_run();
    }
    let began = Instant::now();
    let engine = start(&scenario)?;
    let mut conductor = Conductor { engine, stop, watch, meter: Meter::default() };
    conductor.build(&scenario)?;
    let build_seconds = began.elapsed().as_secs_f64();
    let members = conductor.engine.seal()?;
    conductor.meter = Meter::default();
    let (published, listened) = match &scenario.publish {
        None => (None, conductor.listen(&scenario)?),
        // Nobody would hear it; the report says why nobody is there.
        Some(publish) if members.iter().all(|members| *members == 0) => {
            (Some(Published::none(&scenario, publish)), Duration::ZERO)
        }
        Some(publish) => {
            let publishing = Publishing::start(&scenario, publish, scenario.run).map_err(RunError::Publisher)?;
            let (published, listened) = conductor.publish(&scenario, publishing, &members)?;
            (Some(published), listened)
        }
    };
    let due = published.as_ref().map_or(Due::AsHeard, |published| Due::Published(published.accepted.clone()));
    let (name, peak) = (conductor.engine.name(), conductor.meter.peak);
    let tally = conductor.engine.finish(due)?;
    let interrupted = stop.load(Ordering::Acquire);
    Ok(Findings { scenario, name, build_seconds, published, listened, peak, tally, interrupted }.report())
}

/// Never 0, and hardly that of another run.
fn draw_run() -> u32 {
    ((monotonic_ns() ^ u64::from(std::process::id()).rotate_left(20)) as u32).max(1)
}

struct Conductor<'a> {
    engine: Box<dyn Engine>,
    stop: &'a AtomicBool,
    watch: &'a mut dyn Watch,
    meter: Meter,
}

impl Conductor<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn look(&mut self, step: Step, total: u64) -> Result<Gauges, RunError> {
        self.engine.check()?;
        let gauges = self.engine.gauges();
        let done = if step == Step::Build { gauges.joined } else { gauges.received };
        self.meter.note(done);
        self.watch.look(&View { step, gauges, done, total, per_second: self.meter.rate });
        Ok(gauges)
    }

    fn build(&mut self, scenario: &Scenario) -> Result<(), RunError> {
        let wanted = u64::from(scenario.clients);
        let deadline = Instant::now() + Scenario::patience(wanted, scenario.connects_per_second, scenario.build_within);
        loop {
            let gauges = self.look(Step::Build, wanted)?;
            if gauges.joined + gauges.failed >= wanted || self.stopped() || Instant::now() >= deadline {
                return Ok(());
            }
            // Shorter than elsewhere: it is in the connections per second.
            thread::sleep(LOOK_EVERY / 10);
        }
    }

    /// Says from the start to the last message heard.
    fn listen(&mut self, scenario: &Scenario) -> Result<Duration, RunError> {
        let (began, mut last) = (Instant::now(), Last::default());
        while began.elapsed() < scenario.listen_for && !self.stopped() {
            let gauges = self.look(Step::Listen, 0)?;
            last.note(gauges.received);
            thread::sleep(LOOK_EVERY);
        }
        Ok(last.at.map_or(Duration::ZERO, |at| at - began))
    }

    fn publish(
        &mut self,
        scenario: &Scenario,
        publishing: Publishing,
        members: &[u32],
    ) -> Result<(Published, Duration), RunError> {
        let (began, mut last) = (publishing.started(), Last::default());
        let messages = scenario.publish.as_ref().map_or(0, |publish| publish.messages);
        let planned = planned_deliveries(messages, members);
        while !publishing.is_done() {
            if self.stopped() {
                publishing.stop();
            }
            last.note(self.look(Step::Listen, planned)?.received);
            thread::sleep(LOOK_EVERY);
        }
        let published = publishing.finish();
        let accepted = published.accepted.iter().zip(members);
        let due: u64 = accepted.map(|(accepted, members)| u64::from(*accepted) * u64::from(*members)).sum();
        let mut quiet_since = Instant::now();
        loop {
            let received = self.look(Step::Settle, due)?.received;
            if last.note(received) {
                quiet_since = Instant::now();
            }
            // With everything there, only what should not come can still come.
            let patience = if received >= due { scenario.linger } else { scenario.settle };
            if quiet_since.elapsed() >= patience || self.stopped() {
                break;
            }
            thread::sleep(LOOK_EVERY.min(patience));
        }
        Ok((published, last.at.map_or(Duration::ZERO, |at| at.saturating_duration_since(began))))
    }
}

/// Message k goes to room k mod rooms, so the first rooms may get one more.
fn planned_deliveries(messages: u64, members: &[u32]) -> u64 {
    let rooms = members.len() as u64;
    let of_room = |room: u64| messages / rooms + u64::from(room < messages % rooms);
    (0..rooms).zip(members).map(|(room, members)| of_room(room) * u64::from(*members)).sum()
}

/// When a count last rose.
#[derive(Default)]
struct Last {
    count: u64,
    at: Option<Instant>,
}

impl Last {
    fn note(&mut self, count: u64) -> bool {
        let rose = count > self.count;
        if rose {
            (self.count, self.at) = (count, Some(Instant::now()));
        }
        rose
    }
}

/// A rate per second over about a second, and the highest of them.
#[derive(Default)]
struct Meter {
    since: Option<(Instant, u64)>,
    rate: f64,
    peak: f64,
}

impl Meter {
    fn note(&mut self, count: u64) {
        let now = Instant::now();
        let (at, before) = *self.since.get_or_insert((now, count));
        let seconds = (now - at).as_secs_f64();
        if seconds >= 1.0 {
            self.rate = count.saturating_sub(before) as f64 / seconds;
            self.peak = self.peak.max(self.rate);
            self.since = Some((now, count));
        }
    }
}

/// What the phases found, to be put into a report.
struct Findings {
    scenario: Scenario,
    name: &'static str,
    build_seconds: f64,
    published: Option<Published>,
    listened: Duration,
    peak: f64,
    tally: Tally,
    interrupted: bool,
}

impl Findings {
    fn report(self) -> Report {
        let Self { scenario, tally, .. } = self;
        let seconds = self.listened.as_secs_f64();
        let received_per_second = rate(tally.counts.received, seconds);
        let balance = tally.balance;
        let mut report = Report {
            schema: SCHEMA,
            engine: self.name.to_owned(),
            host: Host {
                cpus: thread::available_parallelism().map_or(0, usize::from),
                kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            },
            run: tally.run,
            interrupted: self.interrupted,
            connections: Connections {
                wanted: u64::from(scenario.clients),
                joined: tally.joined,
                refused: tally.failed.into_map(),
                closed: tally.closed.into_map(),
                build_seconds: self.build_seconds,
                joined_per_second: rate(tally.joined, self.build_seconds),
                join_us: Percentiles::of(&tally.join_us),
            },
            published: self.published.map(|published| {
                let accepted = published.accepted.iter().map(|accepted| u64::from(*accepted)).sum();
                PublishedReport {
                    accepted,
                    refused: published.refused.into_map(),
                    unanswered: published.unanswered.into_map(),
                    unsent: published.unsent,
                    seconds: published.took.as_secs_f64(),
                    accepted_per_second: rate(accepted, published.took.as_secs_f64()),
                }
            }),
            messages: Messages {
                due: balance.due,
                received: tally.counts.received,
                missing: balance.missing,
                completeness: (balance.due > 0).then(|| 1.0 - balance.missing as f64 / balance.due as f64),
                gaps: tally.counts.gaps,
                duplicates: tally.counts.duplicates,
                order_faults: tally.counts.order_faults,
                unremembered: tally.counts.unremembered,
                misrouted: tally.misrouted,
                foreign: tally.foreign,
                incomplete_clients: balance.incomplete_clients,
                silent_clients: balance.silent_clients,
                seconds,
                received_per_second,
                // A run of less than a second has no best one; its mean is all there is.
                peak_per_second: self.peak.max(received_per_second),
                bytes_received: tally.bytes_received,
            },
            delay_us: Percentiles::of(&tally.delay_us),
            last_receiver_us: Percentiles::of(&tally.last_receiver_us),
            heartbeats: Heartbeats { sent: tally.heartbeats_sent, answered: tally.heartbeats_answered },
            faults: Vec::new(),
            scenario,
        };
        report.faults = report.judge(false);
        report
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
