//! From two samples of the tables to what moved between them, per second.

use std::{collections::HashMap, net::IpAddr, path::Path, time::Instant};

use ipnet::IpNet;

use crate::kernel::{Count, IspCount, KernelError, Measurement, Rule, ShapeCount, SourceUse, Status, Tables, status};

/// Rows of a list; more do not fit on a screen, and the first say what matters.
const MOST_ROWS: usize = 20;

/// Rules beyond which the denied ones are not listed each second: that would cost more than what it shows.
const MOST_RULES: usize = 100_000;

/// What the tables said at one moment.
pub(super) struct Sample {
    pub(super) at: Instant,
    status: Status,
    counts: Vec<Count>,
    isps: Vec<IspCount>,
    shaped: Vec<ShapeCount>,
    measured: Vec<Measurement>,
    sources: HashMap<IpAddr, SourceUse>,
    rules: HashMap<IpNet, Rule>,
}

impl Sample {
    pub(super) fn take(tables: &Tables, pin_root: &Path) -> Result<Self, KernelError> {
        let status = status(pin_root)?;
        let rules = status.rules;
        let few = rules.hosts_v4 + rules.hosts_v6 + rules.prefixes_v4 + rules.prefixes_v6 <= MOST_RULES;
        let rules = if few { tables.list()? } else { Vec::new() };
        Ok(Self {
            at: Instant::now(),
            counts: tables.counters()?,
            isps: tables.isp_counters()?,
            shaped: tables.shape_counters()?,
            measured: tables.measurements()?,
            sources: tables.sources()?.into_iter().map(|source| (source.source, source)).collect(),
            rules: rules.into_iter().map(|rule| (rule.prefix, rule)).collect(),
            status,
        })
    }
}

/// A line of the list of reasons.
#[derive(Debug, PartialEq)]
pub(super) struct ReasonRow {
    pub(super) reason: &'static str,
    pub(super) drops: bool,
    pub(super) packets_per_s: f64,
    pub(super) bits_per_s: f64,
    pub(super) observed_per_s: f64,
}

/// A line of the list of ISPs.
#[derive(Debug, PartialEq)]
pub(super) struct IspRow {
    pub(super) name: String,
    pub(super) bits_per_s: f64,
    pub(super) policed_bits_per_s: f64,
    /// Sent to its clients, where egress is shaped.
    pub(super) sent_bits_per_s: f64,
    /// Since the beginning, for in a second there is too little to tell.
    pub(super) rtt_us: Option<u64>,
    pub(super) loss: Option<f64>,
}

/// A line of the list of the busiest: a source that passes the rules, or a rule that denies.
#[derive(Debug, PartialEq)]
pub(super) struct BusyRow {
    pub(super) who: String,
    pub(super) packets_per_s: f64,
    pub(super) dropped_per_s: f64,
    pub(super) why: String,
}

/// A line of the list of shards.
#[derive(Debug, PartialEq)]
pub(super) struct ShardRow {
    pub(super) shard: String,
    pub(super) cpu: String,
    pub(super) state: &'static str,
    pub(super) connections: u32,
}

/// What is shown.
pub(super) struct View {
    pub(super) title: String,
    pub(super) state: String,
    pub(super) is_off: bool,
    pub(super) reasons: Vec<ReasonRow>,
    pub(super) isps: Vec<IspRow>,
    pub(super) busiest: Vec<BusyRow>,
    /// Empty without a daemon that steers.
    pub(super) shards: Vec<ShardRow>,
}

impl View {
    pub(super) fn between(before: &Sample, now: &Sample) -> Self {
        // The first view compares a sample with itself.
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let status = &now.status;
        let attached = status.attached.as_ref().map_or("nothing".into(), |at| {
            let mode = at.mode.map_or("unknown".into(), |mode| mode.to_string());
            format!("{} ({mode})", at.interface)
        });
        let trial = status.transaction.trial_s.map_or(String::new(), |left| format!(" · on trial for {left} s"));
        let state = match (status.kill_switch, status.observe) {
            (true, _) => "OFF: everything passes",
            (false, true) => "observing",
            (false, false) => "enforcing",
        };
        Self {
            title: format!("pushctl top · {attached}"),
            state: format!("{state}{trial}"),
            is_off: status.kill_switch,
            reasons: reasons(before, now, seconds),
            isps: isps(before, now, seconds),
            busiest: busiest(before, now, seconds),
            shards: shards(status),
        }
    }
}

