//! The edges: who is connected by which lines, where clients reach it, how far it has come.
//!
//! It sends nothing by itself and keeps no sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::trunk::{EdgeReport, IspReport, NodeAddress, Position, TierFrame};

use crate::bus::Span;
use crate::metrics::LineEnd;
use crate::sessions::EdgeId;

/// One line, numbered by the tier.
pub(super) type LineId = u64;

/// How others reach a line.
#[derive(Debug, Clone)]
pub(super) struct LineHandle {
    pub(super) id: LineId,
    /// Bounded; full means that the edge does not take what we answer.
    pub(super) answers: mpsc::Sender<TierFrame>,
    pub(super) stop: CancellationToken,
    /// Why it was stopped.
    pub(super) why: Arc<OnceLock<LineEnd>>,
}

impl LineHandle {
    pub(super) fn close(&self, why: LineEnd) {
        // The first reason stays.
        let _ = self.why.set(why);
        self.stop.cancel();
    }
}

/// Who says `Hello`.
#[derive(Debug)]
pub(super) struct Introduction {
    pub(super) name: String,
    pub(super) incarnation: u64,
    pub(super) node: u32,
    pub(super) address: NodeAddress,
}

/// What came of a `Hello`.
#[derive(Debug)]
pub(super) struct Welcomed {
    pub(super) edge: EdgeId,
    /// An earlier run of the same edge, whose sessions are gone.
    pub(super) replaced: Option<EdgeId>,
}

/// An edge as the nodes service and the operator see it.
#[derive(Debug, Clone)]
pub struct EdgeView {
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub address: NodeAddress,
    /// Its last figures.
    pub report: EdgeReport,
    /// What its connections see by ISP, as last reported; taken out of `report`, which is copied often.
    pub isps: Arc<[IspReport]>,
    /// When it last reported, in milliseconds since 1970; when it came, if it has not reported.
    pub reported_ms: u64,
    /// Clients that were sent to it since it last reported.
    pub handed_out: u64,
}

#[derive(Debug)]
struct Edge {
    id: EdgeId,
    incarnation: u64,
    node: u32,
    view: EdgeView,
    lines: Vec<LineHandle>,
    /// Set while there is no line.
    alone_since: Option<Instant>,
    /// Positions that its arbiter has, by partition.
    acked: Vec<u64>,
    /// Which lines may report sessions.
    reporting: Reporting,
}

/// Both lists are bounded by the lines of the edge: lines that ended are taken out.
#[derive(Debug, Default)]
struct Reporting {
    /// Lines that reported since the last full picture began.
    reported: Vec<LineId>,
    /// Lines that reported before it.
    superseded: Vec<LineId>,
}

/// All edges, by name.
#[derive(Debug)]
pub struct Edges {
    max_lines_per_edge: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_edge: EdgeId,
    next_line: LineId,
    edges: HashMap<String, Edge>,
}

impl Table {
    /// The edge, if this run of it is still the one that is known.
    fn get_mut(&mut self, name: &str, id: EdgeId) -> Option<&mut Edge> {
        self.edges.get_mut(name).filter(|edge| edge.id == id)
    }
}

impl Edges {
    pub(super) fn new(max_lines_per_edge: usize) -> Self {
        Self { max_lines_per_edge, table: Mutex::default() }
    }

    pub(super) fn next_line(&self) -> LineId {
        let mut table = self.lock();
        table.next_line += 1;
        table.next_line
    }

    /// Takes a line in. The newest run of an edge wins: lines of another run are closed.
    pub(super) fn welcome(
        &self,
        who: Introduction,
        line: LineHandle,
        acked: Vec<u64>,
        now_ms: u64,
    ) -> Result<Welcomed, String> {
        let mut table = self.lock();
        let twin = table.edges.iter().find(|(name, edge)| **name != who.name && edge.node == who.node);
        if let Some((name, _)) = twin.filter(|(_, edge)| !edge.lines.is_empty()) {
            // Keys of the two cannot be taken for each other, since each run signs its own; but people will mix them up.
            tracing::warn!(node = who.node, edge = who.name, other = name, "two edges have the same node number");
        }
        let known = table.edges.get_mut(&who.name).filter(|edge| edge.incarnation == who.incarnation);
        if let Some(edge) = known {
            if edge.lines.len() >= self.max_lines_per_edge {
                return Err(format!("edge {} has {} lines already, the most allowed", who.name, edge.lines.len()));
            }
            edge.lines.push(line);
            edge.alone_since = None;
            edge.view.address = who.address;
            return Ok(Welcomed { edge: edge.id, replaced: None });
        }
        let replaced = table.edges.remove(&who.name);
        if let Some(old) = &replaced {
            for line in &old.lines {
                line.close(LineEnd::Replaced);
            }
        }
        table.next_edge += 1;
        let id = table.next_edge;
        let edge = Edge {
            id,
            incarnation: who.incarnation,
            node: who.node,
            view: EdgeView {
                name: who.name.clone(),
                address: who.address,
                report: EdgeReport::default(),
                isps: Arc::default(),
                reported_ms: now_ms,
                handed_out: 0,
            },
            lines: vec![line],
            alone_since: None,
            acked,
            reporting: Reporting::default(),
        };
        table.edges.insert(who.name, edge);
        Ok(Welcomed { edge: id, replaced: replaced.map(|old| old.id) })
    }

