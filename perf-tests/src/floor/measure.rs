//! One measurement: clients come in, messages go out, the books are settled, the clients go.
//!
//! Each phase ends by a condition, and should that never come, by a deadline.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::child::Child;
use super::connector;
use super::figures::{CLIENTS, FloorFigures, SERVER, ratio};
use super::options::{FloorOptions, Pattern};
use super::orders::{Answer, Order, Sent};
use super::{FloorError, SendPath};
use crate::load::engine::xdp::XdpEngine;
use crate::load::engine::xdp::rig::{Rig, addresses};
use crate::load::engine::{self, Books, Due, Engine, EngineError, Gauges, Tally};
use crate::load::numbers::Numbers;
use crate::load::scenario::Scenario;
use crate::load::stamp::monotonic_ns;
use crate::load::target::Target;
use crate::load::watch::{Step, View, Watch};
use crate::meter::Meter;

/// How often conditions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How often the server is asked how it is, while clients come in.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How often the watcher is called.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Clients that may be connected per second at worst, on a busy machine.
const SLOWEST_CONNECTS_PER_SECOND: u64 = 500;

/// What every phase may take beyond its plan.
const GRACE: Duration = Duration::from_secs(30);

/// How long nothing new is heard, after everything was sent, until what is missing counts as lost.
const SETTLE: Duration = Duration::from_secs(10);

/// Connections per source address: below the ephemeral ports that Linux offers by default.
const CLIENTS_PER_SOURCE: u32 = 20_000;

/// A server at work, and who its clients will be. Dropping it ends the server.
#[derive(Debug)]
pub struct Floor {
    /// Holds clients made of XDP; `None` when they are sockets.
    rig: Option<Arc<Rig>>,
    options: FloorOptions,
    child: Child,
    address: SocketAddr,
    /// Until a measurement fails: what it left behind would be in the next one.
    is_sound: bool,
}

impl Floor {
    /// Starts the server.
    ///
    /// # Errors
    /// [`FloorError`]; [`FloorError::NoRing`] when only this path cannot be had.
    pub fn start(options: FloorOptions) -> Result<Self, FloorError> {
        options.check(true)?;
        let child = Child::start(&options.binary)?;
        Self::open(options, child, (Ipv4Addr::LOCALHOST, 0).into(), None)
    }

    /// As [`Self::start`], in the server's namespace of `rig`, which holds the clients and no others meanwhile.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(rig: Arc<Rig>, options: FloorOptions) -> Result<Self, FloorError> {
        options.check(false)?;
        let child = rig.in_server(|| Child::start(&options.binary)).map_err(EngineError::from)??;
        Self::open(options, child, addresses().tcp, Some(rig))
    }

    fn open(
        options: FloorOptions,
        mut child: Child,
        address: SocketAddr,
        rig: Option<Arc<Rig>>,
    ) -> Result<Self, FloorError> {
        let FloorOptions { path, body_bytes, server_threads: threads, .. } = options;
        let order = Order::Open { address, threads, path, body_bytes };
        let address = match child.ask(&order, "start", GRACE)? {
            Answer::Listening { address } => address,
            other => return Err(unexpected(&other)),
        };
        Ok(Self { rig, options, child, address, is_sound: true })
    }

    /// Process id of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's way to the kernel.
    #[must_use]
    pub fn path(&self) -> SendPath {
        self.options.path
    }

    /// Connects the clients, sends `pattern` to them for `duration`, and disconnects them. May be called again and again,
    /// until it fails; then another floor has to be started.
    ///
    /// # Errors
    /// [`FloorError`]. A message that was not heard is no error but a completeness below 1.
    pub fn measure(
        &mut self,
        pattern: Pattern,
        duration: Duration,
        stop: &AtomicBool,
        watch: &mut dyn Watch,
    ) -> Result<FloorFigures, FloorError> {
        self.options.check_pattern(pattern)?;
        if !std::mem::replace(&mut self.is_sound, false) {
            return Err(FloorError::Server("a measurement before this one failed; start another floor".to_owned()));
        }
        let meter = Meter::new([(SERVER, self.pid()), (CLIENTS, std::process::id())]);
        let mut measurement = Measurement { floor: self, stop, watch, shown: None };
        let figures = match pattern {
            Pattern::Accept => measurement.accept(&meter),
            _ => measurement.send(&meter, pattern, duration),
        };
        let figures = figures.map_err(|error| match error {
            // A Ctrl-C reaches the server too, which is then not to blame.
            FloorError::Died { .. } if stop.load(Ordering::Acquire) => FloorError::Interrupted,
            other => other,
        })?;
        self.is_sound = true;
        Ok(figures)
    }

    fn scenario(&self) -> Scenario {
        Scenario {
            connect: vec![self.address],
            clients: self.options.clients,
            threads: self.options.client_threads,
            sources: self.options.clients.div_ceil(CLIENTS_PER_SOURCE),
            first_source: Ipv4Addr::new(127, 0, 0, 2),
            connects_per_second: 0.0,
            heartbeat: Duration::ZERO,
            run: (monotonic_ns() as u32).max(1),
            ..Scenario::default()
        }
    }
}

