//! Who fell silent: time-outs without timers.
//!
//! Clients that have to do something soon (log in, hang up) stand in queues ordered by deadline. For the others a
//! sweep walks a part of the slab at each tick; unfinished packets and debts are few and are looked at whole.
//!
//! Time is an argument: one test can run a shard through an hour.

use std::collections::VecDeque;
use std::ops::Range;

use wire::websocket::handshake::REQUEST_TIMEOUT;

use super::Shard;
use super::conn::Phase;
use super::debt::Debt;
use super::reason::CloseReason;
use crate::sys::unacknowledged_bytes;

/// How often the sweep goes on.
pub(crate) const TICK_MS: u32 = 100;

/// Deadlines for which a queue keeps its memory when it is empty.
const KEPT_DEADLINES: usize = 64;

/// Debts looked at in one tick. More than these, as where a lane is full, are looked at in turn.
const DEBTS_PER_TICK: usize = 4_096;

/// Ticks within which all debts are looked at, however many.
const TICKS_PER_DEBTS: usize = 10;

/// When a lane was full for a while, memory for as many debts stays this long, since most are soon owed again.
const DEBTS_KEPT_MS: u32 = 10_000;

/// The sweep passes the whole slab this many times within a heartbeat time-out.
const PASSES_PER_TIMEOUT: u32 = 8;

impl Shard {
    /// Ends what is overdue. Cheap when called more often than a tick.
    pub(crate) fn tick(&mut self) {
        let elapsed = self.now.since(self.last_tick);
        if elapsed < TICK_MS {
            return;
        }
        self.last_tick = self.now;
        self.end_overdue_handshakes();
        self.end_lingering();
        self.end_slow_packets();
        let debts = self.debts_of_this_tick();
        self.pay_without_event(debts.clone());
        self.end_old_debts(debts);
        self.give_debts_back();
        self.sweep(elapsed);
    }

    fn debts_of_this_tick(&mut self) -> Range<usize> {
        let end = self.debts.end();
        let first = if self.debts_next < end { self.debts_next } else { 0 };
        self.debts_next = first + (end / TICKS_PER_DEBTS).max(DEBTS_PER_TICK);
        first..self.debts_next
    }

    /// Memory of debts that lanes had made and that nobody needs any more.
    fn give_debts_back(&mut self) {
        self.debts.keeps = self.lanes.are_on();
        if self.debts.in_use() > 0 {
            self.no_debts_since = None;
        } else if self.now.since(*self.no_debts_since.get_or_insert(self.now)) >= DEBTS_KEPT_MS {
            self.debts.shrink();
        }
    }

    fn end_overdue_handshakes(&mut self) {
        while let Some((place, deadline)) = self.handshakes.front() {
            let slot = self.slot_of(place);
            let phase = slot.map(|slot| self.connections[slot].phase);
            let waiting = matches!(phase, Some(Phase::Upgrading | Phase::Unauthenticated | Phase::Authenticating));
            if waiting && !deadline.is_due(self.now) {
                break;
            }
            self.handshakes.pop_front();
            match (slot, phase) {
                (Some(slot), Some(phase @ (Phase::Upgrading | Phase::Unauthenticated))) => {
                    if phase == Phase::Upgrading {
                        self.send_control(slot, REQUEST_TIMEOUT);
                    }
                    self.part(slot, CloseReason::AuthTimeout, None);
                }
                (Some(slot), Some(Phase::Authenticating)) => {
                    let why = CloseReason::AuthUnavailable;
                    self.refuse_auth(slot, why.code(), why.words(), why);
                }
                _ => {}
            }
        }
        give_memory_back(&mut self.handshakes);
    }

    fn end_lingering(&mut self) {
        while let Some((place, deadline)) = self.lingers.front() {
            let slot = self.slot_of(place);
            if slot.is_some() && !deadline.is_due(self.now) {
                break;
            }
            self.lingers.pop_front();
            if let Some(slot) = slot {
                self.finish(slot);
            }
        }
        give_memory_back(&mut self.lingers);
    }

    fn end_slow_packets(&mut self) {
        let (now, limit) = (self.now, self.limits.packet_timeout_ms.get_u32());
        let slow = self.inputs.iter().filter(|input| {
            input.unfinished_since().is_some_and(|since| now.since(since) >= limit)
                && self.connections.get(input.slot).is_some_and(|conn| conn.phase == Phase::Joined)
        });
        let slow: Vec<u32> = slow.map(|input| input.slot).collect();
        for slot in slow {
            self.part(slot, CloseReason::SlowPacket, None);
        }
    }

    /// Pays debts that the kernel had no memory for.
    fn pay_without_event(&mut self, debts: Range<usize>) {
        let waiting: Vec<u32> =
            self.debts.part(debts).filter(|debt| debt.no_event_comes).map(|debt| debt.slot).collect();
        for slot in waiting {
            self.pay(slot);
        }
    }

    fn end_old_debts(&mut self, debts: Range<usize>) {
        let (now, limit) = (self.now, self.limits.debt_age_ms.get_u32());
        let old = self.debts.part(debts).filter(|debt| debt.since().is_some_and(|since| now.since(since) >= limit));
        let old: Vec<u32> = old.map(|debt| debt.slot).collect();
        for slot in old {
            // A kernel that is short of memory may say no more than that the socket is full, and make no event later. A
            // slow client's socket holds bytes that the client has not read.
            let socket = self.connections.get(slot).and_then(|conn| conn.socket.as_ref());
            if socket.is_some_and(|socket| matches!(unacknowledged_bytes(socket), Ok(0))) {
                self.pay(slot);
            }
            let debt = self.connections.get(slot).and_then(|conn| self.debts.get(conn.debt));
            if debt.and_then(Debt::since).is_some_and(|since| now.since(since) >= limit) {
                let lane = debt.is_some_and(Debt::waits_for_lane);
                self.part(slot, if lane { CloseReason::LaneAge } else { CloseReason::DebtAge }, None);
            }
        }
    }

    fn sweep(&mut self, elapsed_ms: u32) {
        let end = self.connections.end();
        let timeout = self.limits.heartbeat_timeout_ms.get_u32();
        let pass_ms = u64::from(timeout / PASSES_PER_TIMEOUT).max(1);
        let share = (u64::from(end) * u64::from(elapsed_ms) / pass_ms + 1).min(u64::from(end));
        for _ in 0..share {
            if self.sweep_next >= end {
                self.sweep_next = 0;
            }
            let slot = self.sweep_next;
            self.sweep_next += 1;
            if self.connections.is_silent(slot, self.now, timeout) {
                self.part(slot, CloseReason::HeartbeatTimeout, None);
            }
        }
    }
}

/// A storm of clients makes a queue long; what it needed goes with it.
fn give_memory_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT_DEADLINES {
        queue.shrink_to(KEPT_DEADLINES);
    }
}