    /// A line has ended. `false`: so has the run of the edge, and what its sessions left has to be forgotten.
    pub(super) fn leave(&self, name: &str, id: EdgeId, line: LineId, now: Instant) -> bool {
        let mut table = self.lock();
        let Some(edge) = table.get_mut(name, id) else { return false };
        edge.lines.retain(|other| other.id != line);
        edge.reporting.reported.retain(|other| *other != line);
        edge.reporting.superseded.retain(|other| *other != line);
        if edge.lines.is_empty() {
            edge.alone_since = Some(now);
        }
        true
    }

    /// Takes edges out that have had no line for `grace`, and says which they were.
    pub(super) fn expire(&self, now: Instant, grace: Duration) -> Vec<EdgeId> {
        let mut gone = Vec::new();
        self.lock().edges.retain(|name, edge| {
            let keep = edge.alone_since.is_none_or(|since| now.saturating_duration_since(since) < grace);
            if !keep {
                tracing::info!(edge = name, "the edge stayed away; its sessions are forgotten");
                gone.push(edge.id);
            }
            keep
        });
        gone
    }

    /// Whether a batch of sessions from `line` counts. A line that reported before another one began a full picture
    /// speaks of the past: what was still under way on it must not come on top of that picture.
    pub(super) fn may_report(&self, name: &str, id: EdgeId, line: LineId, resync: bool) -> bool {
        let mut table = self.lock();
        let Some(edge) = table.get_mut(name, id) else { return false };
        let Reporting { reported, superseded } = &mut edge.reporting;
        if resync {
            superseded.append(reported);
            superseded.retain(|other| *other != line);
        } else if superseded.contains(&line) {
            return false;
        }
        if !reported.contains(&line) {
            reported.push(line);
        }
        true
    }

    /// The edge's arbiter has come so far.
    pub(super) fn ack(&self, name: &str, id: EdgeId, positions: &[Position]) {
        if let Some(edge) = self.lock().get_mut(name, id) {
            for position in positions {
                if let Some(acked) = edge.acked.get_mut(position.partition as usize) {
                    *acked = position.offset.max(*acked);
                }
            }
        }
    }

    /// The edge's own figures.
    pub(super) fn report(&self, name: &str, id: EdgeId, mut report: EdgeReport, now_ms: u64) {
        if let Some(edge) = self.lock().get_mut(name, id) {
            edge.view.isps = std::mem::take(&mut report.isps).into();
            edge.view.report = report;
            edge.view.reported_ms = now_ms;
            edge.view.handed_out = 0;
        }
    }

    /// Sends `frame` to an edge by the first line that takes it. A line that does not is stuck, and closed: when its
    /// edge comes back it says everything anew.
    pub(super) fn send(&self, id: EdgeId, frame: TierFrame) {
        let table = self.lock();
        let Some(edge) = table.edges.values().find(|edge| edge.id == id) else { return };
        for line in &edge.lines {
            match line.answers.try_send(frame.clone()) {
                Ok(()) => return,
                Err(_full_or_ended) => line.close(LineEnd::Stuck),
            }
        }
    }

    /// A client was sent to this edge.
    pub fn hand_out(&self, name: &str) {
        if let Some(edge) = self.lock().edges.get_mut(name) {
            edge.view.handed_out += 1;
        }
    }

    /// Edges that have a line, in order of their names.
    #[must_use]
    pub fn connected(&self) -> Vec<EdgeView> {
        let table = self.lock();
        let mut views: Vec<EdgeView> =
            table.edges.values().filter(|edge| !edge.lines.is_empty()).map(|edge| edge.view.clone()).collect();
        drop(table);
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// Edges with a line, and the positions that the one furthest behind has not acknowledged.
    pub(super) fn figures(&self, spans: &[Span]) -> (usize, u64) {
        let table = self.lock();
        let connected = table.edges.values().filter(|edge| !edge.lines.is_empty());
        let lag = |edge: &Edge| -> u64 {
            edge.acked.iter().zip(spans).map(|(acked, span)| span.tail.saturating_sub(*acked)).sum()
        };
        connected.fold((0, 0), |(count, worst), edge| (count + 1, worst.max(lag(edge))))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change above is whole by itself; a panic elsewhere cannot leave half of one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
