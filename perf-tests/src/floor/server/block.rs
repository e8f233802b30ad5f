//! The bytes of a round: packets one after another, numbered and stamped.

use wire::goim::Header;

use super::OPERATION;
use crate::load::stamp::{STAMP_BYTES, Stamp, monotonic_ns};

/// Counts the messages of one run.
pub(super) struct Packets {
    run: u32,
    body: Vec<u8>,
    next: u32,
}

impl Packets {
    /// Bodies of `body_bytes`, at least a stamp.
    pub(super) fn new(run: u32, body_bytes: usize) -> Self {
        Self { run, body: vec![b'.'; body_bytes.max(STAMP_BYTES)], next: 0 }
    }

    /// The next `count` messages. The last is stamped with this moment, each before it `apart_ns` earlier, as if they had
    /// waited for it.
    pub(super) fn block(&mut self, count: u32, apart_ns: u64) -> Vec<u8> {
        let header = Header { version: 1, operation: OPERATION, sequence: 0 };
        let mut block = Vec::with_capacity(count as usize * (header.encode(0).len() + self.body.len()));
        let now_ns = monotonic_ns();
        for left in (0..count).rev() {
            let sent_ns = now_ns.saturating_sub(u64::from(left) * apart_ns);
            Stamp { run: self.run, room: 0, phase: 0, number: u64::from(self.next), sent_ns }.write(&mut self.body);
            header.put_packet(&self.body, &mut block);
            self.next += 1;
        }
        block
    }

    /// Messages so far.
    pub(super) fn numbered(&self) -> u32 {
        self.next
    }
}
