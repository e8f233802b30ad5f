//! The engine without sockets: one XDP program at the clients' end of a veth pair plays them all.
//!
//! The program keeps the books (its `abi` says how); this side begins connections, heartbeats and whatever orders ask for,
//! and adds up.
//!
//! Layout: [`rig`] namespaces, veth pair, what is attached · [`program`] what runs in the kernel, and its tables ·
//! [`mod@script`] what the clients do · `injector` the thread that sends what the program cannot by itself · `frames` these ·
//! `line` from userspace to one client · `flock` and `orders` who is told what · `goodbyes`, `returns`, `slow` and `late`
//! what follows from it · `farewell` the end of a run that was interrupted · `owed` who is owed what · `books` from tables to
//! a tally · [`error`] what can be missing

mod books;
pub mod error;
mod farewell;
mod flock;
mod frames;
mod goodbyes;
mod injector;
mod late;
mod line;
mod orders;
mod owed;
pub mod program;
mod returns;
pub mod rig;
pub mod script;
mod slow;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use abi::clients::{Count, Script, habit};

use super::{Books, Due, Engine, EngineError, Gauges, Tally};
use crate::load::behaviour::Order;
use crate::load::scenario::Scenario;
use crate::load::stamp::monotonic_ns;
use crate::load::target::Streams;
use books::{NEVER_IN, Phase};
use error::XdpError;
use flock::Flock;
use frames::Frames;
use injector::{Injector, Signals};
use line::Line;
use program::{Counts, Program};
use rig::Rig;
use script::script;

/// Frames go out in bursts, one in each of these.
const TICK: Duration = Duration::from_millis(2);

/// Frames of a burst of the injector's, at most. They spread over the queues of the pair, whose rings hold 256 each.
const BURST: usize = 256;

/// How long the server may take to answer a goodbye by closing.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
pub struct XdpEngine {
    program: Arc<Mutex<Program>>,
    signals: Arc<Signals>,
    /// `None` once it was joined.
    injector: Option<JoinHandle<Result<(), XdpError>>>,
    /// For what is said when the injector is gone.
    line: Line,
    scenario: Scenario,
    flock: Arc<Mutex<Flock>>,
    at_start: Counts,
    phase: Phase,
    sealed: bool,
    /// Whether nothing is left to be said at the end: it has been, or the server goes with the rig.
    ends_itself: bool,
}

impl XdpEngine {
    /// Puts the clients of `scenario` on the rig, which may hold no others, and begins to connect them.
    ///
    /// # Errors
    /// [`XdpError`] says what is missing, or what of the scenario these clients cannot do.
    pub fn start(scenario: &Scenario, rig: &Rig) -> Result<Self, XdpError> {
        let script = script(scenario, rig.place_for(scenario.clients), monotonic_ns() as u32)?;
        Self::start_with(script, scenario, rig)
    }

    /// As [`Self::start`], but the clients only connect, and say nothing.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_mute(scenario: &Scenario, rig: &Rig) -> Result<Self, XdpError> {
        let script = script(scenario, rig.place_for(scenario.clients), monotonic_ns() as u32)?;
        Self::start_with(Script { greeting_bytes: 0, ..script }, scenario, rig)
    }

    fn start_with(script: Script, scenario: &Scenario, rig: &Rig) -> Result<Self, XdpError> {
        let server = server_of(scenario)?;
        let program = rig.shared_program();
        let mut held = rig.program();
        let room = held.clients().count();
        if scenario.clients > room {
            return Err(XdpError::Beyond(format!("{} clients, with room for {room}", scenario.clients)));
        }
        held.forget_clients()?;
        // Of those who were here before.
        held.take_late(drop);
        held.set_script(&script)?;
        let (at_start, phase, clients) = (held.counts()?, Phase::new(&held)?, Arc::clone(held.clients()));
        drop(held);
        let signals = Arc::new(Signals::new(scenario.clients));
        let line = || -> Result<Line, XdpError> {
            let (clients, frames) = (Arc::clone(&clients), Frames::new(script, server, scenario.transport));
            Ok(Line { program: Arc::clone(&program), clients, frames, socket: rig.frame_socket()? })
        };
        let flock = Arc::new(Mutex::new(Flock::new(scenario, script, at_start)));
        let injector = Injector {
            line: line()?,
            scenario: scenario.clone(),
            signals: Arc::clone(&signals),
            flock: Arc::clone(&flock),
        };
        let thread = thread::Builder::new().name("injector".to_owned());
        let injector = thread.spawn(move || injector.run()).map_err(XdpError::io("start the injector"))?;
        let (scenario, line) = (scenario.clone(), line()?);
        Ok(Self {
            program,
            signals,
            injector: Some(injector),
            line,
            scenario,
            flock,
            at_start,
            phase,
            sealed: false,
            ends_itself: !rig.is_server_borrowed(),
        })
    }

    fn program(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flock(&self) -> MutexGuard<'_, Flock> {
        self.flock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&mut self) -> Result<(), EngineError> {
        self.signals.stop.store(true, Ordering::Release);
        match self.injector.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome.map_err(EngineError::from),
            Some(Err(_)) => Err(EngineError::Panicked),
        }
    }
}

