//! Phases in which everybody does what a good client does: connect, idle, broadcast, push, soak.

use std::time::{Duration, Instant};

use super::{Crowd, EDGE, PhaseError, Stage, TIER, closed, heartbeats_missing};
use crate::load::conduct;
use crate::load::scenario::Publish;
use crate::signoff::figures::Values;
use crate::signoff::profile::Phase;

impl Stage<'_> {
    /// The clients are in; what that has cost is recorded here.
    pub(super) fn connect(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        if self.stopped() {
            return Ok(());
        }
        let (connections, cost) = (&crowd.connections, &crowd.building);
        let joined = connections.joined as f64;
        let join_p99_ms = connections.join_us.as_ref().map_or(f64::NAN, |times| times.p99 as f64 / 1000.0);
        for (figure, value) in [
            ("cpu_us", cost.cpu_us(EDGE) / joined),
            ("tier_cpu_us", cost.cpu_us(TIER) / joined),
            ("per_second", connections.joined_per_second),
            ("join_p99_ms", join_p99_ms),
            ("not_joined", connections.wanted as f64 - joined),
            ("closed", connections.closed.values().sum::<u64>() as f64),
            ("rss_mb", cost.rss_mb),
        ] {
            self.record(phase, figure, value);
        }
        for (reason, count) in connections.refused.iter().chain(&connections.closed) {
            self.recorder.trouble(format!("{}: {count} clients: {reason}", phase.name));
        }
        Ok(())
    }

    pub(super) fn idle(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        let before = self.moment()?;
        let seconds = Duration::from_secs_f64(phase.seconds.unwrap_or(0.0));
        let report = crowd.conductor.listen(&phase.name, seconds, &[], Duration::ZERO)?;
        let after = self.moment()?;
        let cost = self.cost_since(&before)?;
        if self.stopped() {
            return Ok(());
        }
        let joined = crowd.connections.joined as f64;
        if let (Some(before), Some(edge)) = (crowd.anon_bytes_before, after.sample.processes.get(EDGE)) {
            self.record(phase, "bytes_per_connection", (edge.rss_anon_bytes as f64 - before as f64) / joined);
        }
        let slab_bytes = after.sample.host.slab_bytes as f64 - crowd.slab_bytes_before as f64;
        for (figure, value) in [
            ("kernel_bytes_per_connection", slab_bytes / joined),
            ("cpu_share", cost.cpu_share()),
            ("closed", closed(&report)),
            ("heartbeats_missing", heartbeats_missing(&report)),
            ("rss_mb", cost.rss_mb),
        ] {
            self.record(phase, figure, value);
        }
        Ok(())
    }

    /// Broadcast and push: messages, and everybody listens.
    pub(super) fn speak(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        let before = self.moment()?;
        let report = crowd.conductor.publish(&conduct::Phase::new(&phase.name, self.publish(Some(phase))))?;
        let cost = self.cost_since(&before)?;
        if !self.stopped() {
            self.record_messages(phase, &report, &cost);
            self.record(phase, "closed", closed(&report));
            self.tell_troubles(phase, &report);
        }
        Ok(())
    }

    /// Long silences with heartbeats, each ended by one message to every room. What the silences cost is told apart from
    /// what the messages cost. Unlike other phases it counts up to an interrupt.
    pub(super) fn soak(&mut self, phase: &Phase, crowd: &mut Crowd<'_>) -> Result<(), PhaseError> {
        let began = Instant::now();
        let wanted = Duration::from_secs_f64(phase.seconds.unwrap_or(0.0));
        let messages = phase.message_count().max(1);
        let each = wanted.div_f64(messages as f64);
        let mut sum = Soak::default();
        let rss_before = self.cost_since(&self.moment()?)?.rss_mb;
        for message in 1..=messages {
            let before = self.moment()?;
            let silence = (each * message as u32).saturating_sub(began.elapsed());
            let report = crowd.conductor.listen(&phase.name, silence, &[], Duration::ZERO)?;
            let cost = self.cost_since(&before)?;
            sum.idle_cpu_us += cost.cpu_us(EDGE);
            sum.idle_seconds += cost.used.seconds;
            sum.heartbeats_missing += heartbeats_missing(&report).max(0.0);
            sum.closed += closed(&report);
            if self.stopped() {
                break;
            }
            let publish =
                Publish { messages: u64::from(self.set_up.rooms), per_second: 0.0, ..self.publish(Some(phase)) };
            let before = self.moment()?;
            let report = crowd.conductor.publish(&conduct::Phase::new(&phase.name, publish))?;
            let cost = self.cost_since(&before)?;
            if self.stopped() {
                break;
            }
            sum.published(&report, &cost);
            self.tell_troubles(phase, &report);
        }
        let rss_mb = self.cost_since(&self.moment()?)?.rss_mb;
        for (figure, value) in
            sum.figures().into_iter().chain([("rss_mb", rss_mb), ("rss_growth_mb", rss_mb - rss_before)])
        {
            self.record(phase, figure, value);
        }
        Ok(())
    }

    /// What the figures count, in words.
    pub(super) fn tell_troubles(&self, phase: &Phase, report: &crate::load::report::PhaseReport) {
        let published = report.published.iter();
        let refused = published.flat_map(|published| published.refused.iter().chain(&published.unanswered));
        for (reason, count) in report.closed.iter().chain(refused) {
            self.recorder.trouble(format!("{}: {count} × {reason}", phase.name));
        }
    }
}

