//! What is done in each kind of phase, and which figures come of it.
//!
//! Layout: clients and the costs around them here · `calm` nobody misbehaves · `unrest` some do · `backlog` the edge itself
//! was away · `floor` the same on the floor

mod backlog;
mod calm;
mod floor;
mod unrest;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::figures::Figures;
use super::profile::{By, Kind, Phase, Profile, room_type};
use super::recorder::Recorder;
use super::site::{EDGE, Site, SiteError, TIER};
use crate::load::behaviour::{Acknowledging, Behaviour};
use crate::load::conduct::{Conductor, RunError};
use crate::load::engine;
use crate::load::engine::xdp::rig::Rig;
use crate::load::report::{Connections, PhaseReport};
use crate::load::scenario::{Dialect, Publish, Scenario, ScenarioError, Transport, threads_for};
use crate::load::target::Target;
use crate::load::watch::Watch;
use crate::meter::{Difference, Meter, MeterError, Sample};
use wire::goim::op;

pub(super) use floor::FloorStage;

/// What the floor's server is called in samples.
pub(super) const FLOOR: &str = "floor";

/// Connections per source address: far below the ephemeral ports that Linux offers by default, because those of clients
/// that have just gone wait a minute, and a search among the few that are left is slow (1,800 connects a second).
const CLIENTS_PER_SOURCE: u32 = 5_000;

/// How long the edge may take to close the connections of clients that have gone, and how often it is asked.
const EMPTY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Clients that can be connected per second at worst, on a busy machine.
const SLOWEST_CONNECTS_PER_SECOND: u64 = 1000;

/// Clients that come and go before memory is measured, so that what is the daemon's own is there already.
const WARM_UP_CLIENTS: u32 = 64;

/// Publishing connections.
const PUBLISHERS: usize = 8;

/// Receive buffer of clients that stop reading: a kernel that has seen them read fast has given them megabytes.
const SLOW_BUFFER_BYTES: usize = 16 << 10;

/// Begins the keys that clients bring for a push by key.
const KEYS: &str = "signoff-";

/// Why a phase gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum PhaseError {
    /// The daemons.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The clients, or the publisher.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The clients cannot be had so.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A process is gone.
    #[error(transparent)]
    Meter(#[from] MeterError),
    /// The floor.
    #[error("the floor: {0}")]
    Floor(#[from] crate::floor::FloorError),
    /// A program of ours is not where the others are.
    #[error(transparent)]
    Daemon(#[from] crate::probe::daemons::DaemonError),
}

/// What clients have to be for a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetUp {
    pub(super) clients: u32,
    transport: Transport,
    rooms: u32,
    merge_ms: u64,
    /// What clients are pushed by; such ones accept the operation, and for pushes by key they bring keys.
    by: Option<By>,
}

impl SetUp {
    pub(super) fn of(profile: &Profile, phase: &Phase) -> Self {
        Self {
            clients: phase.clients.unwrap_or(profile.clients.count).get_u32(),
            transport: phase.transport.unwrap_or(profile.clients.transport),
            rooms: phase.rooms.get_u32(),
            merge_ms: phase.merge_ms.get(),
            by: phase.by,
        }
    }
}

/// Where phases run: the daemons, and who looks on.
pub(super) struct Stage<'a> {
    pub(super) profile: &'a Profile,
    pub(super) stop: &'a AtomicBool,
    /// Holds clients made of XDP; `None` when they are sockets.
    pub(super) rig: Option<&'a Rig>,
    pub(super) recorder: Recorder,
    pub(super) site: &'a mut Site,
    pub(super) set_up: &'a SetUp,
    pub(super) figures: &'a mut Figures,
}

/// Clients that are in.
pub(super) struct Crowd<'w> {
    conductor: Conductor<'w>,
    connections: Connections,
    /// What it took to let them in.
    building: Cost,
    /// Memory of the edge before they came; `None` when others had been there.
    anon_bytes_before: Option<u64>,
    slab_bytes_before: u64,
}

impl Crowd<'_> {
    /// All go.
    pub(super) fn disperse(self) -> Result<(), PhaseError> {
        self.conductor.finish()?;
        Ok(())
    }
}

/// Everything at one moment.
struct Moment {
    sample: Sample,
    edge: BTreeMap<String, f64>,
}

/// What was used between two moments.
struct Cost {
    used: Difference,
    edge: BTreeMap<String, f64>,
    /// At the end.
    rss_mb: f64,
}

impl Cost {
    fn cpu_us(&self, process: &str) -> f64 {
        // A process that is not there has no figure, and NaN is not recorded.
        self.used.processes.get(process).map_or(f64::NAN, |used| used.cpu_ns as f64 / 1000.0)
    }

    /// By how much a figure of the edge rose.
    fn edge(&self, name: &str) -> f64 {
        self.edge.get(name).copied().unwrap_or(f64::NAN)
    }

    /// The edge's CPU by wall-clock time.
    fn cpu_share(&self) -> f64 {
        self.cpu_us(EDGE) / 1e6 / self.used.seconds
    }
}

