//! The edge's figures for Prometheus, read from the counters at each scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{LaneStatus, Sources};
use crate::kernel::steer::Steering;
use crate::shard::counters::{Counter, Counters};
use crate::shard::reason::CloseReason;
use crate::trunk::TrunkStatus;

/// Reads the sources at each scrape.
pub(super) struct Figures(pub(super) Arc<Sources>);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

type OfShard = fn(&Counters) -> &Counter;
type OfTrunk = fn(&TrunkStatus) -> &AtomicU64;
type OfLane = fn(&LaneStatus) -> u64;

/// Counters of each shard; the encoder adds `_total`.
const SHARD_COUNTERS: &[(&str, &str, OfShard)] = &[
    ("accepted", "Connections accepted", |c| &c.accepted_total),
    ("delivered_packets", "Packets handed to client sockets or owed to them", |c| &c.delivered_packets_total),
    ("delivered_bytes", "Bytes of those packets", |c| &c.delivered_bytes_total),
    ("sends", "Sends that carried packets", |c| &c.sends_total),
    ("send_calls", "System calls for those sends", |c| &c.send_calls_total),
    ("sends_without_memory", "Sends that the kernel had no memory for, to be tried again", |c| {
        &c.sends_without_memory_total
    }),
    ("dropped_packets", "Packets owed to clients that were closed before they read them", |c| &c.dropped_packets_total),
    ("client_packets", "Packets from clients", |c| &c.client_packets_total),
    ("orders", "Orders taken from the shard's queue", |c| &c.orders_total),
    ("full", "Times that a shard stopped listening because it was full", |c| &c.full_total),
    ("accept_errors", "Accepts that failed for want of descriptors or memory", |c| &c.accept_errors_total),
    ("loop_standstills", "Times that the event loop stood still, which counts for no client", |c| &c.standstills_total),
    ("loop_turns", "Turns of the event loop", |c| &c.turns_total),
    ("loop_busy_nanoseconds", "Time that the event loop worked", |c| &c.busy_ns_total),
];

const SHARD_GAUGES: &[(&str, &str, OfShard)] = &[
    ("connections", "Connections", |c| &c.connections),
    ("websocket_connections", "Connections on WebSocket", |c| &c.websocket_connections),
    ("joined", "Connections that are in", |c| &c.joined),
    ("rooms", "Rooms with members on the shard", |c| &c.rooms),
    ("owed_bytes", "Bytes owed to slow clients", |c| &c.owed_bytes),
    ("zlib_clients", "Clients that take batches as zlib", |c| &c.zlib_clients),
    ("brotli_clients", "Clients that take batches as brotli", |c| &c.brotli_clients),
    ("io_uring", "1 when the shard sends through io_uring", |c| &c.io_uring),
    ("held_sockets", "Sockets that the kernel holds for io_uring", |c| &c.held_sockets),
    ("debtors", "Clients that owe reading", |c| &c.debtors),
];

const TRUNK_COUNTERS: &[(&str, &str, OfTrunk)] = &[
    ("trunk_frames", "Frames with packets", |t| &t.frames_total),
    ("trunk_packets", "Packets that were new", |t| &t.packets_total),
    ("trunk_duplicates", "Frames in which nothing was new", |t| &t.duplicates_total),
    ("trunk_gaps", "Frames before which something was missing", |t| &t.gaps_total),
    ("trunk_replays", "Lines started again because of a gap", |t| &t.replays_total),
    ("trunk_lost", "Positions that the bus no longer held", |t| &t.lost_total),
    ("trunk_malformed", "Frames that no tier sends", |t| &t.malformed_total),
    ("trunk_bus_changes", "Times that the bus was another one", |t| &t.bus_changes_total),
    ("order_queue_full", "Orders that had to wait for a shard", |t| &t.order_queue_full_total),
    ("admitted", "Clients let in", |t| &t.admitted_total),
    ("refused", "Clients refused by admission", |t| &t.refused_total),
    ("messages_accepted", "Messages of clients that the bus took", |t| &t.messages_accepted_total),
    ("messages_refused", "Messages of clients that were refused", |t| &t.messages_refused_total),
    ("compressed_batches", "Compressed forms of batches that were made", |t| &t.compressed_batches_total),
    ("compress_plain_bytes", "Bytes of those batches before", |t| &t.compress_plain_bytes_total),
    ("compress_bytes", "Bytes of those batches after", |t| &t.compress_bytes_total),
    ("compress_nanoseconds", "Time that compression took", |t| &t.compress_ns_total),
    ("resyncs", "Full pictures of the sessions sent", |t| &t.resyncs_total),
];

const LANE_COUNTERS: &[(&str, &str, OfLane)] = &[
    ("lane_bytes", "Bytes to the ISP's clients, with headers, as far as user space can tell", |lane| lane.bytes_total),
    ("lane_delayed", "Sends that had to wait for the ISP's lane", |lane| lane.delayed_total),
    ("lane_closed", "Connections closed because they waited too long for the ISP's lane, or for too much", |lane| {
        lane.closed_total
    }),
];

