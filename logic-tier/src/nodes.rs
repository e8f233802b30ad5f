//! The nodes service: which edges a client shall try, and what edges there are (goim: `internal/logic/nodes.go`).
//!
//! Edges are ranked by how many clients each has for its weight. It knows nothing yet of where a client is or of what
//! loss the edges measure.

use serde::Serialize;

use crate::config;
use crate::trunk::EdgeView;

/// Names or addresses in one answer (goim: `_maxNodes`).
const MAX_NODES: usize = 5;

/// What to say when neither the config nor an edge names a port.
const DEFAULT_TCP_PORT: u32 = 3101;
const DEFAULT_WS_PORT: u32 = 3102;

/// The answer to `/goim/nodes/weighted`. goim leaves zeros out, as Protobuf does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Weighted {
    domain: String,
    #[serde(skip_serializing_if = "is_zero")]
    tcp_port: u32,
    #[serde(skip_serializing_if = "is_zero")]
    ws_port: u32,
    #[serde(skip_serializing_if = "is_zero")]
    wss_port: u32,
    heartbeat: u64,
    nodes: Vec<String>,
    backoff: BackoffBody,
    heartbeat_max: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct BackoffBody {
    max_delay: i32,
    base_delay: i32,
    factor: f32,
    jitter: f32,
}

/// One of the answer to `/goim/nodes/instances` (goim: `discovery/naming.Instance`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    region: String,
    zone: String,
    env: &'static str,
    appid: &'static str,
    hostname: String,
    addrs: Vec<String>,
    version: &'static str,
    latest_timestamp: u64,
    metadata: Metadata,
}

/// goim keeps figures as texts here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Metadata {
    addrs: String,
    conn_count: String,
    offline: String,
    weight: String,
}

/// The best edges for a client on `platform`, and the name of the first, which is to be counted as handed out.
#[must_use]
pub fn weighted(edges: &[EdgeView], platform: &str, config: &config::Nodes) -> (Weighted, Option<String>) {
    let mut ranked: Vec<&EdgeView> = edges.iter().filter(|edge| takes_clients(edge)).collect();
    // Stable, and the edges come in order of their names: equals do not change places between two calls.
    ranked.sort_by(|a, b| load(a).total_cmp(&load(b)));
    let best = ranked.first().copied();
    // A browser checks the name in a certificate; others save themselves the look-up (goim: `PlatformWeb`).
    let mut nodes: Vec<String> = if platform == "web" {
        let named = ranked.iter().filter(|edge| !edge.address.hostname.is_empty());
        named.map(|edge| format!("{}{}", edge.address.hostname, config.host_domain)).collect()
    } else {
        ranked.iter().flat_map(|edge| edge.address.addresses.clone()).collect()
    };
    nodes.truncate(MAX_NODES);
    if nodes.is_empty() {
        nodes.push(config.default_domain.clone());
    }
    let port = |set: Option<u16>, reported: fn(&EdgeView) -> u32, default: u32| {
        set.map(u32::from).unwrap_or_else(|| best.map_or(default, reported))
    };
    let answer = Weighted {
        domain: config.default_domain.clone(),
        tcp_port: port(config.tcp_port, |edge| edge.address.tcp_port, DEFAULT_TCP_PORT),
        ws_port: port(config.ws_port, |edge| edge.address.ws_port, DEFAULT_WS_PORT),
        wss_port: port(config.wss_port, |edge| edge.address.wss_port, 0),
        heartbeat: config.heartbeat_s.get(),
        nodes,
        backoff: BackoffBody {
            max_delay: config.backoff.max_delay,
            base_delay: config.backoff.base_delay,
            factor: config.backoff.factor,
            jitter: config.backoff.jitter,
        },
        heartbeat_max: config.heartbeat_max.get(),
    };
    (answer, best.map(|edge| edge.name.clone()))
}

/// Every edge that is connected.
#[must_use]
pub fn instances(edges: Vec<EdgeView>) -> Vec<Instance> {
    let instance = |edge: EdgeView| Instance {
        region: edge.address.region,
        zone: edge.address.zone,
        env: "",
        appid: "goim.comet",
        hostname: edge.address.hostname,
        version: "",
        latest_timestamp: edge.reported_ms,
        metadata: Metadata {
            addrs: edge.address.addresses.join(","),
            conn_count: edge.report.connections.to_string(),
            offline: edge.report.draining.to_string(),
            weight: edge.address.weight.to_string(),
        },
        addrs: edge.address.addresses,
    };
    edges.into_iter().map(instance).collect()
}

fn takes_clients(edge: &EdgeView) -> bool {
    let report = &edge.report;
    // An edge that says no maximum has not reported yet.
    let full = report.max_connections > 0 && report.connections >= report.max_connections;
    !report.draining && !full
}

/// Clients per weight, those counted in that were sent there and that the edge has yet to report.
fn load(edge: &EdgeView) -> f64 {
    let clients = edge.report.connections.saturating_add(edge.handed_out);
    clients as f64 / f64::from(edge.address.weight.max(1))
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(port: &u32) -> bool {
    *port == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::trunk::{EdgeReport, NodeAddress};

    fn edge(name: &str, weight: u32, connections: u64) -> EdgeView {
        EdgeView {
            name: name.to_owned(),
            address: NodeAddress {
                hostname: name.to_owned(),
                addresses: vec![format!("{name}.addr")],
                tcp_port: 3101,
                weight,
                ..NodeAddress::default()
            },
            report: EdgeReport { connections, max_connections: 100, ..EdgeReport::default() },
            isps: Vec::new().into(),
            reported_ms: 0,
            handed_out: 0,
        }
    }

    fn nodes(edges: &[EdgeView], platform: &str) -> Vec<String> {
        weighted(edges, platform, &config::Nodes::default()).0.nodes
    }

    #[test]
    fn the_least_loaded_for_its_weight_comes_first() {
        let edges = [edge("a", 1, 10), edge("b", 10, 50), edge("c", 1, 4)];
        assert_eq!(nodes(&edges, "web"), ["c", "b", "a"]);
        assert_eq!(nodes(&edges, "android"), ["c.addr", "b.addr", "a.addr"]);
    }

    #[test]
    fn clients_on_their_way_count() {
        let mut edges = [edge("a", 1, 0), edge("b", 1, 1)];
        edges[0].handed_out = 2;
        assert_eq!(nodes(&edges, "web"), ["b", "a"]);
    }

    #[test]
    fn edges_that_take_nobody_are_not_named() {
        let mut draining = edge("d", 1, 0);
        draining.report.draining = true;
        let edges = [draining, edge("full", 1, 100)];
        assert_eq!(nodes(&edges, "web"), ["localhost"]);
        assert_eq!(weighted(&edges, "web", &config::Nodes::default()).1, None);
    }

    #[test]
    fn five_are_enough() {
        let edges: Vec<_> = (0..9).map(|n| edge(&n.to_string(), 1, n)).collect();
        assert_eq!(nodes(&edges, "web"), ["0", "1", "2", "3", "4"]);
    }
}
