//! Orders taken from the queue and done, in their order.
//!
//! Several are taken at once, so that what each of them needs from memory is fetched while the others' is.
//!
//! It does not say what an order is (`order`), nor how any is done.

use std::{iter, mem};

use super::Shard;
use super::order::Order;
use super::reason::CloseReason;
use crate::sys::prefetch;

/// Orders taken in one turn.
const ORDERS_PER_TURN: usize = 256;

/// Orders taken at once.
const ORDERS_AT_ONCE: usize = 32;

impl Shard {
    /// Does what the shard was told. False when it has to stop.
    pub(super) fn take_orders(&mut self) -> bool {
        let mut orders = mem::take(&mut self.orders);
        let mut goes_on = true;
        for _ in 0..ORDERS_PER_TURN / ORDERS_AT_ONCE {
            // A shard that is behind takes no more than it can hold; the queue fills and the trunk waits.
            if !goes_on || self.rooms.backlog_bytes() + self.everyone.backlog_bytes > self.backlog_bytes {
                break;
            }
            orders.extend(iter::from_fn(|| self.handle.take()).take(ORDERS_AT_ONCE));
            if orders.is_empty() {
                break;
            }
            self.fetch_ahead(&orders);
            for order in orders.drain(..) {
                goes_on &= self.take_order(order);
            }
        }
        self.orders = orders;
        self.answer_let_in();
        goes_on
    }

    /// Has the rooms that orders name fetched: what each step reads was asked for by the step before.
    fn fetch_ahead(&self, orders: &[Order]) {
        let to_rooms = || orders.iter().filter_map(Order::to_room);
        to_rooms().for_each(|of_room| {
            prefetch(&of_room.room);
            prefetch(&of_room.run);
        });
        to_rooms().for_each(|of_room| {
            self.rooms.prefetch_place(&of_room.room);
            of_room.run.packets.first().into_iter().for_each(prefetch);
        });
        to_rooms().for_each(|of_room| self.rooms.prefetch(&of_room.room));
    }

    /// False when the shard has to stop.
    fn take_order(&mut self, order: Order) -> bool {
        self.counters.orders_total.add(1);
        if !matches!(order, Order::Admitted(..)) {
            self.answer_let_in();
        }
        match order {
            Order::DeliverToRoom(run) => self.begin_in_room(run),
            Order::Deliver(delivery) => self.begin(&delivery),
            Order::DeliverToPlaces(places, runs) => self.deliver_to_places(&places, &runs),
            Order::Admitted(place, admitted) => self.admit(&place, *admitted),
            Order::Refused(place, refusal) => self.refuse(&place, &refusal, CloseReason::AuthRefused),
            Order::MessageDone(place, header, refusal) => self.message_done(&place, header, refusal.as_ref()),
            Order::RoomCounts(counts) => {
                for (room, online) in counts.iter() {
                    self.rooms.set_online(room, *online);
                }
            }
            Order::Close(places, refusal) => {
                for slot in places.iter().filter_map(|place| self.slot_of(place)).collect::<Vec<_>>() {
                    self.part(slot, CloseReason::Kicked, Some(&refusal.reason));
                }
            }
            Order::Lanes(lanes) => self.set_lanes(lanes),
            Order::Resync => self.begin_resync(),
            Order::Drain { over_ms, last_call_ms } => self.begin_drain(over_ms, last_call_ms),
            Order::Stop => return false,
        }
        true
    }
}
