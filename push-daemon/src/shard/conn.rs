//! A connection in one cache line, and the slab that holds them.
//!
//! What an idle connection needs is here and nowhere else; what it needs while something is under way (an
//! incomplete packet, unsent bytes, a request upstream) is in the side slabs of `ingress` and `egress`.

use std::ops::Range;
use std::os::fd::OwnedFd;

use super::clock::Tick;
use crate::format::Format;
use crate::sys::prefetch;

/// Marks the absence of an index.
pub(crate) const NONE: u32 = u32::MAX;

/// Where a client is on its way in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The slot holds no connection.
    Free,
    /// A WebSocket client has not finished its HTTP request.
    Upgrading,
    /// Connected; the auth packet is due.
    Unauthenticated,
    /// The logic tier is being asked; what the client sends meanwhile waits.
    Authenticating,
    /// In: pushes reach it.
    Joined,
    /// Told goodbye and counted as closed; kept for a moment so that the goodbye is not lost in a reset.
    Lingering,
}

/// How packets are framed and headed for this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Packets ride in WebSocket messages.
    pub(crate) websocket: bool,
    /// How packets are headed and packed; until auth, goim's.
    pub(crate) format: Format,
}

impl Manner {
    /// A client that has not said which dialect it speaks.
    pub(crate) fn new(websocket: bool) -> Self {
        Self { websocket, format: Format::Goim }
    }

    pub(crate) fn is_bilibili(self) -> bool {
        self.format != Format::Goim
    }
}

/// One client. Everything that a push or a heartbeat touches is in this cache line.
#[repr(align(64))]
pub(crate) struct Conn {
    /// `Some` in every phase but `Free`.
    pub(crate) socket: Option<OwnedFd>,
    /// Which connection of this slot it is; goes up at each close, so a stale event or key finds nobody.
    pub(crate) generation: u32,
    /// User id; 0 is nobody in particular and stands in no index.
    pub(crate) mid: i64,
    /// Index of the room, or `NONE`.
    pub(crate) room: u32,
    /// Position in the room's list of members. Invariant: `rooms[room].members[room_at]` is this slot.
    pub(crate) room_at: u32,
    /// The next and the previous connection of the same mid on this shard, or `NONE`.
    pub(crate) mid_next: u32,
    pub(crate) mid_previous: u32,
    /// Interned set of the operations it accepts.
    pub(crate) accepts: u32,
    /// When its last whole packet came.
    pub(crate) heard: Tick,
    /// Index of its unfinished input, or `NONE`.
    pub(crate) input: u32,
    /// Index of what the socket still owes it, or `NONE`.
    pub(crate) debt: u32,
    pub(crate) phase: Phase,
    pub(crate) manner: Manner,
    /// Number of what it runs on.
    pub(crate) platform: u8,
    /// Number of the ISP that its address belongs to, as the plan of lanes said when it was last asked; 0 without lanes.
    pub(crate) lane: u8,
    /// It brought its own key, which stands in the side map.
    pub(crate) own_key: bool,
    /// It may move to some rooms only, which stand in a side map.
    pub(crate) confined: bool,
    /// Index of the next free slot; meaningful while `Free`.
    next_free: u32,
}

const _: () = assert!(size_of::<Conn>() == 64, "a connection is one cache line");

/// All connections of a shard.
pub(crate) struct Connections {
    /// Never longer than `capacity`, for which address space is set aside at the start: it never moves, and
    /// pages that were never touched cost nothing.
    slots: Vec<Conn>,
    capacity: u32,
    first_free: u32,
    live: u32,
}

impl Connections {
    pub(crate) fn with_capacity(capacity: u32) -> Self {
        Self { slots: Vec::with_capacity(capacity as usize), capacity, first_free: NONE, live: 0 }
    }