/// What the messages of a soak came to, one after another.
#[derive(Default)]
struct Soak {
    idle_cpu_us: f64,
    idle_seconds: f64,
    heartbeats_missing: f64,
    closed: f64,
    cpu_us: f64,
    tier_cpu_us: f64,
    sends: f64,
    packets: f64,
    accepted: f64,
    received: f64,
    seconds: f64,
    missing: f64,
    faults: f64,
    refused: f64,
    delay_p50_ms: Vec<f64>,
    delay_p99_ms: Vec<f64>,
    last_receiver_ms: Vec<f64>,
}

impl Soak {
    fn published(&mut self, report: &crate::load::report::PhaseReport, cost: &super::Cost) {
        let messages = &report.messages;
        self.cpu_us += cost.cpu_us(EDGE);
        self.tier_cpu_us += cost.cpu_us(TIER);
        self.sends += cost.edge("push_sends_total");
        self.packets += cost.edge("push_delivered_packets_total");
        self.received += messages.received as f64;
        self.seconds += messages.seconds;
        self.missing += messages.missing as f64;
        self.faults += (messages.duplicates + messages.order_faults + messages.misrouted) as f64;
        self.closed += closed(report);
        if let Some(published) = &report.published {
            self.accepted += published.accepted as f64;
            let unanswered: u64 = published.refused.values().chain(published.unanswered.values()).sum();
            self.refused += (unanswered + published.unsent) as f64;
        }
        if let Some(delay) = &report.delay_us {
            self.delay_p50_ms.push(delay.p50 as f64 / 1000.0);
            self.delay_p99_ms.push(delay.p99 as f64 / 1000.0);
        }
        self.last_receiver_ms.extend(report.last_receiver_us.as_ref().map(|last| last.max as f64 / 1000.0));
    }

    fn figures(self) -> Vec<(&'static str, f64)> {
        let middle = |values: &[f64]| Values::of(values).map_or(f64::NAN, |values| values.median);
        let highest = |values: &[f64]| Values::of(values).map_or(f64::NAN, |values| values.max);
        vec![
            ("cpu_share", self.idle_cpu_us / 1e6 / self.idle_seconds),
            ("heartbeats_missing", self.heartbeats_missing),
            ("closed", self.closed),
            ("cpu_us_per_message", self.cpu_us / self.received),
            ("tier_cpu_us_per_publish", self.tier_cpu_us / self.accepted),
            ("delivered_per_second", self.received / self.seconds),
            ("messages_per_write", self.packets / self.sends),
            ("writes_per_second_per_core", self.sends / (self.cpu_us / 1e6)),
            ("missing", self.missing),
            ("faults", self.faults),
            ("refused", self.refused),
            // Of every message's own: there are too few messages for a percentile of all.
            ("delay_p50_ms", middle(&self.delay_p50_ms)),
            ("delay_p99_ms", highest(&self.delay_p99_ms)),
            ("last_receiver_p50_ms", middle(&self.last_receiver_ms)),
            ("last_receiver_p99_ms", highest(&self.last_receiver_ms)),
        ]
    }
}
