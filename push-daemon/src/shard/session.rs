//! Coming in, moving, and going: what turns a socket into a member and back.
//!
//! It does not decide who may enter (the logic tier does), nor read packets (`ingress`).

use std::borrow::Cow;

use rustix::net::{Shutdown, shutdown};
use serde_json::json;
use wire::goim::{Header, op};
use wire::key::Place;
use wire::websocket::frame::put_close;

use super::Shard;
use super::conn::{Manner, NONE, Phase};
use super::news::News;
use super::order::{Admitted, Refusal};
use super::reason::CloseReason;

/// How long a client that was told goodbye may take to hang up.
const LINGER_MS: u32 = 2_000;

/// Longest reason that a client is told. Even if every byte of it has to be escaped, its JSON fits a reply.
const MAX_REASON_BYTES: usize = 160;

/// Sessions told of in one turn of a resync.
const RESYNC_BATCH: usize = 256;

impl Shard {
    /// The place of the connection in `slot`.
    pub(crate) fn place(&self, slot: u32) -> Place {
        Place { node: self.node, shard: self.id, slot, generation: self.connections[slot].generation }
    }

    /// The slot of a connection that is still at `place`.
    pub(crate) fn slot_of(&self, place: &Place) -> Option<u32> {
        let here = (place.node, place.shard) == (self.node, self.id);
        (here && self.connections.get_exact(place.slot, place.generation).is_some()).then_some(place.slot)
    }