    /// Connections that are there, lingering ones included.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn is_full(&self) -> bool {
        self.live == self.capacity
    }

    /// One past the highest slot ever used: the end of a walk.
    pub(crate) fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Takes a connection in. `Err` gives the socket back when the slab is full.
    pub(crate) fn insert(&mut self, socket: OwnedFd, manner: Manner, now: Tick) -> Result<u32, OwnedFd> {
        if self.is_full() {
            return Err(socket);
        }
        Ok(self.occupy(Some(socket), manner, now))
    }

    /// Takes a slot, of which there has to be one. The daemon never does without a socket.
    pub(super) fn occupy(&mut self, socket: Option<OwnedFd>, manner: Manner, now: Tick) -> u32 {
        let slot = if self.first_free == NONE {
            self.slots.push(Conn::free());
            self.end() - 1
        } else {
            self.first_free
        };
        let conn = &mut self.slots[slot as usize];
        if slot == self.first_free {
            self.first_free = conn.next_free;
        }
        let generation = conn.generation;
        *conn = Conn {
            socket,
            generation,
            phase: if manner.websocket { Phase::Upgrading } else { Phase::Unauthenticated },
            manner,
            heard: now,
            ..Conn::free()
        };
        self.live += 1;
        slot
    }

    /// Whether a client that is in has said nothing for `timeout_ms`.
    pub(crate) fn is_silent(&self, slot: u32, now: Tick, timeout_ms: u32) -> bool {
        self.get(slot).is_some_and(|conn| conn.phase == Phase::Joined && now.since(conn.heard) >= timeout_ms)
    }

    /// Frees the slot and gives the socket back. Whatever refers to the slot has to be gone by now.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<OwnedFd> {
        let first_free = self.first_free;
        let conn = &mut self.slots[slot as usize];
        let socket = conn.socket.take()?;
        let generation = conn.generation.wrapping_add(1);
        *conn = Conn { generation, next_free: first_free, ..Conn::free() };
        self.first_free = slot;
        self.live -= 1;
        Some(socket)
    }

    /// The connection in `slot`, if there is one.
    pub(crate) fn get(&self, slot: u32) -> Option<&Conn> {
        self.slots.get(slot as usize).filter(|conn| conn.phase != Phase::Free)
    }

    /// The connection in `slot` will be read soon.
    pub(crate) fn prefetch(&self, slot: u32) {
        if let Some(conn) = self.slots.get(slot as usize) {
            prefetch(conn);
        }
    }

    /// The connection that was in `slot` when somebody noted `generation`, if it is still there.
    pub(crate) fn get_exact(&self, slot: u32, generation: u32) -> Option<&Conn> {
        self.get(slot).filter(|conn| conn.generation == generation)
    }
}

impl std::ops::Index<u32> for Connections {
    type Output = Conn;