impl Stage<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn moment(&self) -> Result<Moment, PhaseError> {
        let processes = self.site.processes.iter().map(|(name, pid)| (name.clone(), *pid));
        Ok(Moment { sample: Meter::new(processes).sample()?, edge: self.site.edge.read()? })
    }

    fn cost_since(&self, before: &Moment) -> Result<Cost, PhaseError> {
        let now = self.moment()?;
        let rise = |(name, value): (&String, &f64)| (name.clone(), value - before.edge.get(name).unwrap_or(&0.0));
        Ok(Cost {
            used: now.sample.since(&before.sample),
            edge: now.edge.iter().map(rise).collect(),
            rss_mb: now.sample.processes.get(EDGE).map_or(f64::NAN, |edge| edge.rss_bytes as f64 / 1e6),
        })
    }

    /// Connects the clients and lets them join. With `warm_up` some others come and go before.
    pub(super) fn assemble<'w>(&mut self, warm_up: bool, watch: &'w mut dyn Watch) -> Result<Crowd<'w>, PhaseError>
    where
        Self: 'w,
    {
        let fresh = std::mem::replace(&mut self.site.fresh, false);
        if warm_up && fresh {
            self.warm_up()?;
        }
        let before = self.moment()?;
        let scenario = self.scenario(self.set_up.clients);
        // Clients made of XDP are no descriptors.
        scenario.check(if self.rig.is_none() { descriptor_limit() } else { u64::MAX })?;
        let rig = self.rig;
        let start = move |scenario: &Scenario| engine::start(scenario, rig);
        let mut conductor = Conductor::start(scenario, start, self.stop, watch)?;
        let connections = conductor.build()?;
        let building = self.cost_since(&before)?;
        let edge = before.sample.processes.get(EDGE).filter(|_| fresh);
        Ok(Crowd {
            conductor,
            connections,
            building,
            anon_bytes_before: edge.map(|edge| edge.rss_anon_bytes),
            slab_bytes_before: before.sample.host.slab_bytes,
        })
    }

    /// Waits until the edge has closed what its clients have left: a full one lets no others in. Running daemons have clients
    /// of their own.
    pub(super) fn await_empty(&self) -> Result<(), PhaseError> {
        let deadline = Instant::now() + EMPTY_WITHIN;
        while self.site.is_ours() && !self.stopped() && self.site.edge.read()?.get("push_connections") != Some(&0.0) {
            if Instant::now() >= deadline {
                self.recorder.trouble("the edge still has connections of clients that have gone");
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Clients that should be there when `phases` begin, and are not.
    pub(super) fn tell_who_is_missing(&self, phases: &str, crowd: &Crowd<'_>) {
        let Connections { wanted, joined, refused, .. } = &crowd.connections;
        if joined < wanted && !self.stopped() {
            let reasons: Vec<String> = refused.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
            let reasons = reasons.join(", ");
            self.recorder.trouble(format!("{phases}: {joined} of {wanted} clients joined: {reasons}"));
        }
    }

    fn warm_up(&self) -> Result<(), PhaseError> {
        let scenario = self.scenario(WARM_UP_CLIENTS.min(self.set_up.clients));
        let mut watch = crate::load::watch::Unwatched;
        let publish = Publish { messages: 8, ..self.publish(None) };
        let mut conductor =
            Conductor::start(scenario, |scenario| engine::start(scenario, self.rig), self.stop, &mut watch)?;
        conductor.build()?;
        conductor.publish(&crate::load::conduct::Phase::new("warm-up", publish))?;
        conductor.finish()?;
        Ok(())
    }

    /// Does what the phase says with the crowd, and records its figures. One that was interrupted gives none.
    pub(super) fn run(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        match phase.kind {
            Kind::Connect => self.connect(phase, crowd),
            Kind::Idle => self.idle(phase, crowd),
            Kind::Broadcast | Kind::Push => self.speak(phase, crowd),
            Kind::Backlog => self.backlog(phase, crowd),
            Kind::Soak => self.soak(phase, crowd),
            Kind::Churn => self.churn(phase, crowd),
            Kind::Slow => self.slow(phase, crowd),
            Kind::Storm => self.storm(phase, crowd),
        }
    }

    fn record(&mut self, phase: &Phase, figure: &str, value: f64) {
        self.figures.record(&phase.name, figure, value);
    }

    fn scenario(&self, clients: u32) -> Scenario {
        let (plan, site, set_up) = (&self.profile.clients, &self.site, self.set_up);
        let cpus = thread::available_parallelism().map_or(1, usize::from).min(clients as usize);
        let threads = match plan.threads {
            0 => cpus.max(threads_for(clients, descriptor_limit()) as usize),
            threads => threads.min(clients as usize),
        };
        let on_loopback = site.clients_at(set_up.transport).ip().is_loopback();
        Scenario {
            connect: vec![site.clients_at(set_up.transport)],
            transport: set_up.transport,
            dialect: plan.dialect,
            clients,
            threads,
            sources: if on_loopback { clients.div_ceil(CLIENTS_PER_SOURCE) } else { 0 },
            first_source: plan.first_source,
            connects_per_second: plan.connects_per_second,
            rest: Duration::from_millis(plan.rest_ms.get()),
            // All of them with equally many digits, so that no room's packets are longer than another's.
            first_room: set_up.rooms.max(1000).next_multiple_of(10_u32.pow(set_up.rooms.max(1000).ilog10())),
            rooms: set_up.rooms.min(clients),
            room_type: room_type(set_up.merge_ms),
            own_keys: if set_up.by == Some(By::Key) { KEYS.to_owned() } else { String::new() },
            accepts: if set_up.by.is_some() { vec![self.operation()] } else { Vec::new() },
            behaviour: Behaviour {
                slow_buffer_bytes: SLOW_BUFFER_BYTES,
                acknowledging: Acknowledging { lost_share: plan.ack_loss, delay_ms: plan.ack_delay_ms.get() as u32 },
                ..Behaviour::default()
            },
            token: site.token.clone(),
            api_key: site.api_key.clone(),
            heartbeat: Duration::from_secs_f64(plan.heartbeat_seconds),
            // Says that the publisher is ours; every phase brings its own.
            publish: Some(self.publish(None)),
            build_within: Duration::from_secs(30 + u64::from(clients) / SLOWEST_CONNECTS_PER_SECOND),
            ..Scenario::default()
        }
    }

    fn operation(&self) -> i32 {
        match self.profile.clients.dialect {
            Dialect::Goim => op::FIRST_OF_APPLICATION,
            Dialect::Bilibili => op::SEND_MESSAGE_REPLY,
        }
    }

    /// What the phase publishes, or nothing.
    fn publish(&self, phase: Option<&Phase>) -> Publish {
        let target = match phase.and_then(|phase| phase.by) {
            None => Target::Rooms,
            Some(By::Mid) => Target::Mids { each: 1 },
            Some(By::Key) => Target::Keys { each: 1 },
        };
        let bytes = phase.and_then(|phase| phase.message_bytes).unwrap_or(self.profile.clients.message_bytes);
        let abreast = phase.map_or(1, |phase| phase.abreast.count());
        Publish {
            http: self.site.http,
            messages: phase.map_or(0, Phase::message_count),
            per_second: phase.and_then(|phase| phase.per_second).unwrap_or(0.0),
            message_bytes: bytes.count(),
            workers: PUBLISHERS.max(abreast),
            abreast,
            operation: self.operation(),
            target,
        }
    }

    /// What every phase with messages is measured by.
    fn record_messages(&mut self, phase: &Phase, report: &PhaseReport, cost: &Cost) {
        self.record_costs(phase, report, cost);
        self.record(phase, "delivered_per_second", report.messages.received_per_second);
        if let Some(delay) = &report.delay_us {
            self.record(phase, "delay_p50_ms", delay.p50 as f64 / 1000.0);
            self.record(phase, "delay_p99_ms", delay.p99 as f64 / 1000.0);
        }
        if let Some(last) = &report.last_receiver_us {
            self.record(phase, "last_receiver_p50_ms", last.p50 as f64 / 1000.0);
            self.record(phase, "last_receiver_p99_ms", last.p99 as f64 / 1000.0);
        }
    }

    /// What messages cost, and whether they came.
    fn record_costs(&mut self, phase: &Phase, report: &PhaseReport, cost: &Cost) {
        let messages = &report.messages;
        let (received, published) = (messages.received as f64, report.published.as_ref());
        let accepted = published.map_or(f64::NAN, |published| published.accepted as f64);
        let sends = cost.edge("push_sends_total");
        let refused = published.map_or(0, |published| {
            published.refused.values().sum::<u64>() + published.unanswered.values().sum::<u64>() + published.unsent
        });
        let disorder = if phase.abreast.get() == 1 { messages.order_faults } else { 0 };
        for (figure, value) in [
            ("cpu_us_per_message", cost.cpu_us(EDGE) / received),
            ("tier_cpu_us_per_publish", cost.cpu_us(TIER) / accepted),
            ("messages_per_write", cost.edge("push_delivered_packets_total") / sends),
            ("writes_per_second_per_core", sends / (cost.cpu_us(EDGE) / 1e6)),
            ("missing", messages.missing as f64),
            ("faults", (messages.duplicates + disorder + messages.misrouted) as f64),
            ("refused", refused as f64),
            ("rss_mb", cost.rss_mb),
        ] {
            self.record(phase, figure, value);
        }
    }
}

/// Descriptors that one table may hold now.
fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Heartbeats without an answer. One that is under way at the line has none: a second's worth is not held against anybody.
fn heartbeats_missing(report: &PhaseReport) -> f64 {
    let beats = &report.heartbeats;
    let under_way = (beats.sent as f64 / report.seconds.max(1.0)).ceil();
    let unanswered = beats.sent as f64 - beats.answered as f64 - under_way;
    unanswered.max(beats.overdue as f64)
}

/// Clients that were closed and should not have been.
fn closed(report: &PhaseReport) -> f64 {
    report.closed.values().sum::<u64>() as f64
}
