//! Leads an engine and a publisher through a run: build, one phase or many, finish.
//!
//! Each step ends by a condition and, should that never come, by a deadline. A stop ends them all, and what was found
//! until then is the result.
//!
//! Layout: [`Conductor`] the steps · `waits` until when each goes on
//!
//! ```no_run
//! # use perf_tests::load::{behaviour::Order, conduct::{Conductor, Phase}, engine::{Engine, socket::SocketEngine}};
//! # use perf_tests::load::{scenario::{Publish, Scenario}, watch::Unwatched};
//! # fn lead(scenario: Scenario, publish: Publish) -> Result<(), Box<dyn std::error::Error>> {
//! # let (stop, mut watch) = (std::sync::atomic::AtomicBool::new(false), Unwatched);
//! let engine = |scenario: &Scenario| Ok(Box::new(SocketEngine::start(scenario)?) as Box<dyn Engine>);
//! let mut conductor = Conductor::start(scenario, engine, &stop, &mut watch)?;
//! conductor.build()?;
//! let calm = conductor.publish(&Phase::new("broadcast", publish.clone()))?;
//! conductor.order(Order::StopReading { share: 0.01 })?;
//! let slow = conductor.publish(&Phase::new("slow consumers", publish))?;
//! conductor.order(Order::Resume)?;
//! conductor.order(Order::ComeBack)?;
//! conductor.await_returns()?;
//! let report = conductor.finish()?;
//! # Ok(()) }
//! ```

mod waits;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::behaviour::{Goodbye, Order, TimedOrder};
use super::course::{Course, Meter};
use super::engine::{Books, Due, Engine, EngineError, Gauges, Tally};
use super::numbers::Numbers;
use super::publish::{Published, Publishing};
use super::report::{Connections, OrderReport, PhaseReport, PublishedReport, Report};
use super::scenario::{Publish, Scenario};
use super::stamp::monotonic_ns;
use super::summary;
use super::target::{Streams, Target};
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

/// One phase of a run.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Its name in the report.
    pub name: String,
    /// What is published, and to whom.
    pub publish: Publish,
    /// What clients are told meanwhile. Those at 0 are given before the first message. A churn ends when all is published.
    pub orders: Vec<TimedOrder>,
    /// How long, after the last message, to wait for the server to close those who do not read or are silent.
    pub closes_within: Duration,
}

impl Phase {
    /// A phase without orders.
    #[must_use]
    pub fn new(name: &str, publish: Publish) -> Self {
        Self { name: name.to_owned(), publish, orders: Vec::new(), closes_within: Duration::ZERO }
    }
}

/// See the module.
pub struct Conductor<'a> {
    scenario: Scenario,
    engine: Box<dyn Engine>,
    stop: &'a AtomicBool,
    watch: &'a mut dyn Watch,
    meter: Meter,
    began: Instant,
    build_seconds: f64,
    /// Of the next phase.
    phase: u32,
    /// All lines so far.
    sum: Tally,
    listened: Duration,
    phases: Vec<PhaseReport>,
}

impl<'a> Conductor<'a> {
    /// Starts an engine, whose clients begin to connect.
    ///
    /// # Errors
    /// When the generator itself breaks; whatever the servers do is a result.
    pub fn start(
        mut scenario: Scenario,
        engine: impl FnOnce(&Scenario) -> Result<Box<dyn Engine>, EngineError>,
        stop: &'a AtomicBool,
        watch: &'a mut dyn Watch,
    ) -> Result<Self, RunError> {
        if scenario.publish.is_some() && scenario.run == 0 {
            scenario.run = draw_run();
        }
        let began = Instant::now();
        let engine = engine(&scenario)?;
        Ok(Self {
            scenario,
            engine,
            stop,
            watch,
            meter: Meter::default(),
            began,
            build_seconds: 0.0,
            phase: 0,
            sum: Tally::default(),
            listened: Duration::ZERO,
            phases: Vec::new(),
        })
    }

