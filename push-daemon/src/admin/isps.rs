//! What the kernel plane tells by ISP, for Prometheus: what was policed and shaped, and what connections see.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::metrics::counter;
use crate::kernel::{IspCount, KernelPlane, Measurement, ShapeCount};

type Judged = fn(&IspCount) -> u64;
type Shaped = fn(&ShapeCount) -> u64;
type Measured = fn(&Measurement) -> u64;

const JUDGED: &[(&str, &str, Judged)] = &[
    ("ingress_packets", "Packets from clients that the filter let through, by ISP", |c| c.passed_packets),
    ("ingress_bytes", "Bytes of those packets, from Ethernet on", |c| c.passed_bytes),
    ("ingress_policed_packets", "Packets over the ISP's ingress rate", |c| c.policed_packets),
    ("ingress_policed_bytes", "Bytes of those packets", |c| c.policed_bytes),
];

const SHAPED: &[(&str, &str, Shaped)] = &[
    ("egress_packets", "Packets to clients, as on the wire, by ISP; counted while shaping is on", |c| c.packets),
    ("egress_bytes", "Bytes of those packets, from Ethernet on", |c| c.bytes),
    ("egress_delayed_packets", "Those of them that were held back (fq)", |c| c.delayed_packets),
    ("egress_marked_packets", "Those of them that were marked as having met congestion (fq)", |c| c.marked_packets),
    ("egress_refused_packets", "Packets that would have waited beyond the horizon (fq)", |c| c.dropped_packets),
    ("egress_refused_bytes", "Bytes of those packets", |c| c.dropped_bytes),
];

const MEASURED: &[(&str, &str, Measured)] = &[
    ("client_connections_opened", "Connections that the kernel saw opening, by ISP", |m| m.opened),
    ("client_connections_closed", "Connections that it saw opening and closing", |m| m.closed),
    ("client_retransmissions", "Segments sent again, of all connections", |m| m.retransmissions),
    ("client_sampled_segments", "Data segments sent, of sampled connections", |m| m.sampled_segments),
    ("client_sampled_retransmissions", "Segments sent again, of sampled connections", |m| m.sampled_retransmissions),
];

/// Tables that cannot be read now leave a gap in the graph, which is what there is to see.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, plane: &KernelPlane) -> Result<(), fmt::Error> {
    let judged = plane.tables().isp_counters().unwrap_or_default();
    for (name, help, figure) in JUDGED {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for count in &judged {
            counter(&mut family, &[("isp", label(&count.name))], figure(count))?;
        }
    }
    if plane.shaping().is_some() {
        let counts = plane.tables().shape_counters().unwrap_or_default();
        for (name, help, figure) in SHAPED {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for count in &counts {
                counter(&mut family, &[("isp", label(&count.name))], figure(count))?;
            }
        }
    }
    let measurements = plane.tables().measurements().unwrap_or_default();
    for (name, help, figure) in MEASURED {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for measurement in &measurements {
            counter(&mut family, &[("isp", label(&measurement.name))], figure(measurement))?;
        }
    }
    let help = "Smoothed round-trip times to clients";
    let mut family = encoder.encode_descriptor("client_rtt_seconds", help, None, MetricType::Histogram)?;
    for measurement in &measurements {
        let labels = [("isp", label(&measurement.name))];
        let mut buckets: Vec<_> = (1..).map(bound_s).zip(measurement.rtt_log2_us).collect();
        if let Some((bound, _)) = buckets.last_mut() {
            *bound = f64::INFINITY;
        }
        let sum_s = measurement.rtt_sum_us as f64 / 1e6;
        let count = measurement.rtt_log2_us.iter().sum();
        family.encode_family(&labels)?.encode_histogram::<[(&str, &str); 1]>(sum_s, count, &buckets, None)?;
    }
    Ok(())
}

/// `2^exponent` microseconds.
fn bound_s(exponent: i32) -> f64 {
    2f64.powi(exponent) / 1e6
}

/// No ISP can be called this: names have no spaces.
fn label(name: &str) -> &str {
    if name.is_empty() { "no isp" } else { name }
}
