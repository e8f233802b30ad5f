//! Who is online: the sessions that edges report, and what is counted of them.
//!
//! A session is known by its edge's run and its place there. Keys that clients bring themselves are kept apart, since
//! a second session with the same key takes it from the first.
//!
//! Pure state, no lock and no clock. It does not find out where a push goes: edges resolve keys and mids themselves.
//!
//! Layout: this file is the table · `names` rooms and platforms, each name kept once

mod names;

use std::collections::HashMap;
use std::net::IpAddr;

use wire::auth::MAX_KEY_BYTES;
use wire::key::KEY_CHARS;
use wire::room::RoomId;
use wire::trunk::{Joined, RoomCount, SessionEvent, session_event};

use crate::metrics::SessionRefusal;
use names::{Platforms, Rooms};

/// One run of one edge, numbered by the tier.
pub type EdgeId = u32;

/// The place of a session on its edge: the 32 digits of its key.
pub type Place = u128;

/// A session. An idle viewer costs this, its share of the tables, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    mid: i64,
    /// `None`: the key is the place.
    key: Option<Box<str>>,
    /// In `rooms`.
    room: Option<u32>,
    /// `None`: the edge did not say one that can be read.
    address: Option<IpAddr>,
    /// In `platforms`.
    platform: u16,
}

/// A session as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// User id.
    pub mid: i64,
    /// The key that a push names.
    pub key: String,
    /// The room.
    pub room: Option<String>,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// What it runs on, as it says.
    pub platform: String,
}

/// A session whose key went to another one, and that has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Displaced {
    /// The run of the edge that holds it.
    pub edge: EdgeId,
    /// Where.
    pub place: Place,
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    /// Sessions over all edges at most. Full: the event is refused and counted.
    max: usize,
    total: usize,
    edges: HashMap<EdgeId, HashMap<Place, Session>>,
    /// Keys that clients brought, to the newest session with each.
    keys: HashMap<Box<str>, Displaced>,
    rooms: Rooms,
    /// Sessions per address.
    addresses: HashMap<IpAddr, u32>,
    platforms: Platforms,
}