impl Engine for XdpEngine {
    fn gauges(&self) -> Gauges {
        // A table that cannot be read is told by `check`.
        let flock = self.flock();
        let Ok(counts) = self.program().counts() else { return Gauges::default() };
        let counts = counts.since(&self.at_start);
        let of = |whats: &[Count]| whats.iter().map(|what| counts.of(*what)).sum::<u64>();
        let joined = counts.of(Count::Joined);
        let closed = of(&[Count::Closed, Count::Reset]);
        let closed_astray = of(&[
            Count::StoppedReset,
            Count::StoppedClosed,
            Count::SlowReset,
            Count::SlowClosed,
            Count::SilentReset,
            Count::SilentClosed,
        ]);
        let refused = of(&NEVER_IN);
        let unanswered =
            if self.sealed { u64::from(self.scenario.clients).saturating_sub(joined + refused) } else { 0 };
        let mut gauges = Gauges {
            joined,
            failed: refused + unanswered,
            closed,
            present: (joined + counts.of(Count::Back)).saturating_sub(closed + closed_astray),
            closed_astray,
            received: counts.of(Count::Messages),
            faults: of(&[
                Count::Duplicates,
                Count::OrderFaults,
                Count::Misrouted,
                Count::AstrayDuplicates,
                Count::AstrayOrderFaults,
            ]),
            ..Gauges::default()
        };
        flock.add_to(&mut gauges);
        gauges
    }

    fn check(&mut self) -> Result<(), EngineError> {
        if self.injector.as_ref().is_none_or(JoinHandle::is_finished) {
            return self.stop().and(Err(EngineError::Panicked));
        }
        self.program().counts()?;
        Ok(())
    }

    fn seal(&mut self) -> Result<u64, EngineError> {
        self.signals.sealed.store(true, Ordering::Release);
        self.sealed = true;
        let mut flock = self.flock.lock().unwrap_or_else(PoisonError::into_inner);
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let begun_ns = |number: u32| self.signals.begun_ns[number as usize].load(Ordering::Relaxed);
        self.phase.seal(&program, &flock.script, begun_ns);
        let script = flock.script;
        flock.owed.seal(&program, &script);
        Ok(program.counts()?.since(&self.at_start).of(Count::Joined))
    }

    fn open(&mut self, books: &Books) -> Result<Vec<u32>, EngineError> {
        let streams = Streams::new(books.target, self.scenario.clients, self.scenario.rooms).count();
        let anchor = if books.numbers.is_none() { habit::FROM_FIRST_HEARD } else { 0 };
        let mut flock = self.flock.lock().unwrap_or_else(PoisonError::into_inner);
        let flock = &mut *flock;
        let habits = flock.script.habits & !habit::FROM_FIRST_HEARD | anchor;
        flock.script = Script { run: books.run, phase: books.phase, streams, habits, ..flock.script };
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        program.set_script(&flock.script)?;
        self.phase.open();
        Ok(flock.owed.open(&program, &flock.script, books.numbers.clone())?)
    }

    fn order(&mut self, order: Order) -> Result<u64, EngineError> {
        Ok(self.flock().obey(order, &self.line)?)
    }

    fn outstanding(&mut self, ends: &[u32]) -> Result<u64, EngineError> {
        let flock = self.flock();
        Ok(flock.owed.balance(&self.program(), &flock.script, ends, true)?.missing)
    }

    fn look_into_unread(&mut self) -> Result<(), EngineError> {
        Ok(self.flock().all_read(true, &self.line)?)
    }

    fn settle(&mut self, due: Due) -> Result<Tally, EngineError> {
        let mut flock = self.flock.lock().unwrap_or_else(PoisonError::into_inner);
        flock.all_read(false, &self.line)?;
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = match due {
            Due::Published(ends) => ends,
            Due::AsHeard => self.phase.heard(&program, &flock.script),
        };
        let balance = flock.owed.balance(&program, &flock.script, &ends, false)?;
        let mut tally = self.phase.settle(&program, balance, &ends)?;
        tally.run = if flock.script.run == 0 { program.heard_run()? } else { flock.script.run };
        flock.settle(&program, &mut tally)?;
        tally.heartbeats_sent = self.phase.heartbeats_since(self.signals.heartbeats.load(Ordering::Relaxed));
        Ok(tally)
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        self.stop()?;
        self.ends_itself = true;
        self.flock().hear_all(&self.line)?;
        Ok(goodbyes::end_all(&self.line, self.scenario.clients)?)
    }

    fn name(&self) -> &'static str {
        "xdp"
    }
}

impl Drop for XdpEngine {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.stop();
        if !self.ends_itself {
            let _ = farewell::reset_all(&self.line, self.scenario.clients);
        }
    }
}

/// The one server that all clients speak with.
fn server_of(scenario: &Scenario) -> Result<SocketAddr, XdpError> {
    match scenario.connect[..] {
        [server] => Ok(server),
        _ => Err(XdpError::Beyond("they connect to one address".to_owned())),
    }
}
