//! How far a client has read that does not read all that comes at once.
//!
//! What stands behind that is what the buffer of a kernel's socket would hold: it is acknowledged, and there is room for
//! so much and no more. (The program takes it at once nevertheless. It has nowhere to keep it.)

/// See the module. A client's `sent_ns` holds it while it reads at a rate: nobody times the messages of such a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The first byte that was not read at `at_ms`.
    next: u32,
    /// Then, on the clock that never jumps, its low 32 bits.
    at_ms: u32,
}

/// Less room than this is not offered, unless it is half of all: the largest segment without TCP's options.
const WORTH_OFFERING: u32 = 1460;

impl Reading {
    /// As it is kept.
    #[inline(always)]
    #[must_use]
    pub const fn of(word: u64) -> Self {
        Self { next: (word >> 32) as u32, at_ms: word as u32 }
    }

    /// For keeping.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        (self.next as u64) << 32 | self.at_ms as u64
    }

    /// As it stands at `now_ms` when everything before `next_in` has come, at so many bytes a second. Who has read
    /// everything begins anew with what comes next; so does who has more to read than there is `room` for, because that is
    /// what this word shows when it held something else before.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, next_in: u32, now_ms: u32, bytes_per_second: u32, room: u32) -> Self {
        let unread = next_in.wrapping_sub(self.next);
        if unread > room || self.may_read(now_ms, bytes_per_second) >= unread as u64 {
            Self { next: next_in, at_ms: now_ms }
        } else {
            self
        }
    }

    /// How many bytes of the room are free. To be asked of what [`Reading::at`] gives.
    #[inline(always)]
    #[must_use]
    pub const fn free(self, next_in: u32, now_ms: u32, bytes_per_second: u32, room: u32) -> u32 {
        let unread = next_in.wrapping_sub(self.next) as u64;
        let read = self.may_read(now_ms, bytes_per_second);
        let unread = if read < unread { (unread - read) as u32 } else { 0 };
        room.saturating_sub(unread)
    }

    #[inline(always)]
    const fn may_read(self, now_ms: u32, bytes_per_second: u32) -> u64 {
        now_ms.wrapping_sub(self.at_ms) as u64 * bytes_per_second as u64 / 1000
    }
}

/// The window to offer when so much of the room is free: not a silly one (RFC 9293, 3.8.6.2.2).
#[inline(always)]
#[must_use]
pub const fn window(free: u32, room: u32) -> u16 {
    let least = if room / 2 < WORTH_OFFERING { room / 2 } else { WORTH_OFFERING };
    let offered = if free < least { 0 } else { free };
    if offered < u16::MAX as u32 { offered as u16 } else { u16::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u32 = 8192;

    #[test]
    fn room_fills_with_what_comes_and_is_freed_by_what_is_read() {
        // From a word that held something else, across the end of the numbers, and of the clock.
        let (from, began_ms) = (u32::MAX - 1000, u32::MAX - 400);
        let reading = Reading::of(0x1234_5678_9abc_def0).at(from, began_ms, 1000, ROOM);
        for (name, came, after_ms, free) in [
            ("nothing came", 0, 0, ROOM),
            ("it came at once", 5000, 0, ROOM - 5000),
            ("half a second later", 5000, 500, ROOM - 4500),
            ("four seconds later", 5000, 4000, ROOM - 1000),
            ("after all was read", 5000, 5000, ROOM),
            ("and much later", 5000, 3_600_000, ROOM),
            ("all full", ROOM, 0, 0),
        ] {
            let (next_in, now_ms) = (from.wrapping_add(came), began_ms.wrapping_add(after_ms));
            let kept = Reading::of(reading.at(next_in, now_ms, 1000, ROOM).word());
            assert_eq!(kept.free(next_in, now_ms, 1000, ROOM), free, "{name}");
        }
    }

    #[test]
    fn who_waited_has_no_credit_and_who_reads_nothing_frees_nothing() {
        let reading = Reading { next: 100, at_ms: 0 };
        let later = reading.at(100, 60_000, 1000, ROOM);
        assert_eq!(later.free(5100, 60_000, 1000, ROOM), ROOM - 5000);
        let stopped = reading.at(5100, 60_000, 0, ROOM);
        assert_eq!(stopped.free(5100, 60_000, 0, ROOM), ROOM - 5000);
    }

    #[test]
    fn no_silly_window_is_offered() {
        for (free, room, offered) in
            [(ROOM, ROOM, 8192), (1460, ROOM, 1460), (1459, ROOM, 0), (0, ROOM, 0), (500, 1000, 500), (499, 1000, 0)]
        {
            assert_eq!(window(free, room), offered, "{free} of {room}");
        }
        assert_eq!(window(70_000, 80_000), u16::MAX);
    }
}