fn reasons(before: &Sample, now: &Sample, seconds: f64) -> Vec<ReasonRow> {
    let moved = before.counts.iter().zip(&now.counts).map(|(before, now)| now.since(before));
    let mut rows: Vec<_> = moved
        .filter(|count| count.packets + count.observed_packets > 0)
        .map(|count| ReasonRow {
            reason: count.reason.name(),
            drops: count.verdict == "drop",
            packets_per_s: count.packets as f64 / seconds,
            bits_per_s: count.bytes as f64 * 8.0 / seconds,
            observed_per_s: count.observed_packets as f64 / seconds,
        })
        .collect();
    rows.sort_by(|one, other| other.packets_per_s.total_cmp(&one.packets_per_s));
    rows
}

fn isps(before: &Sample, now: &Sample, seconds: f64) -> Vec<IspRow> {
    let old: HashMap<u32, &IspCount> = before.isps.iter().map(|isp| (isp.number, isp)).collect();
    let since = |now: u64, before: Option<u64>| now.saturating_sub(before.unwrap_or(0)) as f64 / seconds;
    let rows = now.isps.iter().map(|isp| {
        let old = old.get(&isp.number);
        let sent = |sample: &Sample| sample.shaped.iter().find(|shaped| shaped.number == isp.number).map(|of| of.bytes);
        let measured = now.measured.iter().find(|measured| measured.number == isp.number);
        IspRow {
            sent_bits_per_s: 8.0 * since(sent(now).unwrap_or(0), sent(before)),
            rtt_us: measured.and_then(Measurement::rtt_us),
            loss: measured.and_then(Measurement::loss),
            name: if isp.number == 0 { "(none)".into() } else { isp.name.clone() },
            bits_per_s: 8.0 * since(isp.passed_bytes, old.map(|old| old.passed_bytes)),
            policed_bits_per_s: 8.0 * since(isp.policed_bytes, old.map(|old| old.policed_bytes)),
        }
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|one, other| {
        (other.bits_per_s + other.sent_bits_per_s).total_cmp(&(one.bits_per_s + one.sent_bits_per_s))
    });
    rows.truncate(MOST_ROWS);
    rows
}

fn shards(status: &Status) -> Vec<ShardRow> {
    let shards = status.steering.iter().flat_map(|steering| &steering.shards);
    let rows = shards.map(|shard| ShardRow {
        shard: shard.shard.to_string(),
        cpu: shard.cpu.map_or("any".into(), |cpu| cpu.to_string()),
        state: shard.state,
        connections: shard.connections,
    });
    rows.collect()
}

fn busiest(before: &Sample, now: &Sample, seconds: f64) -> Vec<BusyRow> {
    let mut rows = Vec::new();
    for (address, source) in &now.sources {
        let old = before.sources.get(address);
        let packets = source.packets.saturating_sub(old.map_or(0, |old| old.packets));
        let over = source.over.saturating_sub(old.map_or(0, |old| old.over));
        if packets > 0 {
            rows.push(BusyRow {
                who: address.to_string(),
                packets_per_s: packets as f64 / seconds,
                dropped_per_s: over as f64 / seconds,
                why: if over > 0 { "over the limits".into() } else { String::new() },
            });
        }
    }
    for (prefix, rule) in &now.rules {
        let hits = rule.hits.saturating_sub(before.rules.get(prefix).map_or(0, |old| old.hits));
        if hits > 0 {
            let denied = rule.action == crate::kernel::Action::Deny;
            rows.push(BusyRow {
                who: prefix.to_string(),
                packets_per_s: hits as f64 / seconds,
                dropped_per_s: if denied { hits as f64 / seconds } else { 0.0 },
                why: format!("{} {}", rule.action.name(), rule.comment).trim_end().to_owned(),
            });
        }
    }
    rows.sort_by(|one, other| other.packets_per_s.total_cmp(&one.packets_per_s));
    rows.truncate(MOST_ROWS);
    rows
}
