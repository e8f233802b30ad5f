//! Names that many sessions share, each kept once: rooms with their counts, and platforms.

use std::collections::HashMap;
use std::sync::Arc;

use wire::trunk::RoomCount;

/// Platforms told apart. Clients choose the text, so the list has an end; the rest share one name.
const MAX_PLATFORMS: usize = 256;

/// Longest name of a platform, in bytes.
const MAX_PLATFORM_BYTES: usize = 32;

/// What a platform beyond the list, or with too long a name, is called.
const OTHER_PLATFORM: &str = "other";

/// Rooms that have people, and rooms whose last one left a moment ago. Bounded by the sessions.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    numbers: HashMap<Arc<str>, u32>,
    /// By number. A free one has an empty name.
    slots: Vec<Room>,
    free: Vec<u32>,
    changed: Vec<u32>,
    occupied: usize,
}

#[derive(Debug)]
struct Room {
    name: Arc<str>,
    online: u32,
    /// It is in `changed`, and stays in its slot until that was said.
    is_changed: bool,
}

impl Rooms {
    /// One more in `name`, which becomes a room if it is none yet.
    pub(super) fn enter(&mut self, name: &str) -> u32 {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.add(name),
        };
        let room = &mut self.slots[number as usize];
        if room.online == 0 {
            self.occupied += 1;
        }
        room.online += 1;
        self.mark(number);
        number
    }

    /// One less in `number`.
    pub(super) fn leave(&mut self, number: u32) {
        let room = &mut self.slots[number as usize];
        room.online -= 1;
        if room.online == 0 {
            self.occupied -= 1;
        }
        self.mark(number);
    }

    pub(super) fn name(&self, number: u32) -> &str {
        &self.slots[number as usize].name
    }

    pub(super) fn online(&self, name: &str) -> u32 {
        self.numbers.get(name).map_or(0, |number| self.slots[*number as usize].online)
    }

    pub(super) fn occupied(&self) -> usize {
        self.occupied
    }

    pub(super) fn top(&self, kind: &str, limit: usize) -> Vec<(String, u32)> {
        let mut rooms: Vec<(&str, u32)> = self
            .slots
            .iter()
            .filter(|room| room.online > 0)
            .filter_map(|room| Some((room.name.split_once("://")?, room.online)))
            .filter(|((room_kind, _), _)| *room_kind == kind)
            .map(|((_, id), online)| (id, online))
            .collect();
        let order = |a: &(&str, u32), b: &(&str, u32)| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0));
        if limit < rooms.len() && limit > 0 {
            rooms.select_nth_unstable_by(limit - 1, order);
        }
        rooms.truncate(limit);
        rooms.sort_unstable_by(order);
        rooms.into_iter().map(|(id, online)| (id.to_owned(), online)).collect()
    }

    pub(super) fn take_changed(&mut self) -> Vec<RoomCount> {
        let changed = std::mem::take(&mut self.changed);
        let mut counts = Vec::with_capacity(changed.len());
        for number in changed {
            let room = &mut self.slots[number as usize];
            room.is_changed = false;
            counts.push(RoomCount { room: room.name.to_string(), online: room.online });
            if room.online == 0 {
                self.numbers.remove(&room.name);
                room.name = "".into();
                self.free.push(number);
            }
        }
        counts
    }

    pub(super) fn all(&self) -> Vec<RoomCount> {
        let occupied = self.slots.iter().filter(|room| room.online > 0);
        occupied.map(|room| RoomCount { room: room.name.to_string(), online: room.online }).collect()
    }

    fn add(&mut self, name: &str) -> u32 {
        let room = Room { name: name.into(), online: 0, is_changed: false };
        let name = room.name.clone();
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = room;
                number
            }
            None => {
                self.slots.push(room);
                (self.slots.len() - 1) as u32
            }
        };
        self.numbers.insert(name, number);
        number
    }

    fn mark(&mut self, number: u32) {
        let room = &mut self.slots[number as usize];
        if !room.is_changed {
            room.is_changed = true;
            self.changed.push(number);
        }
    }
}

/// The first [`MAX_PLATFORMS`] platforms that came.
#[derive(Debug)]
pub(super) struct Platforms {
    numbers: HashMap<Arc<str>, u16>,
    names: Vec<Arc<str>>,
}

impl Default for Platforms {
    fn default() -> Self {
        Self { numbers: HashMap::new(), names: vec![OTHER_PLATFORM.into()] }
    }
}

impl Platforms {
    pub(super) fn number(&mut self, name: &str) -> u16 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        if name.len() > MAX_PLATFORM_BYTES || self.names.len() > MAX_PLATFORMS {
            return 0;
        }
        let number = self.names.len() as u16;
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        number
    }

    pub(super) fn name(&self, number: u16) -> &str {
        self.names.get(usize::from(number)).map_or(OTHER_PLATFORM, |name| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_only_after_its_emptiness_was_said() {
        let mut rooms = Rooms::default();
        let first = rooms.enter("live://1");
        rooms.leave(first);
        let second = rooms.enter("live://2");
        assert_ne!(first, second);
        let said = rooms.take_changed();
        assert_eq!(said.iter().map(|count| count.online).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(rooms.enter("live://3"), first);
        assert_eq!(rooms.online("live://1"), 0);
    }

    #[test]
    fn clients_cannot_fill_the_list_of_platforms() {
        let mut platforms = Platforms::default();
        for number in 0..2 * MAX_PLATFORMS {
            platforms.number(&number.to_string());
        }
        assert_eq!(platforms.names.len(), MAX_PLATFORMS + 1);
        let web = platforms.number("0");
        assert_eq!(platforms.name(web), "0");
        let long = platforms.number(&"x".repeat(MAX_PLATFORM_BYTES + 1));
        assert_eq!(platforms.name(long), OTHER_PLATFORM);
    }
}