    fn index(&self, slot: u32) -> &Conn {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<u32> for Connections {
    fn index_mut(&mut self, slot: u32) -> &mut Conn {
        &mut self.slots[slot as usize]
    }
}

impl Conn {
    fn free() -> Self {
        Self {
            socket: None,
            generation: 0,
            mid: 0,
            room: NONE,
            room_at: NONE,
            mid_next: NONE,
            mid_previous: NONE,
            accepts: 0,
            heard: Tick::default(),
            input: NONE,
            debt: NONE,
            phase: Phase::Free,
            manner: Manner::new(false),
            platform: 0,
            lane: 0,
            own_key: false,
            confined: false,
            next_free: NONE,
        }
    }
}

/// Spare entries that stay when all are spare. A storm needs many at once, whose memory goes with it.
const KEPT_ENTRIES: usize = 256;

/// Entries that only some connections need, and only for a while. Freed entries are used again, with whatever
/// memory they own.
pub(crate) struct Side<T> {
    entries: Vec<Option<T>>,
    spare: Vec<(u32, T)>,
    /// Spare entries stay, however many, until [`Self::shrink`]: most are soon needed again.
    pub(crate) keeps: bool,
}

impl<T: Default> Side<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), spare: Vec::new(), keeps: false }
    }

    /// A fresh entry, or one given back before.
    pub(crate) fn take(&mut self) -> u32 {
        if let Some((index, entry)) = self.spare.pop() {
            self.entries[index as usize] = Some(entry);
            return index;
        }
        self.entries.push(Some(T::default()));
        self.entries.len() as u32 - 1
    }

    /// Gives `index` back; `entry` is what its next user finds.
    pub(crate) fn give_back(&mut self, index: u32, clean: impl FnOnce(T) -> T) {
        if let Some(entry) = self.entries.get_mut(index as usize).and_then(Option::take) {
            self.spare.push((index, clean(entry)));
            if !self.keeps && self.in_use() == 0 {
                self.shrink();
            }
        }
    }

    /// Forgets all but a few of the entries, if none is in use.
    pub(crate) fn shrink(&mut self) {
        if self.in_use() > 0 || self.entries.len() <= KEPT_ENTRIES {
            return;
        }
        self.entries.truncate(KEPT_ENTRIES);
        self.entries.shrink_to_fit();
        self.spare.retain(|(index, _)| (*index as usize) < KEPT_ENTRIES);
        self.spare.shrink_to_fit();
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// Entries in use among those with these indexes, for a sweep in parts.
    pub(crate) fn part(&self, indexes: Range<usize>) -> impl Iterator<Item = &T> {
        let end = indexes.end.min(self.entries.len());
        self.entries[indexes.start.min(end)..end].iter().flatten()
    }

    /// One past the highest index.
    pub(crate) fn end(&self) -> usize {
        self.entries.len()
    }

    /// Every entry in use, for a sweep.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }

    /// Entries in use.
    pub(crate) fn in_use(&self) -> usize {
        self.entries.len() - self.spare.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()
    }

    const TCP: Manner = Manner { websocket: false, format: Format::Goim };

    #[test]
    fn a_slot_is_used_again_under_another_generation() {
        let mut connections = Connections::with_capacity(2);
        let first = connections.insert(socket(), TCP, Tick::default()).unwrap();
        let generation = connections[first].generation;
        assert!(connections.get_exact(first, generation).is_some());
        assert!(connections.remove(first).is_some());
        assert!(connections.remove(first).is_none(), "a free slot has nothing to give back");
        assert!(connections.get(first).is_none());
        let second = connections.insert(socket(), TCP, Tick::default()).unwrap();
        assert_eq!(second, first);
        assert!(connections.get_exact(first, generation).is_none());
        assert_eq!(connections.live(), 1);
    }

    #[test]
    fn a_full_slab_gives_the_socket_back() {
        let mut connections = Connections::with_capacity(1);
        connections.insert(socket(), TCP, Tick::default()).unwrap();
        assert!(connections.is_full());
        assert!(connections.insert(socket(), TCP, Tick::default()).is_err());
        assert_eq!(connections.live(), 1);
    }

    #[test]
    fn side_entries_keep_their_memory_for_the_next_user() {
        let mut side: Side<Vec<u8>> = Side::new();
        let first = side.take();
        side.get_mut(first).unwrap().extend([1; 100]);
        side.give_back(first, |mut bytes| {
            bytes.clear();
            bytes
        });
        assert!(side.get(first).is_none());
        let again = side.take();
        assert_eq!(again, first);
        assert!(side.get(again).unwrap().is_empty() && side.get(again).unwrap().capacity() >= 100);
        assert_eq!(side.in_use(), 1);
    }

    #[test]
    fn what_a_storm_needed_goes_with_it() {
        let mut side: Side<Vec<u8>> = Side::new();
        let storm: Vec<u32> = (0..10_000).map(|_| side.take()).collect();
        storm.iter().for_each(|index| side.give_back(*index, |bytes| bytes));
        assert!(side.entries.capacity() <= KEPT_ENTRIES && side.spare.capacity() <= KEPT_ENTRIES);
        let again: std::collections::BTreeSet<u32> = (0..1_000).map(|_| side.take()).collect();
        assert_eq!((again.len(), side.in_use()), (1_000, 1_000), "an index each");
    }
}