impl Sessions {
    /// No sessions, and room for `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            total: 0,
            edges: HashMap::new(),
            keys: HashMap::new(),
            rooms: Rooms::default(),
            addresses: HashMap::new(),
            platforms: Platforms::default(),
        }
    }

    /// Takes one event of `edge`. When it took a key from another session, that one is returned.
    ///
    /// # Errors
    /// The reason why the event was not taken.
    pub fn apply(&mut self, edge: EdgeId, event: SessionEvent) -> Result<Option<Displaced>, SessionRefusal> {
        let place = parse_place(&event.place).ok_or(SessionRefusal::Place)?;
        match event.event {
            Some(session_event::Event::Joined(joined)) => self.join(edge, place, &event.place, joined),
            Some(session_event::Event::Moved(moved)) => {
                let room = self.room(&moved.room)?;
                let Some(session) = self.edges.get_mut(&edge).and_then(|sessions| sessions.get_mut(&place)) else {
                    self.release_room(room);
                    return Err(SessionRefusal::Unknown);
                };
                let old = std::mem::replace(&mut session.room, room);
                self.release_room(old);
                Ok(None)
            }
            Some(session_event::Event::Left(_)) => {
                if self.leave(edge, place) {
                    Ok(None)
                } else {
                    Err(SessionRefusal::Unknown)
                }
            }
            // A kind of event that this version does not know.
            None => Err(SessionRefusal::Unknown),
        }
    }

    /// Forgets up to `max` sessions of `edge`. `true`: there are more.
    ///
    /// In steps, because a full edge has a million of them and others wait for the lock.
    pub fn forget(&mut self, edge: EdgeId, max: usize) -> bool {
        let Some(sessions) = self.edges.get(&edge) else { return false };
        let places: Vec<Place> = sessions.keys().take(max).copied().collect();
        for place in places {
            self.leave(edge, place);
        }
        let more = self.edges.get(&edge).is_some_and(|sessions| !sessions.is_empty());
        if !more {
            self.edges.remove(&edge);
        }
        more
    }

    /// A session by its place.
    #[must_use]
    pub fn get(&self, edge: EdgeId, place: Place) -> Option<SessionView> {
        let session = self.edges.get(&edge)?.get(&place)?;
        Some(SessionView {
            mid: session.mid,
            key: session.key.as_deref().map_or_else(|| place_text(place), str::to_owned),
            room: session.room.map(|room| self.rooms.name(room).to_owned()),
            address: session.address,
            platform: self.platforms.name(session.platform).to_owned(),
        })
    }

    /// Sessions over all edges.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Distinct addresses over all sessions.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// Rooms with at least one session.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.occupied()
    }

    /// People online in `room`.
    #[must_use]
    pub fn online(&self, room: &str) -> u32 {
        self.rooms.online(room)
    }

    /// The rooms of type `kind` with the most people, at most `limit`, and how many they are; equals by name.
    #[must_use]
    pub fn top(&self, kind: &str, limit: usize) -> Vec<(String, u32)> {
        self.rooms.top(kind, limit)
    }

    /// The rooms whose count changed since the last call.
    pub fn take_changed(&mut self) -> Vec<RoomCount> {
        self.rooms.take_changed()
    }

    /// Every room with at least one session: what an edge needs that knows nothing yet.
    #[must_use]
    pub fn all_counts(&self) -> Vec<RoomCount> {
        self.rooms.all()
    }

    fn join(
        &mut self,
        edge: EdgeId,
        place: Place,
        place_text: &str,
        joined: Joined,
    ) -> Result<Option<Displaced>, SessionRefusal> {
        // An edge that says it twice means the second.
        self.leave(edge, place);
        if self.total >= self.max {
            return Err(SessionRefusal::Full);
        }
        if joined.key.len() > MAX_KEY_BYTES {
            return Err(SessionRefusal::Key);
        }
        let room = self.room(&joined.room)?;
        let address = joined.address.parse().ok().map(|address: IpAddr| address.to_canonical());
        if let Some(address) = address {
            *self.addresses.entry(address).or_default() += 1;
        }
        let own = joined.key.is_empty() || joined.key == place_text;
        let key = (!own).then(|| joined.key.into_boxed_str());
        let displaced = key.clone().and_then(|key| self.keys.insert(key, Displaced { edge, place }));
        let platform = self.platforms.number(&joined.platform);
        let session = Session { mid: joined.mid, key, room, address, platform };
        self.edges.entry(edge).or_default().insert(place, session);
        self.total += 1;
        Ok(displaced)
    }

    fn leave(&mut self, edge: EdgeId, place: Place) -> bool {
        let Some(session) = self.edges.get_mut(&edge).and_then(|sessions| sessions.remove(&place)) else {
            return false;
        };
        self.total -= 1;
        self.release_room(session.room);
        if let Some(address) = session.address
            && let Some(count) = self.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
        if let Some(key) = session.key {
            // Only while it is still this session's.
            if self.keys.get(&key) == Some(&Displaced { edge, place }) {
                self.keys.remove(&key);
            }
        }
        true
    }

    /// The number of a room, one more session in it; `None` for the empty name, which is no room.
    fn room(&mut self, name: &str) -> Result<Option<u32>, SessionRefusal> {
        if name.is_empty() {
            return Ok(None);
        }
        let room = RoomId::parse(name).map_err(|_| SessionRefusal::Room)?;
        Ok(Some(self.rooms.enter(room.as_str())))
    }

    fn release_room(&mut self, room: Option<u32>) {
        if let Some(room) = room {
            self.rooms.leave(room);
        }
    }
}

/// Reads the 32 hexadecimal digits of a place, lower case: one place has one text.
#[must_use]
pub fn parse_place(text: &str) -> Option<Place> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != KEY_CHARS || !digits {
        return None;
    }
    Place::from_str_radix(text, 16).ok()
}