    /// Admission has let a client in.
    pub(crate) fn admit(&mut self, place: &Place, admitted: Admitted) {
        let Some(slot) = self.slot_of(place).filter(|slot| self.connections[*slot].phase == Phase::Authenticating)
        else {
            return;
        };
        let header = self.take_auth_header(slot);
        let accepts = self.accepts.acquire(admitted.accepts);
        self.asking -= 1;
        let conn = &mut self.connections[slot];
        conn.phase = Phase::Joined;
        conn.mid = admitted.mid;
        conn.accepts = accepts;
        let manner = conn.manner;
        self.joined += 1;
        self.joined_by_format[manner.format as usize] += 1;
        self.mids.insert(&mut self.connections, slot);
        if let Some(key) = &admitted.key {
            self.connections[slot].own_key = true;
            self.own_keys.insert(slot, key.clone());
        }
        if let Some(rooms) = admitted.rooms {
            self.connections[slot].confined = true;
            self.confined.insert(slot, rooms);
        }
        if let Some(room) = &admitted.room {
            self.join_room(slot, room);
        }
        let body: &[u8] = if manner.is_bilibili() { br#"{"code":0}"# } else { b"" };
        self.reply(slot, reply_header(manner, header, op::AUTH_REPLY), body);
        self.tell_session(News::Joined {
            place: self.place(slot),
            mid: admitted.mid,
            key: admitted.key,
            room: admitted.room,
            platform: self.platforms.name(self.connections[slot].platform).into(),
            address: admitted.address,
        });
        self.let_in.push(*place);
    }

    /// Answers those that were let in, all in one slice, and takes up what they sent meanwhile.
    pub(crate) fn answer_let_in(&mut self) {
        self.send_gathered();
        let mut let_in = std::mem::take(&mut self.let_in);
        for place in let_in.drain(..) {
            if let Some(slot) = self.slot_of(&place) {
                self.read_kept(slot);
            }
        }
        self.send_gathered();
        self.let_in = let_in;
    }

    /// Admission will not have a client, or could not be asked.
    pub(crate) fn refuse(&mut self, place: &Place, refusal: &Refusal, why: CloseReason) {
        let Some(slot) = self.slot_of(place).filter(|slot| self.connections[*slot].phase == Phase::Authenticating)
        else {
            return;
        };
        self.refuse_auth(slot, refusal.code, &refusal.reason, why);
    }

    /// Answers an auth packet with a no and its reason, which goim leaves out (goim issue 302).
    pub(crate) fn refuse_auth(&mut self, slot: u32, code: i32, reason: &str, why: CloseReason) {
        let header = self.take_auth_header(slot);
        let manner = self.connections[slot].manner;
        let body = refusal_body(code, reason);
        self.reply(slot, reply_header(manner, header, op::AUTH_REPLY), body.as_bytes());
        self.part(slot, why, None);
    }

    /// What became of a client's message.
    pub(crate) fn message_done(&mut self, place: &Place, header: Header, refusal: Option<&Refusal>) {
        let Some(slot) = self.slot_of(place).filter(|slot| self.connections[*slot].phase == Phase::Joined) else {
            return;
        };
        let manner = self.connections[slot].manner;
        let header = Header { operation: op::SEND_MESSAGE_REPLY, ..header };
        match refusal {
            // Operation 5 is a message to Bilibili's clients, and those are JSON with a `cmd`.
            _ if manner.is_bilibili() => {
                let (code, message) = refusal.map_or((0, ""), |refusal| (refusal.code, &*refusal.reason));
                let message = shortened(message);
                let body = json!({ "cmd": "SEND_MESSAGE_REPLY", "code": code, "message": message }).to_string();
                self.reply(slot, Header { version: 0, ..header }, body.as_bytes());
            }
            None => self.reply(slot, header, b""),
            Some(refusal) => {
                let body = refusal_body(refusal.code, &refusal.reason);
                self.reply(slot, header, body.as_bytes());
            }
        }
    }

    /// Moves a client into `name`, or out of any room.
    pub(crate) fn change_room(&mut self, slot: u32, name: Option<&str>) {
        self.leave_room(slot);
        if let Some(name) = name {
            self.join_room(slot, name);
        }
        self.tell_session(News::Moved { place: self.place(slot), room: name.map(Into::into) });
    }

    /// Whether admission lets this client into `name`.
    pub(crate) fn may_enter(&self, slot: u32, name: &str) -> bool {
        !self.connections[slot].confined
            || self.confined.get(&slot).is_some_and(|rooms| rooms.iter().any(|room| **room == *name))
    }

    fn join_room(&mut self, slot: u32, name: &str) {
        let format = self.connections[slot].manner.format;
        let (room, at) = self.rooms.join(name, slot, format);
        let conn = &mut self.connections[slot];
        (conn.room, conn.room_at) = (room, at);
    }

    fn leave_room(&mut self, slot: u32) {
        let conn = &mut self.connections[slot];
        let room = std::mem::replace(&mut conn.room, NONE);
        if room != NONE {
            let (at, format) = (conn.room_at, conn.manner.format);
            let connections = &mut self.connections;
            self.rooms.leave(room, at, format, |slot, at| connections[slot].room_at = at);
        }
    }

    /// Closes the connection later in this turn: the caller is in the middle of a walk.
    pub(crate) fn close_later(&mut self, slot: u32, reason: CloseReason) {
        self.closing.push((self.place(slot), reason));
    }

    /// Closes what [`Self::close_later`] gathered.
    pub(crate) fn close_gathered(&mut self) {
        while let Some((place, reason)) = self.closing.pop() {
            if let Some(slot) = self.slot_of(&place) {
                self.part(slot, reason, None);
            }
        }
    }

    /// Ends a connection: takes it out of everything, counts why, and tells the client if that makes sense.
    pub(crate) fn part(&mut self, slot: u32, reason: CloseReason, words: Option<&str>) {
        // Its socket may be in the slice.
        self.send_gathered();
        let phase = self.connections[slot].phase;
        if phase == Phase::Lingering {
            return self.finish(slot);
        }
        self.forgive_what_waits(slot);
        // In the middle of a block there is no place for a goodbye.
        let told = reason.is_told() && self.connections[slot].debt == NONE && phase != Phase::Upgrading;
        // First, so that who was told finds it counted.
        self.counters.closed(reason).add(1);
        if reason.is_the_lanes() {
            self.lanes.count(self.connections[slot].lane, |counters| counters.closed_total.add(1));
        }
        if told {
            self.say_goodbye(slot, reason, words.unwrap_or(reason.words()));
            self.send_gathered();
        }
        self.withdraw(slot);
        let broken = self.connections[slot].debt != NONE;
        self.forgive(slot);
        let lingers = reason.is_told() && !broken;
        let shut = self.connections[slot].socket.as_ref().map(|socket| shutdown(socket, Shutdown::Write));
        if lingers && matches!(shut, Some(Ok(()))) {
            self.connections[slot].phase = Phase::Lingering;
            self.lingers.push_back((self.place(slot), self.now.after(LINGER_MS)));
        } else {
            self.finish(slot);
        }
    }

    /// Gives the slot and the descriptor back.
    pub(crate) fn finish(&mut self, slot: u32) {
        if self.connections[slot].manner.websocket {
            self.websocket_connections -= 1;
        }
        self.unlabel(slot);
        self.outlet.closed(slot);
        // Closing takes the socket out of the poll as well, at the latest when the outlet lets go of it.
        drop(self.connections.remove(slot));
    }

    /// Takes the client out of every index.
    fn withdraw(&mut self, slot: u32) {
        self.forget_input(slot);
        match self.connections[slot].phase {
            Phase::Joined => {}
            Phase::Authenticating => {
                self.asking -= 1;
                return;
            }
            _ => return,
        }
        self.leave_room(slot);
        self.mids.remove(&mut self.connections, slot);
        let conn = &mut self.connections[slot];
        let accepts = std::mem::take(&mut conn.accepts);
        self.joined -= 1;
        self.joined_by_format[conn.manner.format as usize] -= 1;
        if std::mem::take(&mut conn.confined) {
            self.confined.remove(&slot);
        }
        if std::mem::take(&mut conn.own_key) {
            self.own_keys.remove(slot);
        }
        self.accepts.release(accepts);
        self.tell_session(News::Left { place: self.place(slot) });
    }

    fn say_goodbye(&mut self, slot: u32, reason: CloseReason, words: &str) {
        let conn = &self.connections[slot];
        let websocket = conn.manner.websocket;
        // A refused auth was answered by its own reply.
        if !matches!(reason, CloseReason::AuthRefused | CloseReason::AuthUnavailable | CloseReason::BadAuthBody) {
            let body = refusal_body(reason.code(), words);
            let header = Header { version: 1, operation: op::DISCONNECT_REPLY, sequence: 0 };
            self.reply(slot, header, body.as_bytes());
        }
        if websocket {
            let mut frame = Vec::with_capacity(128);
            put_close(reason.websocket_code(), words, &mut frame);
            self.send_control(slot, &frame);
        }
    }

    /// Starts to tell of every session again.
    pub(crate) fn begin_resync(&mut self) {
        self.resync_next = Some(0);
    }

    /// Whether the desk has room for a batch, and for what happens meanwhile.
    pub(crate) fn resync_is_due(&self) -> bool {
        self.resync_next.is_some() && self.news.has_room_for(2 * RESYNC_BATCH)
    }

    /// Tells of some more sessions, as far as the desk has room.
    pub(crate) fn go_on_with_resync(&mut self) {
        let Some(first) = self.resync_next.filter(|_| self.resync_is_due()) else { return };
        let end = self.connections.end();
        let upto = end.min(first + RESYNC_BATCH as u32);
        for slot in first..upto {
            let Some(conn) = self.connections.get(slot).filter(|conn| conn.phase == Phase::Joined) else { continue };
            let news = News::Joined {
                place: self.place(slot),
                mid: conn.mid,
                key: self.own_keys.of(slot).map(Into::into),
                room: (conn.room != NONE).then(|| self.rooms.name(conn.room).into()),
                platform: self.platforms.name(conn.platform).into(),
                address: self.address(slot),
            };
            self.tell_session(news);
        }
        self.resync_next = (upto < end).then_some(upto);
    }

    fn tell_session(&self, news: News) {
        // What finds no room is made up for: the desk notes that a resync is due.
        let _told = self.news.tell(news);
    }

    /// The client's address without its port, as text.
    pub(crate) fn address(&self, slot: u32) -> String {
        self.peer(slot).map_or_else(String::new, |peer| peer.to_string())
    }
}

/// The body of a no: its code and its reason.
pub(crate) fn refusal_body(code: i32, reason: &str) -> String {
    json!({ "code": code, "message": shortened(reason) }).to_string()
}

/// A reason may quote what the client sent, which may be all of a packet: that is not sent back.
fn shortened(reason: &str) -> Cow<'_, str> {
    if reason.len() <= MAX_REASON_BYTES {
        return Cow::Borrowed(reason);
    }
    let end = reason.floor_char_boundary(MAX_REASON_BYTES);
    Cow::Owned(format!("{}\u{2026}", &reason[..end]))
}

/// The header of a reply: the request's, but Bilibili's clients expect version 1.
pub(crate) fn reply_header(manner: Manner, request: Header, operation: i32) -> Header {
    let version = if manner.is_bilibili() { 1 } else { request.version };
    Header { version, operation, sequence: request.sequence }
}
