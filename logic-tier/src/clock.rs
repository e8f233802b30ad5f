//! The wall clock, for times that leave the process: on disk, and shown to others.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970. A clock before that only makes things look old.
pub(crate) fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
