//! How the lanes are: one row for each ISP of the plan, over all shards.

use std::sync::{Arc, PoisonError};

use serde::Serialize;

use super::Sources;
use crate::shard::counters::{Counter, LaneCounters};

/// One lane. Figures in `_total` only grow, and go on through changes of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Number of the ISP.
    pub id: u8,
    /// Its name.
    pub isp: String,
    /// Bytes per second that the lane may take; 0 is no bound.
    pub rate: u64,
    /// Connections from the ISP's addresses.
    pub connections: u64,
    /// Those of them that wait for the lane.
    pub waiting: u64,
    /// Bytes that went to them, with headers, as far as user space can tell.
    pub bytes_total: u64,
    /// Sends that had to wait for the lane.
    pub delayed_total: u64,
    /// Connections that were closed because they waited too long, or for too much.
    pub closed_total: u64,
}

impl Sources {
    /// Every lane of the plan, by the number of its ISP.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneStatus> {
        let plan = Arc::clone(&self.lanes.lock().unwrap_or_else(PoisonError::into_inner).plan);
        let status = |lane: &crate::lanes::Lane| {
            // A shard that has not heard of the plan yet has counted nothing.
            let here = || self.shards.iter().filter_map(|shard| shard.counters.lane(lane.id));
            let sum = |figure: fn(&LaneCounters) -> &Counter| here().map(|counters| figure(counters).get()).sum();
            LaneStatus {
                id: lane.id,
                isp: lane.name.clone(),
                rate: lane.rate,
                connections: sum(|c| &c.connections),
                waiting: sum(|c| &c.waiting),
                bytes_total: sum(|c| &c.bytes_total),
                delayed_total: sum(|c| &c.delayed_total),
                closed_total: sum(|c| &c.closed_total),
            }
        };
        plan.lanes().iter().map(status).collect()
    }
}