/// Clients that connected and say nothing.
enum Connected {
    /// Ours to close.
    Sockets(connector::Connected),
    /// The engine's.
    Xdp(Box<XdpEngine>),
}

struct Measurement<'a> {
    floor: &'a mut Floor,
    stop: &'a AtomicBool,
    watch: &'a mut dyn Watch,
    shown: Option<Shown>,
}

/// What the watcher saw last.
#[derive(Clone, Copy)]
struct Shown {
    at: Instant,
    step: Step,
    done: u64,
}

impl Measurement<'_> {
    /// Clients that connect and say nothing.
    fn accept(&mut self, meter: &Meter) -> Result<FloorFigures, FloorError> {
        self.order(&Order::Admit { grant: false })?;
        let before = meter.sample()?;
        let began = Instant::now();
        let (clients, threads) = (self.floor.options.clients, self.floor.options.client_threads);
        let connected = match self.floor.rig.clone() {
            Some(rig) => {
                let engine = XdpEngine::start_mute(&self.floor.scenario(), &rig).map_err(EngineError::from)?;
                Connected::Xdp(Box::new(engine))
            }
            None => {
                let connected = connector::connect(&self.floor.scenario(), threads);
                if connected.is_err() {
                    // If the server is gone, that is why.
                    self.ask(&Order::Count)?;
                }
                Connected::Sockets(connected?)
            }
        };
        let deadline = began + patience(clients);
        loop {
            let accepted = match self.ask(&Order::Count)? {
                Answer::Counted { accepted } => accepted,
                other => return Err(unexpected(&other)),
            };
            self.show(Step::Build, Gauges { joined: accepted, ..Gauges::default() }, u64::from(clients));
            if accepted >= u64::from(clients) {
                break;
            }
            self.check(deadline, "accept everybody", patience(clients))?;
            thread::sleep(LOOK_EVERY);
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = meter.sample()?;
        self.order(&Order::Disband)?;
        match connected {
            Connected::Sockets(sockets) => drop(sockets),
            Connected::Xdp(engine) => engine.finish()?,
        }
        Ok(FloorFigures::of_connecting(&self.floor.options, Pattern::Accept, &after.since(&before), seconds))
    }

    fn send(&mut self, meter: &Meter, pattern: Pattern, duration: Duration) -> Result<FloorFigures, FloorError> {
        let scenario = self.floor.scenario();
        self.order(&Order::Admit { grant: true })?;
        let before = meter.sample()?;
        let began = Instant::now();
        let rig = self.floor.rig.clone();
        let mut engine = engine::start(&scenario, rig.as_deref())?;
        self.join(&mut engine, &scenario)?;
        let join_seconds = began.elapsed().as_secs_f64();
        let members = engine.seal()?;
        if members < u64::from(scenario.clients) {
            // If the server is gone, that is why.
            self.ask(&Order::Count)?;
            return Err(not_joined(members, scenario.clients, engine.settle(Due::AsHeard)?));
        }
        // Numbers that nobody writes: they say that ours begin at 0, so that a lost first message is seen.
        let numbers = Some(Arc::new(Numbers::new(1)));
        engine.open(&Books { run: scenario.run, phase: 0, target: Target::Rooms, numbers })?;
        self.order(&Order::Prepare)?;
        let built = meter.sample()?;
        let order = Order::Send { pattern, seconds: duration.as_secs_f64(), run: scenario.run };
        let sent = self.watch_sending(engine.as_mut(), &order, pattern, duration)?;
        self.settle(engine.as_mut(), u64::from(sent.messages) * members)?;
        let done = meter.sample()?;
        let tally = engine.settle(Due::Published(vec![sent.messages]))?;
        // The server first: it resets, which leaves nothing to wait for on either side, and to a goodbye it has no answer.
        self.order(&Order::Disband)?;
        engine.finish()?;
        let connecting = built.since(&before);
        let figures = FloorFigures::of_connecting(&self.floor.options, pattern, &connecting, join_seconds);
        Ok(figures.with_messages(&sent, &tally, &done.since(&built)))
    }

    fn join(&mut self, engine: &mut Box<dyn Engine>, scenario: &Scenario) -> Result<(), FloorError> {
        let wanted = u64::from(scenario.clients);
        let deadline = Instant::now() + patience(scenario.clients);
        let mut asked = Instant::now();
        loop {
            engine.check()?;
            let gauges = engine.gauges();
            self.show(Step::Build, gauges, wanted);
            if gauges.joined + gauges.failed >= wanted || Instant::now() >= deadline {
                return Ok(());
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(FloorError::Interrupted);
            }
            // A server that ran out of something says so now, not when the clients have waited in vain. Not often, for
            // the asking is in its CPU time.
            if asked.elapsed() >= ASK_EVERY {
                self.ask(&Order::Count)?;
                asked = Instant::now();
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn watch_sending(
        &mut self,
        engine: &mut dyn Engine,
        order: &Order,
        pattern: Pattern,
        duration: Duration,
    ) -> Result<Sent, FloorError> {
        let doing = "send its messages";
        let planned = match pattern {
            Pattern::Paced { messages_per_second, .. } => messages_per_second * duration.as_secs_f64(),
            _ => 0.0,
        };
        let due = (planned * f64::from(self.floor.options.clients)) as u64;
        // A machine that cannot keep the pace takes longer, which is a result; one where nothing moves is stuck.
        let (mut received, mut deadline) = (0, Instant::now() + duration + GRACE);
        self.floor.child.tell(order, doing)?;
        loop {
            match self.floor.child.look(doing)? {
                Some(Answer::Sent(sent)) => return Ok(sent),
                Some(other) => return Err(unexpected(&other)),
                None => {}
            }
            engine.check()?;
            let gauges = engine.gauges();
            self.show(Step::Listen, gauges, due);
            if gauges.received > received {
                (received, deadline) = (gauges.received, Instant::now() + duration + GRACE);
            }
            self.check(deadline, doing, duration + GRACE)?;
            thread::sleep(LOOK_EVERY);
        }
    }

    fn settle(&mut self, engine: &mut dyn Engine, due: u64) -> Result<(), FloorError> {
        let (mut received, mut quiet_since) = (0, Instant::now());
        loop {
            engine.check()?;
            let gauges = engine.gauges();
            self.show(Step::Settle, gauges, due);
            if gauges.received > received {
                (received, quiet_since) = (gauges.received, Instant::now());
            }
            if received >= due || quiet_since.elapsed() >= SETTLE {
                return Ok(());
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(FloorError::Interrupted);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn check(&self, deadline: Instant, doing: &'static str, patience: Duration) -> Result<(), FloorError> {
        if self.stop.load(Ordering::Acquire) {
            return Err(FloorError::Interrupted);
        }
        if Instant::now() >= deadline {
            return Err(FloorError::Silent { doing, seconds: patience.as_secs() });
        }
        Ok(())
    }

    fn show(&mut self, step: Step, gauges: Gauges, total: u64) {
        let at = Instant::now();
        let done = if step == Step::Build { gauges.joined } else { gauges.received };
        let same_step = self.shown.filter(|shown| shown.step == step);
        if same_step.is_some_and(|shown| at - shown.at < SHOW_EVERY) {
            return;
        }
        let per_second =
            same_step.map_or(0.0, |shown| ratio(done.saturating_sub(shown.done) as f64, (at - shown.at).as_secs_f64()));
        self.shown = Some(Shown { at, step, done });
        self.watch.look(&View { step, gauges, done, total, per_second });
    }

    fn ask(&mut self, order: &Order) -> Result<Answer, FloorError> {
        self.floor.child.ask(order, doing(order), GRACE)
    }

    fn order(&mut self, order: &Order) -> Result<(), FloorError> {
        match self.ask(order)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

fn patience(clients: u32) -> Duration {
    Duration::from_secs(u64::from(clients) / SLOWEST_CONNECTS_PER_SECOND) + GRACE
}

fn not_joined(joined: u64, clients: u32, tally: Tally) -> FloorError {
    let reasons = tally.failed.into_map().into_iter().map(|(reason, count)| format!("{count} x {reason}"));
    FloorError::NotJoined { joined, wanted: u64::from(clients), reasons: reasons.collect::<Vec<_>>().join(", ") }
}

fn doing(order: &Order) -> &'static str {
    match order {
        Order::Open { .. } => "start",
        Order::Admit { .. } => "admit clients",
        Order::Count => "count its clients",
        Order::Prepare => "make ready to send",
        Order::Send { .. } => "send its messages",
        Order::Disband => "close its connections",
    }
}

fn unexpected(answer: &Answer) -> FloorError {
    FloorError::Server(format!("it answered {answer:?}, which was not asked for"))
}
