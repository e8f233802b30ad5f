//! How far the numbers of each stream have gone: the publisher writes it, an engine reads it.
//!
//! It is what brackets a client that comes or goes in the middle of a phase. A message whose request began after the
//! client had read its grant is owed to it; one that had begun before may have missed it, and nobody outside can tell.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// See the module. One publisher writes a stream at a time.
#[derive(Debug)]
pub struct Numbers {
    /// One past the highest number that a request was begun with.
    begun: Vec<AtomicU32>,
    /// Messages accepted: also the stream's next number. accepted <= begun, except for a reader between two writes.
    accepted: Vec<AtomicU32>,
    accepted_sum: AtomicU64,
}

impl Numbers {
    /// For `streams` streams of which nothing was published.
    #[must_use]
    pub fn new(streams: u32) -> Self {
        let zeros = || (0..streams).map(|_| AtomicU32::new(0)).collect();
        Self { begun: zeros(), accepted: zeros(), accepted_sum: AtomicU64::new(0) }
    }

    /// The number of the stream's next message, whose request is about to be sent.
    pub fn begin(&self, stream: u32) -> u32 {
        let number = self.accepted[stream as usize].load(Ordering::Acquire);
        // Sequentially consistent, as is the read: who reads the old value has done so before the request was sent.
        self.begun[stream as usize].store(number + 1, Ordering::SeqCst);
        number
    }

    /// The message begun last was accepted. One that was refused gives its number back by not coming here.
    pub fn accept(&self, stream: u32) {
        self.accepted[stream as usize].fetch_add(1, Ordering::AcqRel);
        self.accepted_sum.fetch_add(1, Ordering::Relaxed);
    }

    /// One past the highest number that may have been sent.
    #[must_use]
    pub fn begun(&self, stream: u32) -> u32 {
        self.begun[stream as usize].load(Ordering::SeqCst)
    }

    /// Messages accepted in all streams.
    #[must_use]
    pub fn accepted_sum(&self) -> u64 {
        self.accepted_sum.load(Ordering::Relaxed)
    }

    /// Messages accepted, by stream.
    #[must_use]
    pub fn accepted(&self) -> Vec<u32> {
        self.accepted.iter().map(|accepted| accepted.load(Ordering::Acquire)).collect()
    }
}
