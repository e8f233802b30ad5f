//! The engine without sockets: one XDP program at the clients' end of a veth pair plays them all.
//!
//! The program keeps the books (its `abi` says how); this side begins connections and heartbeats, and adds up. It takes
//! no orders yet: its clients listen, and that is all.
//!
//! Layout: [`rig`] namespaces, veth pair, what is attached · [`program`] what runs in the kernel, and its tables ·
//! [`mod@script`] what the clients do · `frames` and `injector` what the program cannot send by itself, `farewell` its end · `books`
//! from tables to a tally · [`error`] what can be missing

mod books;
pub mod error;
mod farewell;
mod frames;
mod injector;
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
use program::Program;
use rig::Rig;
use script::script;

/// See the module.
pub struct XdpEngine {
    program: Arc<Mutex<Program>>,
    signals: Arc<Signals>,
    /// `None` once it was joined.
    injector: Option<JoinHandle<Result<(), XdpError>>>,
    scenario: Scenario,
    script: Script,
    phase: Phase,
    sealed: bool,
}

impl XdpEngine {
    /// Puts the clients of `scenario` on the rig, and begins to connect them.
    ///
    /// # Errors
    /// [`XdpError`] says what is missing, or what of the scenario these clients cannot do.
    pub fn start(scenario: &Scenario, mut program: Program, rig: &Rig) -> Result<Self, XdpError> {
        let script = script(scenario, rig::FIRST_CLIENT, monotonic_ns() as u32)?;
        let server = server_of(scenario)?;
        if scenario.clients > program.clients() {
            return Err(XdpError::Beyond(format!("{} clients, with room for {}", scenario.clients, program.clients())));
        }
        program.set_script(&script)?;
        let phase = Phase::new(&program)?;
        let program = Arc::new(Mutex::new(program));
        let signals = Arc::new(Signals::new(scenario.clients));
        let injector = Injector {
            program: Arc::clone(&program),
            frames: Frames::new(script, server, scenario.transport),
            socket: rig.frame_socket()?,
            scenario: scenario.clone(),
            signals: Arc::clone(&signals),
            bids_farewell: rig.is_server_borrowed(),
        };
        let thread = thread::Builder::new().name("injector".to_owned());
        let injector = thread.spawn(move || injector.run()).map_err(XdpError::io("start the injector"))?;
        let scenario = scenario.clone();
        Ok(Self { program, signals, injector: Some(injector), scenario, script, phase, sealed: false })
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
        self.phase.seal(&program, &self.script, begun_ns)?;
        Ok(program.counts()?.of(Count::Joined))
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
            Due::AsHeard => self.phase.heard(&program, &self.script)?,
        };
        let mut tally = self.phase.settle(&program, &self.script, &ends)?;
        tally.run = if self.script.run == 0 { program.heard_run()? } else { self.script.run };
        tally.heartbeats_sent = self.phase.heartbeats_since(self.signals.heartbeats.load(Ordering::Relaxed));
        Ok(tally)
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        self.stop()
    }

    fn name(&self) -> &'static str {
        "xdp"
    }
}

impl Drop for XdpEngine {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.stop();
    }
}

/// The one server that all clients speak with.
fn server_of(scenario: &Scenario) -> Result<SocketAddr, XdpError> {
    match scenario.connect[..] {
        [server] => Ok(server),
        _ => Err(XdpError::Beyond("they connect to one address".to_owned())),
    }
}
