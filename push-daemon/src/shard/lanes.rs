//! Lanes in a shard: what each may still send in this turn, and who waits for it.
//!
//! A client whose lane has nothing left becomes a debtor (`egress`), as one does whose socket is full; only that its turn
//! comes with the lane, in a row: first come, first served, each turn with one send of all that it is owed by then, as far
//! as the lane allows. So messages that come meanwhile ride together, members of other lanes are sent to in the same round
//! as ever, and a room of which a lane is held back costs that lane's members a handle each, on a block that all share.
//! The bounds on debts hold for these as for others. Because each waits since another moment, a lane that is asked for
//! more than it has sheds its clients one by one, until those who are left fit.
//!
//! Rounds per room and lane, each with a cursor, would owe nothing per member. But what is for one user, or for all, would
//! need rows of its own beside them; a client would hear these and its room in any order; to move a client to another lane
//! would mean to find what it has missed; and when a lane is overloaded, all that a round did not reach are over the bound
//! at once.
//!
//! What a lane takes from its share (`crate::lanes`) is for the turn under way: at the end it gives back what it did not
//! need, or is charged what went beyond, by the last send.
//!
//! It does not send, nor say whose lane a client's is (`labels`).

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::conn::{NONE, Side};
use super::counters::{Counters, LaneCounters};
use super::debt::{Debt, LaneTurn};
use crate::lanes::{LaneOrder, MAX_LANES, Pace, wire_bytes};

/// What goes to one client in one turn.
const BYTES_PER_TURN: usize = 64 << 10;

/// What a lane takes from its share at once, for clients that do not wait: so seldom is the share asked.
const TAKEN_AT_ONCE: u64 = 64 << 10;

/// While clients wait, the loop looks again after this at the earliest, so that what flows in is worth it.
const SHORTEST_PAUSE_MS: u32 = 5;

/// And after this at the latest.
const LONGEST_PAUSE_MS: u32 = 50;

/// All lanes, as one shard sees them.
pub(crate) struct Lanes {
    /// `None` until there were any.
    order: Option<LaneOrder>,
    /// By number; empty while there are none, and then nothing is held back or counted.
    lanes: Vec<Lane>,
    /// As the lanes.
    counters: Option<Arc<[LaneCounters]>>,
    /// Lanes that were asked in this turn, or that somebody waits for. Each at most once.
    open: Vec<u8>,
    /// Clients that wait, over all lanes.
    waiting: u32,
    /// When this turn began.
    moment: Instant,
    /// The same, as shares count it.
    now: u64,
}

/// One of them.
#[derive(Clone, Copy)]
struct Lane {
    pace: Pace,
    /// Bytes that may go in this turn; below zero by what went beyond. Always 0 in a lane without bound, and between turns
    /// where nobody waits.
    left: i64,
    /// Bytes of control in this turn, which goes without asking.
    control: u64,
    /// When the share was last asked.
    asked: u64,
    /// Debts that wait first and last, or `NONE`.
    first: u32,
    last: u32,
    waiting: u32,
    /// As the other shards know.
    told_waiting: u32,
    is_open: bool,
}

const IDLE: Lane = Lane {
    pace: Pace { rate: 0, burst: 0 },
    left: 0,
    control: 0,
    asked: 0,
    first: NONE,
    last: NONE,
    waiting: 0,
    told_waiting: 0,
    is_open: false,
};

impl Lanes {
    /// No lanes, at `moment`.
    pub(crate) fn off(moment: Instant) -> Self {
        Self { order: None, lanes: Vec::new(), counters: None, open: Vec::new(), waiting: 0, moment, now: 0 }
    }

    /// Whether there are lanes. While there are not, no other call is needed.
    pub(crate) fn are_on(&self) -> bool {
        !self.lanes.is_empty()
    }

    pub(crate) fn order(&self) -> Option<&LaneOrder> {
        self.order.as_ref()
    }

    /// Keeps to another plan from now on. `live` connections are here.
    pub(crate) fn set(&mut self, order: LaneOrder, live: u32, counters: &Counters) {
        if self.lanes.is_empty() {
            let counters = Arc::clone(counters.make_lanes());
            // Without lanes nobody kept account, and all were of none.
            counters.iter().for_each(|lane| lane.connections.set(0));
            counters[0].connections.set(u64::from(live));
            self.counters = Some(counters);
            self.lanes = vec![IDLE; MAX_LANES];
            self.open.reserve_exact(MAX_LANES);
            self.now = order.shares.time(self.moment);
        }
        let mut paces = [Pace::default(); MAX_LANES];
        for lane in order.plan.lanes() {
            paces[usize::from(lane.id)] = Pace::of(lane);
        }
        for (id, (lane, pace)) in self.lanes.iter_mut().zip(paces).enumerate() {
            if lane.pace.rate != pace.rate {
                // What was spent in advance would be a long time at a lower rate, and no time at a higher. Each shard does
                // this, since one that had not heard of the plan yet may have been charged in between.
                order.shares.forget(id as u8, self.now);
            }
            lane.pace = pace;
            lane.left = if pace.is_bounded() { lane.left } else { 0 };
        }
        self.order = Some(order);
    }

