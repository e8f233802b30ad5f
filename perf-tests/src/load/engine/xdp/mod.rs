//! The engine without sockets: one XDP program at the clients' end of a veth pair plays them all.
//!
//! The program keeps the books (its `abi` says how); this side begins connections and heartbeats, and adds up. It takes
//! no orders yet: its clients listen, and that is all.
//!
//! Layout: [`rig`] namespaces, veth pair, what is attached · [`program`] what runs in the kernel, and its tables ·
//! [`mod@script`] what the clients do · `frames`, `injector`, `goodbyes` and `farewell` what the program cannot send by
//! itself · `line` from userspace to one client · `books` from tables to a tally · [`error`] what can be missing

mod books;
pub mod error;
mod farewell;
mod frames;
mod goodbyes;
mod injector;
mod line;
pub mod program;
pub mod rig;
pub mod script;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use abi::clients::{Count, Script, habit};

use super::{Books, Due, Engine, EngineError, Gauges, Tally};
use crate::load::behaviour::Order;
use crate::load::scenario::Scenario;
use crate::load::stamp::monotonic_ns;
use crate::load::target::Streams;
use books::{NEVER_IN, Phase};
use error::XdpError;
use frames::Frames;
use injector::{Injector, Signals};
use line::Line;
use program::{Counts, Program};
use rig::Rig;
use script::script;

/// See the module.
pub struct XdpEngine {
    program: Arc<Mutex<Program>>,
    signals: Arc<Signals>,
    /// `None` once it was joined.
    injector: Option<JoinHandle<Result<(), XdpError>>>,
    /// For what is said when the injector is gone.
    line: Line,
    scenario: Scenario,
    script: Script,
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
        held.set_script(&script)?;
        let (at_start, phase, clients) = (held.counts()?, Phase::new(&held)?, Arc::clone(held.clients()));
        drop(held);
        let signals = Arc::new(Signals::new(scenario.clients));
        let line = || -> Result<Line, XdpError> {
            let (clients, frames) = (Arc::clone(&clients), Frames::new(script, server, scenario.transport));
            Ok(Line { clients, frames, socket: rig.frame_socket()? })
        };
        let injector = Injector { line: line()?, scenario: scenario.clone(), signals: Arc::clone(&signals) };
        let thread = thread::Builder::new().name("injector".to_owned());
        let injector = thread.spawn(move || injector.run()).map_err(XdpError::io("start the injector"))?;
        let (scenario, line) = (scenario.clone(), line()?);
        Ok(Self {
            program,
            signals,
            injector: Some(injector),
            line,
            scenario,
            script,
            at_start,
            phase,
            sealed: false,
            ends_itself: !rig.is_server_borrowed(),
        })
    }

    fn program(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Ok(counts) = self.program().counts() else { return Gauges::default() };
        let counts = counts.since(&self.at_start);
        let of = |whats: &[Count]| whats.iter().map(|what| counts.of(*what)).sum::<u64>();
        let joined = counts.of(Count::Joined);
        let closed = of(&[Count::Closed, Count::Reset]);
        let refused = of(&NEVER_IN);
        let unanswered =
            if self.sealed { u64::from(self.scenario.clients).saturating_sub(joined + refused) } else { 0 };
        Gauges {
            joined,
            failed: refused + unanswered,
            closed,
            present: joined.saturating_sub(closed),
            received: counts.of(Count::Messages),
            faults: of(&[Count::Duplicates, Count::OrderFaults, Count::Misrouted]),
            ..Gauges::default()
        }
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
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let begun_ns = |number: u32| self.signals.begun_ns[number as usize].load(Ordering::Relaxed);
        self.phase.seal(&program, &self.script, begun_ns);
        Ok(program.counts()?.since(&self.at_start).of(Count::Joined))
    }

    fn open(&mut self, books: &Books) -> Result<Vec<u32>, EngineError> {
        let streams = Streams::new(books.target, self.scenario.clients, self.scenario.rooms).count();
        let anchor = if books.numbers.is_none() { habit::FROM_FIRST_HEARD } else { 0 };
        let habits = self.script.habits & !habit::FROM_FIRST_HEARD | anchor;
        self.script = Script { run: books.run, phase: books.phase, streams, habits, ..self.script };
        let script = self.script;
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        program.set_script(&script)?;
        Ok(self.phase.open(&program, &script)?)
    }

    fn order(&mut self, order: Order) -> Result<u64, EngineError> {
        match order {
            // Nothing to end.
            Order::Churn { per_second: 0.0, .. } => Ok(0),
            order => Err(XdpError::Beyond(format!("{order:?}")).into()),
        }
    }

    fn outstanding(&mut self, ends: &[u32]) -> Result<u64, EngineError> {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.phase.balance(&program, &self.script, ends)?.missing)
    }

    fn look_into_unread(&mut self) -> Result<(), EngineError> {
        // Everybody reads.
        Ok(())
    }

    fn settle(&mut self, due: Due) -> Result<Tally, EngineError> {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = match due {
            Due::Published(ends) => ends,
            Due::AsHeard => self.phase.heard(&program, &self.script),
        };
        let mut tally = self.phase.settle(&program, &self.script, &ends)?;
        tally.run = if self.script.run == 0 { program.heard_run()? } else { self.script.run };
        tally.heartbeats_sent = self.phase.heartbeats_since(self.signals.heartbeats.load(Ordering::Relaxed));
        Ok(tally)
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        self.stop()?;
        self.ends_itself = true;
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
