//! One snapshot of the edge's figures, as the page reads it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use abi::verdict::Verdict;
use serde::Serialize;

use super::{LaneStatus, Sources};
use crate::kernel::KernelPlane;
use crate::shard::counters::Counter;
use crate::shard::reason::CloseReason;

/// Everything that `/stats` says.
#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    version: &'static str,
    uptime_s: u64,
    node: String,
    tcp_port: u16,
    ws_port: u16,
    connections: u64,
    connections_tcp: u64,
    connections_ws: u64,
    joined: u64,
    rooms: u64,
    accepted_total: u64,
    closed_total: u64,
    messages_in_total: u64,
    messages_delivered_total: u64,
    bytes_delivered_total: u64,
    dropped_total: u64,
    owed_bytes: u64,
    closed_by_reason: BTreeMap<&'static str, u64>,
    trunk: Trunk,
    shards: Vec<Shard>,
    lanes: Vec<LaneStatus>,
    kernel: Option<Kernel>,
}

#[derive(Debug, Serialize)]
struct Trunk {
    lines: Vec<Line>,
    gaps_total: u64,
    duplicates_total: u64,
    replays_total: u64,
    lost_total: u64,
    pending: u64,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    address: String,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct Shard {
    id: usize,
    cpu: Option<usize>,
    connections: u64,
    rooms: u64,
    delivered_total: u64,
    owed_bytes: u64,
    loop_busy_permille: u32,
}

#[derive(Debug, Serialize)]
struct Kernel {
    interface: Option<String>,
    mode: Option<&'static str>,
    passed_total: u64,
    dropped_total: u64,
    dropped_by_reason: BTreeMap<&'static str, u64>,
}

impl Stats {
    pub(super) fn of(sources: &Sources) -> Self {
        let sum = |figure: fn(&crate::shard::counters::Counters) -> &Counter| {
            sources.shards.iter().map(|shard| figure(&shard.counters).get()).sum::<u64>()
        };
        let closed_by_reason: BTreeMap<&'static str, u64> = CloseReason::ALL
            .iter()
            .map(|reason| {
                (reason.name(), sources.shards.iter().map(|shard| shard.counters.closed(*reason).get()).sum())
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        let (connections, connections_ws) = (sum(|c| &c.connections), sum(|c| &c.websocket_connections));
        let trunk = &sources.trunk;
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: sources.started.elapsed().as_secs(),
            node: sources.node.clone(),
            tcp_port: sources.tcp_port,
            ws_port: sources.ws_port,
            connections,
            connections_tcp: connections.saturating_sub(connections_ws),
            connections_ws,
            joined: sum(|c| &c.joined),
            rooms: sum(|c| &c.rooms),
            accepted_total: sum(|c| &c.accepted_total),
            closed_total: closed_by_reason.values().sum(),
            messages_in_total: trunk.packets_total.load(Relaxed),
            messages_delivered_total: sum(|c| &c.delivered_packets_total),
            bytes_delivered_total: sum(|c| &c.delivered_bytes_total),
            dropped_total: sum(|c| &c.dropped_packets_total),
            owed_bytes: sum(|c| &c.owed_bytes),
            closed_by_reason,
            trunk: Trunk {
                lines: trunk
                    .lines
                    .iter()
                    .map(|line| Line {
                        name: line.name.clone(),
                        address: line.address.clone(),
                        state: if line.up.load(Relaxed) { "up" } else { "down" },
                    })
                    .collect(),
                gaps_total: trunk.gaps_total.load(Relaxed),
                duplicates_total: trunk.duplicates_total.load(Relaxed),
                replays_total: trunk.replays_total.load(Relaxed),
                lost_total: trunk.lost_total.load(Relaxed),
                pending: trunk.pending.load(Relaxed),
            },
            shards: sources
                .shards
                .iter()
                .enumerate()
                .map(|(id, shard)| Shard {
                    id,
                    cpu: shard.cpu,
                    connections: shard.counters.connections.get(),
                    rooms: shard.counters.rooms.get(),
                    delivered_total: shard.counters.delivered_packets_total.get(),
                    owed_bytes: shard.counters.owed_bytes.get(),
                    loop_busy_permille: shard.load.permille.load(Relaxed),
                })
                .collect(),
            lanes: sources.lanes(),
            kernel: sources.kernel(|plane| kernel(plane)),
        }
    }
}

fn kernel(plane: &KernelPlane) -> Kernel {
    let attached = plane.attached().ok().flatten();
    let counts = plane.stats().unwrap_or_default();
    let total = |verdict: Verdict| {
        counts.iter().filter(move |count| count.reason.verdict() == verdict).map(|count| count.packets).sum()
    };
    Kernel {
        mode: attached.as_ref().and_then(|attached| attached.mode).map(crate::kernel::Mode::name),
        interface: attached.map(|attached| attached.interface),
        passed_total: total(Verdict::Pass),
        dropped_total: total(Verdict::Drop),
        dropped_by_reason: counts
            .iter()
            .filter(|count| count.reason.verdict() == Verdict::Drop && count.packets > 0)
            .map(|count| (count.reason.name(), count.packets))
            .collect(),
    }
}
