//! A sample of the drops, for a person who watches: one record per drop that is told of, through a ring buffer.
//!
//! Records are made only while somebody listens, and at most one per [`GAP_NS`] and CPU, so that a flood costs no more than a
//! look at one word. Each says how many drops of its CPU went by untold before it.

use crate::rules::V6;

/// Bytes of the ring. Full: the record is lost, and the next one says so in `untold`.
pub const RING_BYTES: u32 = 256 * 1024;

/// Least time between two records of one CPU: a hundred a second are more than a person reads.
pub const GAP_NS: u64 = 10_000_000;

/// One drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When, `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Who sent it; IPv4 as `::ffff:a.b.c.d`.
    pub source: V6,
    /// To which address.
    pub destination: V6,
    /// Length of the frame.
    pub bytes: u32,
    /// Number of the [`Reason`](crate::verdict::Reason).
    pub reason: u32,
    /// Drops of this CPU since its last record that were not told of.
    pub untold: u64,
    /// From which port; 0 where none could be read.
    pub source_port: u16,
    /// To which port; 0 where none could be read.
    pub port: u16,
    /// 1: it passed, for the filter only observes.
    pub observed: u8,
    /// The TCP flags, as they stand in the header's byte 13.
    pub tcp_flags: u8,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Event>() == 64);

/// What one CPU remembers between its records.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// When it last told.
    pub last_ns: u64,
    /// Drops since.
    pub untold: u64,
}

const _: () = assert!(size_of::<Telling>() == 16);
