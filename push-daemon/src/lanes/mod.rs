//! Lanes: what each ISP's clients may take of the edge's way out.
//!
//! A lane is the egress share of one ISP on one edge. Its plan says which addresses are whose and how fast each lane may
//! go; shards keep to it (`shard::lanes`), so that the kernel's shaper is never asked to drop what we sent.
//!
//! What counts is bytes on the wire, as far as user space can tell: what is sent, and [`SEGMENT_HEADER_BYTES`] for each
//! segment of it. The kernel counts what really goes, so a lane keeps a little below the rate that it was given
//! (`shares`): acknowledgements of what clients say, what has to be sent twice, and the longer headers of IPv6 fit into
//! that.
//!
//! It does not read the kernel's tables (`kernel`), nor send.
//!
//! Layout: `prefixes` whose an address is · `shares` one rate among several shards

mod prefixes;
mod shares;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use prefixes::Prefixes;
pub(crate) use shares::{Pace, Shares};

/// ISPs by number, 0 included, which is none: what is in no ISP's prefixes has no lane and goes as it comes.
pub const MAX_LANES: usize = 256;

/// Longest name of an ISP.
pub const MAX_NAME_BYTES: usize = 31;

/// What every segment carries beside its payload: Ethernet 14, IPv4 20, TCP with timestamps 32.
pub const SEGMENT_HEADER_BYTES: usize = 66;

/// Payload of a full segment: an Ethernet frame's 1,500 less IPv4 and TCP with timestamps.
pub const SEGMENT_PAYLOAD_BYTES: usize = 1_448;

/// What `payload` bytes of one send are on the wire.
#[must_use]
pub fn wire_bytes(payload: usize) -> u64 {
    (payload + payload.div_ceil(SEGMENT_PAYLOAD_BYTES) * SEGMENT_HEADER_BYTES) as u64
}

/// One ISP, and what its lane may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its number; not 0.
    pub id: u8,
    /// For operators: up to [`MAX_NAME_BYTES`] of `a-z`, `0-9`, `.`, `_` and `-`.
    pub name: String,
    /// Bytes per second on the wire; 0 sets no bound.
    pub rate: u64,
    /// Bytes that may go at once after a quiet time. A lane takes what the event loop needs if that is more.
    pub burst: u64,
}

/// Why a plan is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LanePlanError {
    /// 0 stands for addresses that are no ISP's.
    #[error("ISP {0:?} has number 0, which stands for addresses of no ISP: number ISPs from 1 to 255")]
    NumberZero(String),
    /// Two ISPs have one number.
    #[error("ISPs {0:?} and {1:?} have the same number {2}: give each a number of its own")]
    NumberTwice(String, String, u8),
    /// A name that operators cannot use everywhere.
    #[error("ISP {0} cannot be called {1:?}: take 1 to 31 characters of a-z, 0-9, dot, underscore and hyphen")]
    Name(u8, String),
    /// A prefix names an ISP that there is not.
    #[error("prefix {0} belongs to ISP {1}, which is not there: add the ISP or take the prefix out")]
    NoSuchIsp(IpNet, u8),
}

/// All lanes of an edge: a snapshot that is replaced whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LanePlan {
    /// By number, each once.
    lanes: Vec<Lane>,
    prefixes: Prefixes,
}

impl LanePlan {
    /// These lanes, and whose the addresses of each prefix are: the longest that matches decides. Of one prefix that
    /// stands there twice, the last counts.
    ///
    /// # Errors
    /// [`LanePlanError`] says what is wrong with which.
    pub fn new(mut lanes: Vec<Lane>, prefixes: &[(IpNet, u8)]) -> Result<Self, LanePlanError> {
        lanes.sort_by_key(|lane| lane.id);
        for lane in &lanes {
            if lane.id == 0 {
                return Err(LanePlanError::NumberZero(lane.name.clone()));
            }
            if !is_name(&lane.name) {
                return Err(LanePlanError::Name(lane.id, lane.name.clone()));
            }
        }
        if let Some([one, other]) = lanes.array_windows().find(|[one, other]| one.id == other.id) {
            return Err(LanePlanError::NumberTwice(one.name.clone(), other.name.clone(), one.id));
        }
        let is_there = |id: u8| lanes.binary_search_by_key(&id, |lane| lane.id).is_ok();
        if let Some((prefix, id)) = prefixes.iter().find(|(_, id)| !is_there(*id)) {
            return Err(LanePlanError::NoSuchIsp(*prefix, *id));
        }
        Ok(Self { lanes, prefixes: Prefixes::new(prefixes) })
    }

    /// The lanes, by number.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The number of the ISP that `address` belongs to, 0 if it is none's. An IPv4 address in IPv6's clothes is taken for
    /// what it is.
    #[must_use]
    pub fn isp_of(&self, address: IpAddr) -> u8 {
        self.prefixes.find(address)
    }

    /// Whether there is no lane, and so nothing to keep to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether the same addresses belong to the same numbers.
    pub(crate) fn has_prefixes_of(&self, other: &Self) -> bool {
        self.prefixes == other.prefixes
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// A plan as shards get it, with what they share while they keep to it.
#[derive(Debug, Clone)]
pub struct LaneOrder {
    /// The plan.
    pub(crate) plan: Arc<LanePlan>,
    /// The same through all plans.
    pub(crate) shares: Arc<Shares>,
}

impl LaneOrder {
    /// No lanes yet.
    #[must_use]
    pub fn none() -> Self {
        Self { plan: Arc::default(), shares: Arc::new(Shares::new()) }
    }

    /// Another plan for the same shards.
    #[must_use]
    pub fn replaced(&self, plan: LanePlan) -> Self {
        Self { plan: Arc::new(plan), shares: Arc::clone(&self.shares) }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &LanePlan {
        &self.plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(id: u8, name: &str) -> Lane {
        Lane { id, name: name.to_owned(), rate: 0, burst: 0 }
    }

    #[test]
    fn a_plan_that_contradicts_itself_is_refused_with_the_reason() {
        let telecom: IpNet = "203.0.113.0/24".parse().unwrap();
        let rows = [
            (vec![lane(0, "none")], vec![], "number ISPs from 1 to 255"),
            (vec![lane(7, "one"), lane(7, "other")], vec![], "same number 7"),
            (vec![lane(1, "China Telecom")], vec![], "ISP 1 cannot be called \"China Telecom\""),
            (vec![lane(1, "")], vec![], "1 to 31 characters"),
            (vec![lane(1, &"x".repeat(32))], vec![], "1 to 31 characters"),
            (vec![lane(1, "telecom")], vec![(telecom, 2)], "prefix 203.0.113.0/24 belongs to ISP 2"),
        ];
        for (lanes, prefixes, expected) in rows {
            let error = LanePlan::new(lanes, &prefixes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(LanePlan::new(vec![lane(255, &"x".repeat(31)), lane(1, "a.b_c-9")], &[(telecom, 255)]).is_ok());
    }

    #[test]
    fn headers_count_with_each_segment() {
        for (payload, segments) in [(0, 0), (1, 1), (1_448, 1), (1_449, 2), (65_536, 46)] {
            assert_eq!(wire_bytes(payload), payload as u64 + 66 * segments);
        }
    }
}
