//! What a client that is in may ask for (goim: `internal/comet/operation.go`).
//!
//! Heartbeats, rooms and subscriptions are answered in the shard; a message goes upstream and is answered when
//! the bus has it.

use wire::auth::MAX_ACCEPTS;
use wire::goim::{Header, Packet, op, parse_operations};
use wire::room::RoomId;

use super::Shard;
use super::conn::NONE;
use super::ingress::Flow;
use super::order::Refusal;
use super::reason::CloseReason;
use super::session::{refusal_body, reply_header};

impl Shard {
    /// Answers one packet of a client that is in.
    pub(crate) fn request(&mut self, slot: u32, packet: Packet<'_>) -> Result<Flow, CloseReason> {
        let header = packet.header;
        match header.operation {
            op::HEARTBEAT => {
                let online = self.online(slot).to_be_bytes();
                self.answer(slot, header, op::HEARTBEAT_REPLY, &online);
            }
            op::SEND_MESSAGE => self.message(slot, header, packet.body),
            op::CHANGE_ROOM => {
                let outcome = self.requested_room(slot, packet.body).map(|room| {
                    self.change_room(slot, room.as_ref().map(RoomId::as_str));
                });
                self.answer_outcome(slot, header, op::CHANGE_ROOM_REPLY, outcome);
            }
            op::SUBSCRIBE => {
                let outcome = self.change_accepts(slot, packet.body, |accepts, named| accepts.extend(named));
                self.answer_outcome(slot, header, op::SUBSCRIBE_REPLY, outcome);
            }
            op::UNSUBSCRIBE => {
                let outcome = self.change_accepts(slot, packet.body, |accepts, named| {
                    accepts.retain(|operation| !named.contains(operation));
                });
                self.answer_outcome(slot, header, op::UNSUBSCRIBE_REPLY, outcome);
            }
            op::AUTH => return Err(CloseReason::SecondAuth),
            _ => return Err(CloseReason::UnknownOperation),
        }
        Ok(Flow::Next)
    }

    /// People in the client's room, over all edges.
    fn online(&self, slot: u32) -> u32 {
        match self.connections[slot].room {
            NONE => 0,
            room => self.rooms.online(room),
        }
    }

    fn message(&mut self, slot: u32, header: Header, body: &[u8]) {
        let room = self.connections[slot].room;
        let refused = if room == NONE {
            Some((-400, "join a room first"))
        } else {
            let name = self.rooms.name(room).into();
            (!self.tell_message(slot, header, name, body)).then_some((-503, "too busy, try again later"))
        };
        if let Some((code, reason)) = refused {
            self.message_done(&self.place(slot), header, Some(&Refusal { code, reason: reason.into() }));
        }
    }

    /// The room that a change names: none for an empty body (goim: `internal/comet/bucket.go`, `ChangeRoom`).
    fn requested_room(&self, slot: u32, body: &[u8]) -> Result<Option<RoomId>, (i32, String)> {
        if body.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(body).map_err(|_| (-400, "the room is not UTF-8".to_owned()))?;
        let room = if self.connections[slot].manner.is_bilibili() && !text.contains("://") {
            RoomId::new(&self.bilibili_room_type, text)
        } else {
            RoomId::parse(text)
        };
        let room = room.map_err(|error| (-400, error.to_string()))?;
        if !self.may_enter(slot, room.as_str()) {
            return Err((-403, format!("the room {room} is not open to you")));
        }
        Ok(Some(room))
    }

    fn change_accepts(
        &mut self,
        slot: u32,
        body: &[u8],
        change: impl FnOnce(&mut Vec<i32>, Vec<i32>),
    ) -> Result<(), (i32, String)> {
        let named = parse_operations(body, MAX_ACCEPTS).ok_or_else(|| {
            (-400, format!("operations are decimals separated by commas, at most {MAX_ACCEPTS} of them"))
        })?;
        let before = self.connections[slot].accepts;
        let mut accepts = self.accepts.operations(before).to_vec();
        change(&mut accepts, named);
        accepts.sort_unstable();
        accepts.dedup();
        if accepts.len() > MAX_ACCEPTS {
            return Err((-400, format!("a connection accepts at most {MAX_ACCEPTS} operations")));
        }
        self.connections[slot].accepts = self.accepts.acquire(accepts);
        self.accepts.release(before);
        Ok(())
    }

    /// goim's replies are empty; a no says why.
    fn answer_outcome(&mut self, slot: u32, request: Header, operation: i32, outcome: Result<(), (i32, String)>) {
        match outcome {
            Ok(()) => self.answer(slot, request, operation, b""),
            Err((code, message)) => {
                self.answer(slot, request, operation, refusal_body(code, &message).as_bytes());
            }
        }
    }

    fn answer(&mut self, slot: u32, request: Header, operation: i32, body: &[u8]) {
        let manner = self.connections[slot].manner;
        self.reply(slot, reply_header(manner, request, operation), body);
    }
}
