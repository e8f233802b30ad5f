//! When each message reached the last of its receivers.
//!
//! Each thread notes per room and number the latest of its clients; the notes of all threads are merged in the end. A
//! message costs 16 bytes a thread and a receiver a comparison. No clock, no I/O.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use super::engine::histogram;

/// Messages noted per thread, over all rooms: 16 MiB. Those beyond are counted, not timed.
const MAX_NOTES: usize = 1 << 20;

/// One message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Note {
    sent_ns: u64,
    /// When the last client had it; 0 when none has.
    last_ns: u64,
}

/// The messages of one room, from the lowest number that was heard to the highest.
#[derive(Debug, Clone, Default)]
struct Room {
    first: u32,
    notes: VecDeque<Note>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Broadcasts {
    /// As many as the highest that was heard of.
    rooms: Vec<Room>,
    /// Notes in all rooms. At most [`MAX_NOTES`].
    noted: usize,
    /// Receipts of messages that have no note for want of room.
    unnoted: u64,
    /// The latest of all.
    until_ns: u64,
}

impl Broadcasts {
    /// Notes that somebody in `room`, which is one that exists, heard message `number` at `now_ns`.
    pub fn note(&mut self, room: u32, number: u32, sent_ns: u64, now_ns: u64) {
        self.until_ns = self.until_ns.max(now_ns);
        match self.place(room as usize, number) {
            Some(note) => *note = Note { sent_ns, last_ns: note.last_ns.max(now_ns) },
            None => self.unnoted += 1,
        }
    }

    /// Where `number` is noted, made when there is room for it.
    fn place(&mut self, room: usize, number: u32) -> Option<&mut Note> {
        if room >= self.rooms.len() {
            self.rooms.resize(room + 1, Room::default());
        }
        let Room { first, notes } = &mut self.rooms[room];
        if notes.is_empty() {
            *first = number;
        }
        // One client may have come in later than another, which is heard of afterwards.
        let below = first.saturating_sub(number) as usize;
        let above = (number.saturating_sub(*first) as usize + 1).saturating_sub(notes.len());
        if below + above > MAX_NOTES - self.noted {
            return None;
        }
        self.noted += below + above;
        for _ in 0..below {
            notes.push_front(Note::default());
        }
        *first -= below as u32;
        notes.resize(notes.len() + above, Note::default());
        notes.get_mut((number - *first) as usize)
    }

    /// Takes over what another thread noted.
    pub fn merge(&mut self, other: &Self) {
        self.unnoted += other.unnoted;
        for (index, theirs) in other.rooms.iter().enumerate() {
            for (number, note) in (theirs.first..).zip(&theirs.notes).filter(|(_, note)| note.last_ns > 0) {
                self.note(index as u32, number, note.sent_ns, note.last_ns);
            }
        }
        self.until_ns = self.until_ns.max(other.until_ns);
    }

    /// When the last message of all was heard; 0 when none was.
    #[must_use]
    pub fn until_ns(&self) -> u64 {
        self.until_ns
    }

    /// Receipts that could not be noted.
    #[must_use]
    pub fn unnoted(&self) -> u64 {
        self.unnoted
    }

    /// From each message's stamp to the last of its receivers, in microseconds.
    #[must_use]
    pub fn last_receiver_us(&self) -> Histogram<u64> {
        let mut times = histogram();
        let notes = self.rooms.iter().flat_map(|room| &room.notes).filter(|note| note.last_ns > 0);
        for note in notes {
            times.saturating_record((note.last_ns.saturating_sub(note.sent_ns) / 1000).max(1));
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_receiver_over_all_threads_counts() {
        let (mut one, mut other) = (Broadcasts::default(), Broadcasts::default());
        one.note(0, 7, 1_000_000, 5_000_000);
        one.note(0, 7, 1_000_000, 3_000_000);
        one.note(1, 0, 1_000_000, 2_000_000);
        other.note(0, 8, 2_000_000, 4_000_000);
        other.note(0, 7, 1_000_000, 9_000_000);
        one.merge(&other);
        let times = one.last_receiver_us();
        let longest: Vec<u64> = times.iter_recorded().map(|value| value.value_iterated_to()).collect();
        assert_eq!((times.len(), longest), (3, vec![1000, 2000, times.highest_equivalent(8000)]));
        assert_eq!((one.until_ns(), one.unnoted()), (9_000_000, 0));
    }

    #[test]
    fn a_number_far_ahead_takes_no_memory() {
        let mut broadcasts = Broadcasts::default();
        for number in [u32::MAX - 9, 3, u32::MAX - 1, 4, u32::MAX - 10] {
            broadcasts.note(0, number, 0, 1000);
        }
        assert_eq!((broadcasts.last_receiver_us().len(), broadcasts.unnoted(), broadcasts.noted), (3, 2, 10));
    }
}