    /// There are no lanes any more, and nobody waits for one.
    pub(crate) fn switch_off(&mut self) {
        self.end_turn();
        *self = Self { order: self.order.take(), ..Self::off(self.moment) };
    }

    /// Takes from the shares what those who wait are to get.
    pub(crate) fn begin_turn(&mut self, moment: Instant) {
        self.moment = moment;
        let Some(order) = self.order.as_ref().filter(|_| !self.lanes.is_empty()) else { return };
        self.now = order.shares.time(moment);
        for id in &self.open {
            let lane = &mut self.lanes[usize::from(*id)];
            let most = u64::try_from(lane.pace.burst as i64 - lane.left).unwrap_or(0);
            if lane.pace.is_bounded() && most > 0 {
                let since = self.now.saturating_sub(std::mem::replace(&mut lane.asked, self.now));
                lane.left += order.shares.take(*id, lane.pace, self.now, most, lane.waiting, since) as i64;
            }
        }
    }

    /// Gives back what was not needed, is charged what went beyond, and tells who waits.
    pub(crate) fn end_turn(&mut self) {
        let (Some(order), Some(counters)) = (&self.order, &self.counters) else { return };
        let (now, lanes) = (self.now, &mut self.lanes);
        self.open.retain(|id| {
            let lane = &mut lanes[usize::from(*id)];
            let left = lane.left;
            if left < 0 {
                order.shares.charge(*id, lane.pace, now, left.unsigned_abs());
                lane.left = 0;
            } else if left > 0 && lane.waiting == 0 {
                order.shares.give_back(*id, lane.pace, left.unsigned_abs());
                lane.left = 0;
            }
            let control = std::mem::take(&mut lane.control);
            if control > 0 {
                order.shares.charge_control(*id, lane.pace, now, control);
            }
            if lane.waiting != lane.told_waiting {
                order.shares.tell_waiting(*id, lane.told_waiting, lane.waiting);
                counters[usize::from(*id)].waiting.set(u64::from(lane.waiting));
                lane.told_waiting = lane.waiting;
            }
            lane.is_open = lane.waiting > 0;
            lane.is_open
        });
    }

    /// Whether a client of this lane has to wait: it has nothing left, or others came first.
    pub(crate) fn hold_back(&mut self, id: u8) -> bool {
        let Some(lane) = self.lanes.get_mut(usize::from(id)).filter(|lane| lane.pace.is_bounded()) else {
            return false;
        };
        if lane.waiting > 0 {
            return true;
        }
        if lane.left <= 0
            && let Some(order) = &self.order
        {
            let most = lane.left.unsigned_abs() + TAKEN_AT_ONCE;
            let since = self.now.saturating_sub(std::mem::replace(&mut lane.asked, self.now));
            lane.left += order.shares.take(id, lane.pace, self.now, most, 0, since) as i64;
            self.open(id);
        }
        self.lanes[usize::from(id)].left <= 0
    }

    /// Bytes that may go to a client of this lane; 0 has it wait. `in_turn` says that it has waited.
    pub(crate) fn allowance(&mut self, id: u8, in_turn: bool) -> usize {
        if !in_turn && self.hold_back(id) {
            return 0;
        }
        match self.lanes.get(usize::from(id)).filter(|lane| lane.pace.is_bounded()) {
            // What one is owed goes together: that the lane is charged for more than it has is made up for.
            Some(lane) => {
                usize::try_from(lane.pace.burst.max(lane.left.unsigned_abs())).unwrap_or(usize::MAX).min(BYTES_PER_TURN)
            }
            None => BYTES_PER_TURN,
        }
    }

    /// A send of `payload` bytes went, or is about to.
    pub(crate) fn spend(&mut self, id: u8, payload: usize) {
        self.account(id, wire_bytes(payload) as i64);
    }

    /// Of a send of `payload` bytes only `sent` went.
    pub(crate) fn refund(&mut self, id: u8, payload: usize, sent: usize) {
        self.account(id, wire_bytes(sent) as i64 - wire_bytes(payload) as i64);
    }