const LANE_GAUGES: &[(&str, &str, OfLane)] = &[
    ("lane_rate_bytes", "Bytes per second that the ISP's lane may take; 0 is no bound", |lane| lane.rate),
    ("lane_connections", "Connections from the ISP's addresses", |lane| lane.connections),
    ("lane_waiting", "Connections that wait for the ISP's lane", |lane| lane.waiting),
];

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sources = &*self.0;
        for (name, help, figure) in SHARD_COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (id, shard) in sources.shards.iter().enumerate() {
                counter(&mut family, &[("shard", &id.to_string())], figure(&shard.counters).get())?;
            }
        }
        for (name, help, figure) in SHARD_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (id, shard) in sources.shards.iter().enumerate() {
                gauge(&mut family, &[("shard", &id.to_string())], figure(&shard.counters).get())?;
            }
        }
        let mut closed =
            encoder.encode_descriptor("closed", "Connections closed, by reason", None, MetricType::Counter)?;
        for reason in CloseReason::ALL {
            let count = sources.shards.iter().map(|shard| shard.counters.closed(*reason).get()).sum();
            counter(&mut closed, &[("reason", reason.name())], count)?;
        }
        for (name, help, figure) in TRUNK_COUNTERS {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(figure(&sources.trunk).load(Relaxed)).encode(family)?;
        }
        let help = "Lines of the log that were dropped because those before them were not written in time";
        let dropped = encoder.encode_descriptor("log_lines_dropped", help, None, MetricType::Counter)?;
        ConstCounter::new(crate::log::dropped_lines()).encode(dropped)?;
        let mut lines =
            encoder.encode_descriptor("trunk_line_up", "1 while the line is up", None, MetricType::Gauge)?;
        for line in &sources.trunk.lines {
            gauge(&mut lines, &[("line", &line.name)], u64::from(line.up.load(Relaxed)))?;
        }
        lanes(&mut encoder, &sources.lanes())?;
        if let Some(steering) = &sources.steering {
            steered(&mut encoder, steering)?;
        }
        sources.kernel(|plane| kernel(&mut encoder, plane)).unwrap_or(Ok(()))
    }
}

fn lanes(encoder: &mut DescriptorEncoder<'_>, lanes: &[LaneStatus]) -> Result<(), fmt::Error> {
    if lanes.is_empty() {
        return Ok(());
    }
    for (name, help, figure) in LANE_COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for lane in lanes {
            counter(&mut family, &[("isp", &lane.isp)], figure(lane))?;
        }
    }
    for (name, help, figure) in LANE_GAUGES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for lane in lanes {
            gauge(&mut family, &[("isp", &lane.isp)], figure(lane))?;
        }
    }
    Ok(())
}

fn steered(encoder: &mut DescriptorEncoder<'_>, steering: &Steering) -> Result<(), fmt::Error> {
    // As with the filter's: what cannot be read now is a gap in the graph.
    let Ok(report) = steering.report() else { return Ok(()) };
    let help = "Choices of a shard for a new connection, by where it was put; migrated ones are counted twice";
    let mut choices = encoder.encode_descriptor("steered_connections", help, None, MetricType::Counter)?;
    for count in &report.choices {
        counter(&mut choices, &[("choice", count.choice)], count.connections)?;
    }
    let help = "1 for the state that the shard is in: open, full, draining or gone";
    let mut states = encoder.encode_descriptor("shard_state", help, None, MetricType::Gauge)?;
    for shard in &report.shards {
        gauge(&mut states, &[("shard", &shard.shard.to_string()), ("state", shard.state)], 1)?;
    }
    Ok(())
}

fn kernel(encoder: &mut DescriptorEncoder<'_>, plane: &crate::kernel::KernelPlane) -> Result<(), fmt::Error> {
    // Tables that cannot be read now leave a gap in the graph, which is what there is to see.
    let counts = plane.stats().unwrap_or_default();
    let help = "Packets to protected ports, by what the filter decided and why";
    let mut packets = encoder.encode_descriptor("filter_packets", help, None, MetricType::Counter)?;
    for count in &counts {
        counter(&mut packets, &[("verdict", count.verdict), ("reason", count.reason.name())], count.packets)?;
    }
    let help = "Bytes to protected ports, by what the filter decided and why";
    let mut bytes = encoder.encode_descriptor("filter_bytes", help, None, MetricType::Counter)?;
    for count in &counts {
        counter(&mut bytes, &[("verdict", count.verdict), ("reason", count.reason.name())], count.bytes)?;
    }
    super::isps::encode(encoder, plane)
}

pub(super) fn counter(family: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: u64) -> Result<(), fmt::Error> {
    ConstCounter::new(value).encode(family.encode_family(&labels)?)
}

fn gauge(family: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: u64) -> Result<(), fmt::Error> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(family.encode_family(&labels)?)
}
