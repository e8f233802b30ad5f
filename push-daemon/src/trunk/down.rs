//! Frames from the tier become orders for shards.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use wire::goim::Packets;
use wire::key::Place;
use wire::trunk::batch::Target;
use wire::trunk::{AuthResult, Batch, ChatResult, CloseSessions, Push, RoomCounts, auth_result, tier_frame};

use super::Hub;
use super::arbiter::Verdict;
use super::status::count;
use crate::block::Run;
use crate::compress::{Compressed, compress};
use crate::format::Format;
use crate::shard::counters::{Counter, Counters};
use crate::shard::order::{Admitted, Delivery, OperationRun, Order, Refusal, RoomRun};

impl Hub {
    pub(super) async fn frame(&mut self, index: usize, body: tier_frame::Body) {
        match body {
            tier_frame::Body::Push(push) => self.push(index, push).await,
            tier_frame::Body::Auth(result) => self.auth_result(result).await,
            tier_frame::Body::Chat(result) => self.message_result(result).await,
            tier_frame::Body::Counts(counts) => self.room_counts(counts).await,
            tier_frame::Body::Close(close) => self.close_sessions(close).await,
            tier_frame::Body::Lost(lost) => {
                let positions = self.arbiter.skip(lost.partition, lost.last);
                self.status.lost_total.fetch_add(positions, Relaxed);
                tracing::error!(partition = lost.partition, positions, "the bus no longer holds what we missed");
            }
            // A welcome and a refusal come first or not at all; a ping has done its work by coming.
            tier_frame::Body::Welcome(_) | tier_frame::Body::Refused(_) | tier_frame::Body::Ping(_) => {}
        }
    }

    async fn push(&mut self, index: usize, push: Push) {
        if self.lines[index].replaying {
            return;
        }
        count(&self.status.frames_total);
        match self.arbiter.take(push) {
            Verdict::Take(batches) => {
                for batch in batches {
                    self.deliver(batch).await;
                }
            }
            Verdict::Duplicate => count(&self.status.duplicates_total),
            Verdict::Gap { have, due } => {
                count(&self.status.gaps_total);
                count(&self.status.replays_total);
                tracing::warn!(line = index, have, due, "gap: starts the line again from our position");
                self.start_again(index);
            }
            Verdict::Malformed(what) => {
                count(&self.status.malformed_total);
                tracing::error!(line = index, what, "the tier sent a frame that is none; starts the line again");
                self.start_again(index);
            }
        }
    }

    fn start_again(&mut self, index: usize) {
        let line = &mut self.lines[index];
        line.replaying = true;
        if let Some(sender) = &line.sender {
            sender.hang_up();
        }
    }

    async fn deliver(&mut self, batch: Batch) {
        let packets = batch.offsets.len() as u64;
        self.status.packets_total.fetch_add(packets, Relaxed);
        match batch.target {
            Some(Target::Room(room)) => self.deliver_to_room(room, batch.packets, packets as u32).await,
            Some(Target::Keys(keys)) => self.deliver_to_keys(&keys.keys, self.runs(&batch.packets)).await,
            Some(Target::Mids(mids)) => {
                self.give_all(Delivery::Mids(mids.mids.into(), self.runs(&batch.packets))).await
            }
            Some(Target::All(all)) => {
                let share = match all.speed {
                    0 => 0,
                    speed => (speed / self.shards.len() as u32).max(1),
                };
                self.give_all(Delivery::All(share, self.runs(&batch.packets))).await;
            }
            None => count(&self.status.malformed_total),
        }
    }

    fn runs(&self, packets: &Bytes) -> Arc<[OperationRun]> {
        let cut = cut_by_operation(packets).into_iter();
        cut.map(|(operation, packets, count)| OperationRun { operation, run: self.run(packets, count) }).collect()
    }

    /// A run in the forms that clients of this edge take. Compressed here, once, for all shards.
    fn run(&self, packets: Bytes, count: u32) -> Run {
        let any = |figure: fn(&Counters) -> &Counter| self.counters.iter().any(|counters| figure(counters).get() > 0);
        let compressed = Compressed {
            zlib: any(|c| &c.zlib_clients).then(|| self.compress(&packets, Format::Zlib)).flatten(),
            brotli: any(|c| &c.brotli_clients).then(|| self.compress(&packets, Format::Brotli)).flatten(),
        };
        Run { packets, count, compressed }
    }

    fn compress(&self, packets: &Bytes, format: Format) -> Option<Bytes> {
        let began = Instant::now();
        let made = compress(packets, format);
        self.status.compress_ns_total.fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
        match made {
            Ok(made) => made.map(|(packet, saving)| {
                count(&self.status.compressed_batches_total);
                self.status.compress_plain_bytes_total.fetch_add(saving.plain_bytes, Relaxed);
                self.status.compress_bytes_total.fetch_add(saving.compressed_bytes, Relaxed);
                packet
            }),
            Err(error) => {
                tracing::warn!(%error, ?format, "cannot compress a batch: it goes plain");
                None
            }
        }
    }

    /// To the shards that have members; in most there is none of a small room.
    async fn deliver_to_room(&mut self, room: String, packets: Bytes, count: u32) {
        let room = self.presence.name(room);
        let mut there = std::mem::take(&mut self.there);
        self.presence.shards(&room, &mut there);
        if !there.is_empty() {
            let of_room = Arc::new(RoomRun { room, run: self.run(packets, count) });
            for shard in there.drain(..) {
                self.give(shard, Order::DeliverToRoom(Arc::clone(&of_room))).await;
            }
        }
        self.there = there;
    }

