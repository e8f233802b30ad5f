//! Looks on while phases run: takes a point of the series now and then, notes when which phase ran, feeds the display.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use super::progress::Progress;
use super::report::PhaseRun;
use super::series::{Point, Series};
use super::site::{DaemonFigures, Site};
use crate::load::stamp::monotonic_ns;
use crate::load::watch::{View, Watch};
use crate::meter::{Meter, Sample};

/// Time between two points of the series, to begin with.
const POINT_EVERY_SECONDS: f64 = 0.5;

/// The shortest time over which a rate is taken.
const SHORTEST_NS: u64 = 250_000_000;

/// What this process is called in samples: it holds the clients.
const CLIENTS: &str = "clients";

/// See the module. Its handles share it: the phases hold one while a conductor shows things to another.
#[derive(Clone)]
pub(super) struct Recorder(Rc<RefCell<State>>);

struct State {
    began: Instant,
    processes: BTreeMap<String, u32>,
    last: Option<(Sample, u64)>,
    series: Series,
    phases: Vec<PhaseRun>,
    progress: Progress,
    troubles: Vec<String>,
    /// Asked for what it owes at every point, while that is wanted; and the most that it said.
    debtor: Option<DaemonFigures>,
    most_owed_bytes: f64,
}

/// What is left in the end.
pub(super) struct Record {
    pub(super) phases: Vec<PhaseRun>,
    pub(super) points: Vec<Point>,
    pub(super) troubles: Vec<String>,
    pub(super) seconds: f64,
}

impl Recorder {
    pub(super) fn new(phases: usize) -> Self {
        Self(Rc::new(RefCell::new(State {
            began: Instant::now(),
            processes: BTreeMap::from([(CLIENTS.to_owned(), std::process::id())]),
            last: None,
            series: Series::new(POINT_EVERY_SECONDS),
            phases: Vec::new(),
            progress: Progress::new(phases),
            troubles: Vec::new(),
            debtor: None,
            most_owed_bytes: 0.0,
        })))
    }

    /// The site's processes are those to look at from now on.
    pub(super) fn turn_to(&self, site: &Site) {
        let mut state = self.0.borrow_mut();
        state.processes.retain(|name, _| name == CLIENTS || name == super::phases::FLOOR);
        state.processes.extend(site.processes.clone());
        state.last = None;
    }

    /// The floor's server is there, or no longer.
    pub(super) fn floor(&self, pid: Option<u32>) {
        let mut state = self.0.borrow_mut();
        state.processes.remove(super::phases::FLOOR);
        state.processes.extend(pid.map(|pid| (super::phases::FLOOR.to_owned(), pid)));
        state.last = None;
    }

    /// Asks the edge at every point what it owes to clients, from now on.
    pub(super) fn watch_debts(&self, edge: &DaemonFigures) {
        let mut state = self.0.borrow_mut();
        (state.debtor, state.most_owed_bytes) = (Some(edge.clone()), 0.0);
    }

    /// The most that the edge owed since it is asked; it is not asked any more.
    pub(super) fn most_owed_bytes(&self) -> f64 {
        let mut state = self.0.borrow_mut();
        state.debtor = None;
        state.most_owed_bytes
    }

    /// Clients come in, for a phase that is not about that.
    pub(super) fn begin_joining(&self) {
        self.note("joining", 0);
    }

    /// A phase begins.
    pub(super) fn begin(&self, name: &str, repeat: u64) {
        self.0.borrow_mut().progress.begin(name, repeat);
        self.note(name, repeat);
    }

    fn note(&self, name: &str, repeat: u64) {
        let mut state = self.0.borrow_mut();
        let now = state.began.elapsed().as_secs_f64();
        state.phases.push(PhaseRun { name: name.to_owned(), repeat, from_seconds: now, to_seconds: now });
    }

    /// It is over.
    pub(super) fn end(&self) {
        let mut state = self.0.borrow_mut();
        let now = state.began.elapsed().as_secs_f64();
        if let Some(phase) = state.phases.last_mut() {
            phase.to_seconds = now;
        }
    }

    /// Something went wrong.
    pub(super) fn trouble(&self, text: impl Into<String>) {
        let mut state = self.0.borrow_mut();
        let text = text.into();
        state.progress.trouble(&text);
        state.troubles.push(text);
    }

    /// What was recorded; nothing is any more.
    pub(super) fn finish(&self) -> Record {
        let mut state = self.0.borrow_mut();
        Record {
            phases: std::mem::take(&mut state.phases),
            points: std::mem::replace(&mut state.series, Series::new(f64::INFINITY)).into_points(),
            troubles: std::mem::take(&mut state.troubles),
            seconds: state.began.elapsed().as_secs_f64(),
        }
    }
}

impl Watch for Recorder {
    fn look(&mut self, view: &View) {
        let mut state = self.0.borrow_mut();
        state.progress.look(view);
        let at_seconds = state.began.elapsed().as_secs_f64();
        let is_fresh = state.last.as_ref().is_some_and(|(sample, _)| monotonic_ns() - sample.at_ns < SHORTEST_NS);
        if state.series.is_due(at_seconds) && !is_fresh {
            state.point(at_seconds, view);
            state.ask_debtor();
        }
    }
}

impl State {
    /// An edge that does not answer leaves a gap.
    fn ask_debtor(&mut self) {
        let figures = self.debtor.as_ref().and_then(|edge| edge.read().ok());
        let owed = figures.and_then(|figures| figures.get("push_owed_bytes").copied());
        self.most_owed_bytes = self.most_owed_bytes.max(owed.unwrap_or(0.0));
    }

    /// A process that is gone leaves a gap here; whoever needs it says so.
    fn point(&mut self, at_seconds: f64, view: &View) {
        let meter = Meter::new(self.processes.iter().map(|(name, pid)| (name.clone(), *pid)));
        let Ok(sample) = meter.sample() else { return };
        let received = view.gauges.received;
        if let Some((last, received_before)) = &self.last {
            let passed = sample.since(last);
            let per_second = |count: f64| if passed.seconds > 0.0 { count / passed.seconds } else { 0.0 };
            let cores = |ns: u64| per_second(ns as f64 / 1e9);
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            let processes = sample.processes.iter();
            self.series.push(Point {
                at_seconds,
                cpu_cores: passed.processes.iter().map(|(name, used)| (name.clone(), cores(used.cpu_ns))).collect(),
                rss_mb: processes.map(|(name, process)| (name.clone(), megabytes(process.rss_bytes))).collect(),
                slab_mb: megabytes(sample.host.slab_bytes),
                tcp_memory_mb: megabytes(sample.host.tcp_memory_bytes),
                connections: view.gauges.present as f64,
                delivered_per_second: per_second(received.saturating_sub(*received_before) as f64),
                retransmits_per_second: per_second(passed.tcp.retransmits as f64),
            });
        }
        self.last = Some((sample, received));
    }
}
