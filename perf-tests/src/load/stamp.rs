//! The body of a measured message: who published it, which one it is, and when.
//!
//! | offset | 0 | 4 | 8 | 12 | 16 | 24 | 32 |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | field | magic `PUT1` | run u32 | room u32 | phase u32 | number u64 | `CLOCK_MONOTONIC` ns u64 | filling |
//!
//! Big-endian, at fixed offsets, so that an engine in the kernel can read it too. The clock is one host's: delays are
//! only meaningful when publisher and clients run on the same one.

use rustix::time::{ClockId, clock_gettime};

/// Length of the stamp, and the least that a measured message can have.
pub const STAMP_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"PUT1";

/// What a measured message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Tells the messages of one run from those of another; never 0.
    pub run: u32,
    /// Index of the stream it was published to: the room, or the group of clients that share a request.
    pub room: u32,
    /// Which phase of the run it belongs to, from 0.
    pub phase: u32,
    /// Counts up by one per stream and phase, from 0.
    pub number: u64,
    /// When its publisher began the request.
    pub sent_ns: u64,
}

impl Stamp {
    /// Writes the stamp over the start of `body`, which has at least [`STAMP_BYTES`].
    pub fn write(&self, body: &mut [u8]) {
        body[0..4].copy_from_slice(&MAGIC);
        body[4..8].copy_from_slice(&self.run.to_be_bytes());
        body[8..12].copy_from_slice(&self.room.to_be_bytes());
        body[12..16].copy_from_slice(&self.phase.to_be_bytes());
        body[16..24].copy_from_slice(&self.number.to_be_bytes());
        body[24..32].copy_from_slice(&self.sent_ns.to_be_bytes());
    }

    /// The stamp at the start of `body`; `None` when the message is not one of ours.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let (head, _) = body.split_first_chunk::<STAMP_BYTES>()?;
        if head[0..4] != MAGIC {
            return None;
        }
        let half = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let whole = |at: usize| u64::from(half(at)) << 32 | u64::from(half(at + 4));
        Some(Self { run: half(4), room: half(8), phase: half(12), number: whole(16), sent_ns: whole(24) })
    }
}

/// The clock that stamps are made by, in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The kernel's monotonic clock starts at boot and is never negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_and_nothing_else_does() {
        let stamp = Stamp { run: 7, room: 3, phase: 9, number: u64::MAX - 1, sent_ns: 0x0102_0304_0506_0708 };
        let mut body = [0xff; 40];
        stamp.write(&mut body);
        assert_eq!(Stamp::read(&body), Some(stamp));
        assert_eq!(body[32..], [0xff; 8]);
        assert_eq!(Stamp::read(&body[..31]), None);
        body[0] = b'x';
        assert_eq!(Stamp::read(&body), None);
    }
}