    /// Control of `payload` bytes went without asking. What follows has to make up for it.
    pub(crate) fn spend_on_control(&mut self, id: u8, payload: usize) {
        let (Some(lane), Some(counters)) = (self.lanes.get_mut(usize::from(id)), &self.counters) else { return };
        let bytes = wire_bytes(payload);
        counters[usize::from(id)].bytes_total.add(bytes);
        if lane.pace.is_bounded() {
            lane.control += bytes;
            self.open(id);
        }
    }

    /// `bytes` more went.
    fn account(&mut self, id: u8, bytes: i64) {
        let (Some(lane), Some(counters)) = (self.lanes.get_mut(usize::from(id)), &self.counters) else { return };
        counters[usize::from(id)].bytes_total.add_signed(bytes);
        if lane.pace.is_bounded() {
            lane.left -= bytes;
            self.open(id);
        }
    }

    fn open(&mut self, id: u8) {
        if !std::mem::replace(&mut self.lanes[usize::from(id)].is_open, true) {
            self.open.push(id);
        }
    }

    /// The debt waits for its lane from now on, last in the row, if it does not yet.
    pub(crate) fn enter(&mut self, id: u8, index: u32, debts: &mut Side<Debt>) {
        let (Some(lane), Some(debt)) = (self.lanes.get_mut(usize::from(id)), debts.get_mut(index)) else { return };
        if debt.waits_for_lane() {
            return;
        }
        debt.turn = LaneTurn::Between(lane.last, NONE);
        let before = std::mem::replace(&mut lane.last, index);
        match debts.get_mut(before) {
            Some(debt) => debt.turn = debt.turn.with_after(index),
            None => lane.first = index,
        }
        lane.waiting += 1;
        self.waiting += 1;
        self.open(id);
        self.count(id, |counters| counters.delayed_total.add(1));
    }

    /// The debt waits no longer.
    pub(crate) fn leave(&mut self, id: u8, index: u32, debts: &mut Side<Debt>) {
        let (Some(lane), Some(debt)) = (self.lanes.get_mut(usize::from(id)), debts.get_mut(index)) else { return };
        let LaneTurn::Between(before, after) = std::mem::take(&mut debt.turn) else { return };
        match debts.get_mut(before) {
            Some(debt) => debt.turn = debt.turn.with_after(after),
            None => lane.first = after,
        }
        match debts.get_mut(after) {
            Some(debt) => debt.turn = debt.turn.with_before(before),
            None => lane.last = before,
        }
        lane.waiting -= 1;
        self.waiting -= 1;
    }

    /// The debt whose turn it is in the lane, if its lane has something left.
    fn next(&self, id: u8) -> Option<u32> {
        let lane = &self.lanes[usize::from(id)];
        lane.is_due().then_some(lane.first)
    }

    /// Clients that wait, over all lanes.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Whether somebody who waits could be sent to at once.
    pub(crate) fn are_due(&self) -> bool {
        self.open.iter().any(|id| self.lanes[usize::from(*id)].is_due())
    }

    /// Milliseconds until it is worth looking again for those who wait.
    pub(crate) fn pause_ms(&self) -> Option<u32> {
        let order = self.order.as_ref().filter(|_| self.waiting > 0)?;
        let waited_for = self.open.iter().filter(|id| self.lanes[usize::from(**id)].waiting > 0);
        let pauses = waited_for.map(|id| order.shares.ms_until_more(*id, self.now));
        pauses.min().map(|ms| ms.clamp(SHORTEST_PAUSE_MS, LONGEST_PAUSE_MS))
    }

    /// Counts for a lane, if there are any.
    pub(crate) fn count(&self, id: u8, count: impl FnOnce(&LaneCounters)) {
        if let Some(counters) = &self.counters {
            count(&counters[usize::from(id)]);
        }
    }
}

impl Lane {
    fn is_due(&self) -> bool {
        self.waiting > 0 && (self.left > 0 || !self.pace.is_bounded())
    }
}

impl Shard {
    /// Sends to those whose turn it is in their lanes, at most `budget` of them.
    pub(crate) fn serve_lanes(&mut self, budget: usize) {
        if self.lanes.waiting == 0 {
            return;
        }
        // Another lane is the first each time.
        self.lanes.open.rotate_left(1);
        let mut left = budget;
        for at in 0..self.lanes.open.len() {
            let id = self.lanes.open[at];
            while left > 0
                && let Some(index) = self.lanes.next(id)
            {
                left -= 1;
                self.lanes.leave(id, index, &mut self.debts);
                if let Some(slot) = self.debts.get(index).map(|debt| debt.slot) {
                    self.pay_in_turn(slot);
                }
            }
        }
    }
}
