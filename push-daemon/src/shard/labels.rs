//! Which lane each connection's is: by its peer's address, when it comes and when the plan changes.
//!
//! A new plan takes effect at once with its rates. Who belongs where is looked up again in slices between polls, because
//! the addresses of a million connections are a million questions to the kernel.

use std::net::{IpAddr, SocketAddr};

use rustix::net::getpeername;

use super::Shard;
use super::debt::Debt;
use crate::lanes::LaneOrder;

/// Connections whose address is looked up again in one turn.
const LABELS_PER_TURN: u32 = 256;

impl Shard {
    /// Keeps to another plan.
    pub(crate) fn set_lanes(&mut self, order: LaneOrder) {
        if !self.lanes.are_on() && order.plan().is_empty() {
            return;
        }
        let before = self.lanes.order().filter(|_| self.lanes.are_on());
        let same =
            self.labels_next.is_none() && before.is_some_and(|before| before.plan().has_prefixes_of(order.plan()));
        self.lanes.set(order, self.connections.live(), &self.counters);
        if !same {
            self.labels_next = Some(0);
        }
    }

    /// A connection has come.
    pub(crate) fn label(&mut self, slot: u32) {
        if self.lanes.are_on() {
            let lane = self.lane_now(slot);
            self.connections[slot].lane = lane;
            self.lanes.count(lane, |counters| counters.connections.add(1));
        }
    }

    /// A connection goes, and owes nothing any more.
    pub(crate) fn unlabel(&mut self, slot: u32) {
        self.lanes.count(self.connections[slot].lane, |counters| counters.connections.subtract(1));
    }

    /// Looks some more connections up in the plan. When there is none, nobody is left in a lane at the end, and lanes cost
    /// nothing any more.
    pub(crate) fn go_on_with_labels(&mut self) {
        let Some(first) = self.labels_next else { return };
        let end = self.connections.end();
        let upto = end.min(first + LABELS_PER_TURN);
        for slot in first..upto {
            if self.connections.get(slot).is_some() {
                self.relabel(slot);
            }
        }
        self.labels_next = (upto < end).then_some(upto);
    }

    /// Lanes that nobody is in and nobody waits for need no looking at.
    pub(crate) fn switch_lanes_off(&mut self) {
        let empty = self.lanes.order().is_some_and(|order| order.plan().is_empty());
        if empty && self.lanes.are_on() && self.labels_next.is_none() && self.lanes.waiting() == 0 {
            self.lanes.switch_off();
        }
    }

    fn relabel(&mut self, slot: u32) {
        let lane = self.lane_now(slot);
        let conn = &mut self.connections[slot];
        let before = std::mem::replace(&mut conn.lane, lane);
        if lane == before {
            return;
        }
        self.lanes.count(before, |counters| counters.connections.subtract(1));
        self.lanes.count(lane, |counters| counters.connections.add(1));
        // Who waits goes on waiting, last in the other row; in a lane without bound that is not for long.
        if self.debts.get(conn.debt).is_some_and(Debt::waits_for_lane) {
            self.lanes.leave(before, conn.debt, &mut self.debts);
            self.lanes.enter(lane, conn.debt, &mut self.debts);
        }
    }

    fn lane_now(&self, slot: u32) -> u8 {
        let plan = self.lanes.order().map(LaneOrder::plan);
        plan.zip(self.peer(slot)).map_or(0, |(plan, peer)| plan.isp_of(peer))
    }

    /// The client's address.
    pub(crate) fn peer(&self, slot: u32) -> Option<IpAddr> {
        let socket = self.connections[slot].socket.as_ref()?;
        let peer = getpeername(socket).ok().flatten()?;
        SocketAddr::try_from(peer).ok().map(|address| address.ip().to_canonical())
    }
}