    /// What is run, with the run's number.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// How the engine stands.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        self.engine.gauges()
    }

    /// Whether somebody wants the run to end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits until all have joined or failed, or the scenario's patience is at its end, and seals it: who has not joined
    /// by then has failed. Says how it went; afterwards [`Self::connections`] says it again.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn build(&mut self) -> Result<Connections, RunError> {
        let wanted = u64::from(self.scenario.clients);
        let deadline = self.began + self.scenario.build_patience();
        loop {
            let gauges = self.look(Step::Build, wanted, |gauges| gauges.joined)?;
            if gauges.joined + gauges.failed >= wanted || self.stopped() || Instant::now() >= deadline {
                break;
            }
            // Shorter than elsewhere: it is in the connections per second.
            thread::sleep(LOOK_EVERY / 10);
        }
        self.build_seconds = self.began.elapsed().as_secs_f64();
        self.engine.seal()?;
        if self.scenario.publish.is_some() {
            // A listener's books are open from the start; a line would cut what it hears in two.
            let nothing = vec![0; self.scenario.rooms as usize];
            let tally = self.engine.settle(Due::Published(nothing))?;
            self.sum.absorb(&tally);
        }
        Ok(self.connections())
    }

    /// Connecting and joining, up to the last line.
    #[must_use]
    pub fn connections(&self) -> Connections {
        summary::connections(&self.scenario, &self.sum, self.build_seconds)
    }

    /// Tells some clients how to behave from now on, and how many they are.
    ///
    /// # Errors
    /// As [`Self::start`], and when the system forbids what was asked for.
    pub fn order(&mut self, order: Order) -> Result<u64, RunError> {
        Ok(self.engine.order(order)?)
    }

    /// Publishes, gives the orders, waits until all that is owed has come or nothing comes any more, and draws the line.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Self::order`].
    pub fn publish(&mut self, phase: &Phase) -> Result<PhaseReport, RunError> {
        let (scenario, publish) = (&self.scenario, &phase.publish);
        let streams = Streams::new(publish.target, scenario.clients, scenario.rooms);
        let numbers = Arc::new(Numbers::new(streams.count()));
        let books = self.books(publish.target, Some(Arc::clone(&numbers)));
        let members = self.engine.open(&books)?;
        let mut course = Course::begin(&phase.orders, self.engine.gauges());
        self.give_due_orders(&mut course)?;
        let published = if members.iter().all(|members| *members == 0) {
            // Nobody would hear it; the report says why nobody is there.
            Published::none(&streams, publish)
        } else {
            let publishing =
                Publishing::start(&self.scenario, publish, &books, numbers).map_err(RunError::Publisher)?;
            self.feed(&mut course, publishing, streams.deliveries(publish.messages, &members))?
        };
        self.engine.order(Order::Churn { per_second: 0.0, goodbye: Goodbye::Orderly, away_ms: 0 })?;
        self.await_all(&mut course, Some(&published.accepted))?;
        self.await_closes(&mut course, phase.closes_within)?;
        let due = Due::Published(published.accepted.clone());
        let members = members.iter().map(|members| u64::from(*members)).sum();
        let what = Findings { name: &phase.name, publish: Some(publish), members, published: Some(published) };
        self.draw_line(course, due, what)
    }

    /// Publishes nothing for `duration`, or until stopped: idle clients, or messages that somebody else publishes.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn listen(
        &mut self,
        name: &str,
        duration: Duration,
        orders: &[TimedOrder],
        closes_within: Duration,
    ) -> Result<PhaseReport, RunError> {
        let mut members = self.engine.gauges().present;
        // A listener's books have been open since its engine was started.
        if self.scenario.publish.is_some() || self.phase > 0 {
            let books = self.books(Target::Rooms, None);
            members = self.engine.open(&books)?.iter().map(|members| u64::from(*members)).sum();
        } else {
            self.phase += 1;
            self.meter = Meter::default();
        }
        let mut course = Course::begin(orders, self.engine.gauges());
        while course.began.elapsed() < duration && !self.stopped() {
            self.give_due_orders(&mut course)?;
            self.note(&mut course, Step::Listen, 0)?;
            thread::sleep(LOOK_EVERY.min(duration.saturating_sub(course.began.elapsed())));
        }
        self.engine.order(Order::Churn { per_second: 0.0, goodbye: Goodbye::Orderly, away_ms: 0 })?;
        if self.engine.gauges().returning > 0 {
            self.await_all(&mut course, None)?;
        }
        self.await_closes(&mut course, closes_within)?;
        self.draw_line(course, Due::AsHeard, Findings { name, publish: None, members, published: None })
    }

    /// Closes everything and adds up.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn finish(self) -> Result<Report, RunError> {
        let name = self.engine.name();
        if self.stop.load(Ordering::Acquire) {
            // Whoever interrupts does not wait for goodbyes.
            drop(self.engine);
        } else {
            self.engine.finish()?;
        }
        let parts = summary::Parts {
            engine: name,
            build_seconds: self.build_seconds,
            listened: self.listened,
            peak_per_second: self.phases.iter().map(|phase| phase.messages.peak_per_second).fold(0.0, f64::max),
            interrupted: self.stop.load(Ordering::Acquire),
            phases: self.phases,
        };
        Ok(summary::report(self.scenario, self.sum, parts))
    }

    fn books(&mut self, target: Target, numbers: Option<Arc<Numbers>>) -> Books {
        if numbers.is_some() && self.scenario.run == 0 {
            self.scenario.run = draw_run();
        }
        let books = Books { run: self.scenario.run, phase: self.phase, target, numbers };
        self.phase += 1;
        self.meter = Meter::default();
        books
    }

    fn look(&mut self, step: Step, total: u64, done: impl FnOnce(&Gauges) -> u64) -> Result<Gauges, RunError> {
        self.engine.check()?;
        let gauges = self.engine.gauges();
        let done = done(&gauges);
        self.meter.note(done);
        // What was planned for is passed when others publish as well, or was counted a moment before.
        self.watch.look(&View { step, gauges, done, total: total.max(done), per_second: self.meter.rate });
        Ok(gauges)
    }

    fn note(&mut self, course: &mut Course, step: Step, total: u64) -> Result<Gauges, RunError> {
        let before = course.received_before;
        let gauges = self.look(step, total, |gauges| gauges.received - before)?;
        course.note(&gauges);
        Ok(gauges)
    }

    fn give_due_orders(&mut self, course: &mut Course) -> Result<(), RunError> {
        while let Some(&TimedOrder { order, .. }) = course.due_order() {
            let at_seconds = course.began.elapsed().as_secs_f64();
            let clients = self.engine.order(order)?;
            course.given.push(OrderReport { at_seconds, order, clients });
        }
        Ok(())
    }

    fn draw_line(&mut self, course: Course, due: Due, what: Findings<'_>) -> Result<PhaseReport, RunError> {
        let tally = self.engine.settle(due)?;
        self.sum.absorb(&tally);
        let listened = course.listened();
        self.listened += listened;
        let report = summary::phase(summary::Line {
            name: what.name,
            seconds: course.began.elapsed().as_secs_f64(),
            publish: what.publish,
            orders: course.given,
            members: what.members,
            published: what.published.map(PublishedReport::from),
            listened,
            peak_per_second: self.meter.peak,
            tally: &tally,
        });
        self.phases.push(report.clone());
        Ok(report)
    }
}

/// What is known of a phase before its line.
struct Findings<'a> {
    name: &'a str,
    publish: Option<&'a Publish>,
    members: u64,
    published: Option<Published>,
}

/// Never 0, and hardly that of another run.
fn draw_run() -> u32 {
    ((monotonic_ns() ^ u64::from(std::process::id()).rotate_left(20)) as u32).max(1)
}