/// The text of a place.
#[must_use]
pub fn place_text(place: Place) -> String {
    format!("{place:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::trunk::{Left, Moved};

    fn joined(place: Place, key: &str, room: &str, address: &str) -> SessionEvent {
        let joined = Joined {
            mid: 7,
            key: key.to_owned(),
            room: room.to_owned(),
            address: address.to_owned(),
            platform: "web".to_owned(),
        };
        SessionEvent { place: place_text(place), event: Some(session_event::Event::Joined(joined)) }
    }

    fn moved(place: Place, room: &str) -> SessionEvent {
        SessionEvent {
            place: place_text(place),
            event: Some(session_event::Event::Moved(Moved { room: room.to_owned() })),
        }
    }

    fn left(place: Place) -> SessionEvent {
        SessionEvent { place: place_text(place), event: Some(session_event::Event::Left(Left {})) }
    }

    fn changed(sessions: &mut Sessions) -> Vec<(String, u32)> {
        let mut changed: Vec<_> = sessions.take_changed().into_iter().map(|count| (count.room, count.online)).collect();
        changed.sort();
        changed
    }

    #[test]
    fn counts_follow_the_events() {
        let mut sessions = Sessions::new(10);
        for (place, room, address) in
            [(1, "live://1", "192.0.2.1"), (2, "live://1", "192.0.2.1"), (3, "", "2001:db8::1")]
        {
            assert_eq!(sessions.apply(1, joined(place, "", room, address)), Ok(None));
        }
        assert_eq!((sessions.total(), sessions.addresses(), sessions.rooms()), (3, 2, 1));
        assert_eq!(changed(&mut sessions), [("live://1".to_owned(), 2)]);
        assert_eq!(sessions.apply(1, moved(2, "live://2")), Ok(None));
        assert_eq!(changed(&mut sessions), [("live://1".to_owned(), 1), ("live://2".to_owned(), 1)]);
        assert_eq!(sessions.apply(1, left(1)), Ok(None));
        assert_eq!(changed(&mut sessions), [("live://1".to_owned(), 0)], "an empty room is said once");
        assert_eq!(changed(&mut sessions), []);
        assert_eq!((sessions.total(), sessions.addresses(), sessions.rooms()), (2, 2, 1));
    }

    #[test]
    fn what_cannot_be_right_is_refused_and_changes_nothing() {
        let mut sessions = Sessions::new(1);
        assert_eq!(sessions.apply(1, joined(1, "", "live://1", "192.0.2.1")), Ok(None));
        let upper = SessionEvent { place: "A".repeat(32), ..left(1) };
        for (event, refusal) in [
            (upper, SessionRefusal::Place),
            (SessionEvent { place: "1".to_owned(), ..left(1) }, SessionRefusal::Place),
            (left(2), SessionRefusal::Unknown),
            (moved(2, "live://9"), SessionRefusal::Unknown),
            (moved(1, "no room"), SessionRefusal::Room),
            (joined(2, "", "live://1", ""), SessionRefusal::Full),
        ] {
            assert_eq!(sessions.apply(1, event), Err(refusal));
        }
        assert_eq!(sessions.apply(2, left(1)), Err(SessionRefusal::Unknown), "another edge's place is another place");
        assert_eq!((sessions.total(), sessions.rooms(), sessions.online("live://1")), (1, 1, 1));
    }

    #[test]
    fn a_key_that_comes_again_displaces_the_older_session() {
        let mut sessions = Sessions::new(10);
        assert_eq!(sessions.apply(1, joined(1, "tv", "", "")), Ok(None));
        assert_eq!(sessions.apply(2, joined(5, "tv", "", "")), Ok(Some(Displaced { edge: 1, place: 1 })));
        // The older one leaves; the key stays with the newer one.
        assert_eq!(sessions.apply(1, left(1)), Ok(None));
        assert_eq!(sessions.apply(1, joined(1, "tv", "", "")), Ok(Some(Displaced { edge: 2, place: 5 })));
        // The place's own text as key is no key of a client.
        assert_eq!(sessions.apply(1, joined(6, &place_text(6), "", "")), Ok(None));
        assert_eq!(sessions.get(1, 6).map(|session| session.key), Some(place_text(6)));
    }

    #[test]
    fn an_edge_is_forgotten_in_steps() {
        let mut sessions = Sessions::new(10);
        for place in 0..5 {
            sessions.apply(1, joined(place, "", "live://1", "192.0.2.1")).expect("there is room");
        }
        sessions.apply(2, joined(0, "", "live://1", "192.0.2.2")).expect("there is room");
        assert!(sessions.forget(1, 3));
        assert_eq!(sessions.total(), 3);
        assert!(!sessions.forget(1, 3));
        assert_eq!((sessions.total(), sessions.addresses(), sessions.online("live://1")), (1, 1, 1));
        assert!(!sessions.forget(1, 3));
    }

    #[test]
    fn the_top_is_of_the_type_asked_for() {
        let mut sessions = Sessions::new(10);
        for (place, room) in [(1, "live://a"), (2, "live://b"), (3, "live://b"), (4, "livestream://c"), (5, "live://d")]
        {
            sessions.apply(1, joined(place, "", room, "")).expect("there is room");
        }
        let top = |limit| sessions.top("live", limit);
        assert_eq!(top(2), [("b".to_owned(), 2), ("a".to_owned(), 1)]);
        assert_eq!(top(9).len(), 3);
    }
}