    /// A key that names a place goes to its shard alone; one that a client brought is looked for in all.
    async fn deliver_to_keys(&mut self, keys: &[String], runs: Arc<[OperationRun]>) {
        let mut places: Vec<Place> = Vec::new();
        let mut own = Vec::new();
        for key in keys {
            match Place::from_key(key, &self.identity.secret) {
                Some(place) => places.push(place),
                None => own.push(key.as_str().into()),
            }
        }
        places.sort_unstable_by_key(|place| place.shard);
        for group in places.chunk_by(|a, b| a.shard == b.shard) {
            let order = Order::DeliverToPlaces(group.into(), Arc::clone(&runs));
            self.give(usize::from(group[0].shard), order).await;
        }
        if !own.is_empty() {
            self.give_all(Delivery::OwnKeys(own.into(), runs)).await;
        }
    }

    async fn give_all(&mut self, delivery: Delivery) {
        let delivery = Arc::new(delivery);
        for shard in 0..self.shards.len() {
            self.give(shard, Order::Deliver(Arc::clone(&delivery))).await;
        }
    }

    async fn auth_result(&mut self, result: AuthResult) {
        let Some((request, place, _)) = self.auths.remove(&result.id) else { return };
        let order = match result.outcome {
            Some(auth_result::Outcome::Granted(granted)) => {
                count(&self.status.admitted_total);
                Order::Admitted(
                    place,
                    Box::new(Admitted {
                        mid: granted.mid,
                        key: (!granted.key.is_empty()).then(|| granted.key.into()),
                        room: (!granted.room.is_empty()).then(|| granted.room.into()),
                        accepts: granted.accepts,
                        address: request.address,
                        rooms: granted.rooms.map(|list| list.rooms.into_iter().map(Into::into).collect()),
                    }),
                )
            }
            Some(auth_result::Outcome::Denied(denied)) => {
                count(&self.status.refused_total);
                Order::Refused(place, Refusal { code: denied.code, reason: denied.reason.into() })
            }
            None => return count(&self.status.malformed_total),
        };
        self.give_one(place, order).await;
    }

    async fn message_result(&mut self, result: ChatResult) {
        let Some((_, place, header)) = self.messages.remove(&result.id) else { return };
        let refusal = (result.code != 0).then(|| Refusal { code: result.code, reason: result.reason.into() });
        count(if refusal.is_none() {
            &self.status.messages_accepted_total
        } else {
            &self.status.messages_refused_total
        });
        self.give_one(place, Order::MessageDone(place, header, refusal)).await;
    }

    async fn room_counts(&mut self, counts: RoomCounts) {
        let counts = counts.rooms.into_iter().map(|room| (self.presence.name(room.room), room.online));
        let counts: Arc<[_]> = counts.collect();
        for shard in 0..self.shards.len() {
            self.give(shard, Order::RoomCounts(Arc::clone(&counts))).await;
        }
    }

    async fn close_sessions(&mut self, close: CloseSessions) {
        let places: Arc<[Place]> =
            close.places.iter().filter_map(|place| Place::from_key(place, &self.identity.secret)).collect();
        let refusal = Refusal { code: close.code, reason: close.reason.into() };
        for shard in 0..self.shards.len() {
            self.give(shard, Order::Close(Arc::clone(&places), refusal.clone())).await;
        }
    }

    pub(super) async fn give_one(&mut self, place: Place, order: Order) {
        self.give(usize::from(place.shard), order).await;
    }
}

/// Cuts packets where the operation changes: a connection accepts or refuses each run as a whole. Gives the operation,
/// the packets and their count of each.
fn cut_by_operation(packets: &Bytes) -> Vec<(i32, Bytes, u32)> {
    let mut runs: Vec<(i32, Bytes, u32)> = Vec::new();
    let mut from = 0;
    let mut at = 0;
    for packet in Packets::new(packets, usize::MAX).flatten() {
        let end = at + packet.wire_bytes();
        match runs.last_mut() {
            Some((operation, run, count)) if *operation == packet.header.operation => {
                (*run, *count) = (packets.slice(from..end), *count + 1);
            }
            _ => {
                from = at;
                runs.push((packet.header.operation, packets.slice(at..end), 1));
            }
        }
        at = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use wire::goim::Header;

    use super::*;

    #[test]
    fn packets_are_cut_where_the_operation_changes() {
        let mut packets = Vec::new();
        for (operation, body) in [(1000, "a"), (1000, "bc"), (1001, "d"), (1000, "e")] {
            Header { version: 1, operation, sequence: 0 }.put_packet(body.as_bytes(), &mut packets);
        }
        let packets = Bytes::from(packets);
        let cut = cut_by_operation(&packets);
        let shape: Vec<_> = cut.iter().map(|(operation, run, count)| (*operation, *count, run.len())).collect();
        assert_eq!(shape, [(1000, 2, 35), (1001, 1, 17), (1000, 1, 17)]);
        let joined: Vec<u8> = cut.iter().flat_map(|(_, run, _)| run.to_vec()).collect();
        assert_eq!(joined, packets);
    }
}
