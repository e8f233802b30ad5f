//! Memory for blocks that is used again, without an allocation per block.
//!
//! A buffer is lent as `Bytes` and the pool keeps a handle of its own on the same memory. When that handle is the only
//! one left, everybody has sent what was in it, and the buffer is free: `bytes` gives the memory back to whoever is
//! alone with it, without a copy and without a new control block. (`Bytes::from_owner`, which lends the buffers of
//! other pools, allocates one for each block.)
//!
//! Buffers come in sizes of powers of two, so what a slow client owes pins at most twice its bytes.
//!
//! Short blocks for a few receivers are lent parts of one buffer: thousands of them a second would each touch memory that
//! has not been looked at for long. Whoever keeps a part for longer keeps a copy of it, or it would pin all of the buffer.
//!
//! It belongs to one shard; nothing here is atomic but the counts inside `bytes`.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The smallest buffer, as a power of two: 256 bytes.
const MIN_SIZE_LOG2: u32 = 8;

/// The largest buffer that is kept, as a power of two: 256 KiB. What is larger is allocated and freed.
const MAX_SIZE_LOG2: u32 = 18;

const SIZES: usize = (MAX_SIZE_LOG2 - MIN_SIZE_LOG2 + 1) as usize;

/// Buffers of one size that are looked at, oldest first, before a new one is made: those of slow clients may stand in
/// front of free ones.
const LOOKS: usize = 4;

/// All buffers that the pool has handles on, lent ones included, hold at most this. Beyond it, the oldest of a size is
/// let go: it is freed when it has been sent.
const KEPT_BYTES: usize = 2 << 20;

/// The size of a buffer that is lent in parts, as a power of two: 16 KiB.
const SHARED_SIZE_LOG2: u32 = 14;

/// The longest part of one.
const MAX_PART_BYTES: usize = 512;

/// Buffers by size.
pub(crate) struct Buffers {
    /// By the power of two of their size. The longest lent stands in front.
    sizes: [VecDeque<Bytes>; SIZES],
    /// Bytes of all of them. Invariant: at most [`KEPT_BYTES`].
    kept_bytes: usize,
    /// What is left of the buffer that is being lent in parts.
    open: BytesMut,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self { sizes: [const { VecDeque::new() }; SIZES], kept_bytes: 0, open: BytesMut::new() }
    }

    /// Lends a buffer that `fill`, which finds it empty, has put at most `bytes` into.
    pub(crate) fn lend(&mut self, bytes: usize, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
        let Some(size) = size_of(bytes) else {
            let mut buffer = BytesMut::with_capacity(bytes);
            fill(&mut buffer);
            return buffer.freeze();
        };
        let mut buffer = self.take(size);
        fill(&mut buffer);
        let lent = buffer.freeze();
        self.keep(size, lent.clone());
        lent
    }

    /// Lends as [`Self::lend`] does, but if `bytes` are few, a part of a buffer that others have parts of.
    pub(crate) fn lend_part(&mut self, bytes: usize, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
        if bytes > MAX_PART_BYTES {
            return self.lend(bytes, fill);
        }
        let size = (SHARED_SIZE_LOG2 - MIN_SIZE_LOG2) as usize;
        let is_first = self.open.capacity() < bytes;
        if is_first {
            self.open = self.take(size);
        }
        fill(&mut self.open);
        let part = self.open.split().freeze();
        if is_first {
            // Alone with the memory, the first part's handle gives all of it back.
            self.keep(size, part.clone());
        }
        part
    }

    /// An empty buffer: one that nobody else has a handle on, or a new one.
    fn take(&mut self, size: usize) -> BytesMut {
        let buffers = &mut self.sizes[size];
        for _ in 0..LOOKS.min(buffers.len()) {
            let Some(oldest) = buffers.pop_front() else { break };
            match oldest.try_into_mut() {
                Ok(mut buffer) => {
                    self.kept_bytes -= bytes_of(size);
                    buffer.clear();
                    return buffer;
                }
                Err(lent) => buffers.push_back(lent),
            }
        }
        let mut fresh = BytesMut::with_capacity(bytes_of(size));
        // Makes the control block that handles share, which stays with the memory from now on.
        drop(fresh.split());
        fresh
    }

    fn keep(&mut self, size: usize, buffer: Bytes) {
        let buffers = &mut self.sizes[size];
        buffers.push_back(buffer);
        self.kept_bytes += bytes_of(size);
        if self.kept_bytes > KEPT_BYTES {
            // Not empty: it was pushed above.
            buffers.pop_front();
            self.kept_bytes -= bytes_of(size);
        }
    }
}

/// The place of the smallest size that holds `bytes`; `None` when it is not kept.
fn size_of(bytes: usize) -> Option<usize> {
    let log2 = bytes.next_power_of_two().ilog2().max(MIN_SIZE_LOG2);
    (log2 <= MAX_SIZE_LOG2).then_some((log2 - MIN_SIZE_LOG2) as usize)
}

fn bytes_of(size: usize) -> usize {
    1 << (MIN_SIZE_LOG2 + size as u32)
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn lend(buffers: &mut Buffers, bytes: usize) -> Bytes {
        buffers.lend(bytes, |buffer| buffer.put_bytes(7, bytes))
    }

    #[test]
    fn memory_is_lent_again_when_the_last_handle_is_gone_and_not_before() {
        let mut buffers = Buffers::new();
        let first = lend(&mut buffers, 100);
        let (at, rest) = (first.as_ptr(), first.slice(60..));
        drop(first);
        let second = lend(&mut buffers, 100);
        assert_ne!(second.as_ptr(), at, "somebody still holds a part of it");
        assert_eq!(rest[..], [7; 40]);
        drop(rest);
        let third = lend(&mut buffers, 200);
        assert_eq!((third.as_ptr(), third.len()), (at, 200), "of the same size, and alone");
    }

    #[test]
    fn a_short_block_pins_a_short_buffer() {
        let mut buffers = Buffers::new();
        drop(lend(&mut buffers, 60_000));
        let long = lend(&mut buffers, 60_000).as_ptr_range();
        let short = lend(&mut buffers, 60);
        assert!(!long.contains(&short.as_ptr()), "it took the long one");
    }

    #[test]
    fn parts_are_of_one_buffer_which_is_lent_again_when_all_are_gone() {
        let mut buffers = Buffers::new();
        let part = |buffers: &mut Buffers| buffers.lend_part(100, |buffer| buffer.put_bytes(7, 100));
        let in_one = (1 << SHARED_SIZE_LOG2) / 100;
        let mut parts: Vec<Bytes> = (0..in_one).map(|_| part(&mut buffers)).collect();
        let first = parts[0].as_ptr();
        assert!(parts.iter().zip(0..).all(|(part, index)| part.as_ptr() == first.wrapping_add(100 * index)));
        assert!(parts.iter().all(|part| part[..] == [7; 100]));
        let held = parts.split_off(in_one - 1);
        drop(parts);
        let others: Vec<Bytes> = (0..in_one).map(|_| part(&mut buffers)).collect();
        assert_ne!(others[0].as_ptr(), first, "somebody still holds a part");
        drop(held);
        assert_eq!(part(&mut buffers).as_ptr(), first);
        assert_eq!(buffers.kept_bytes, 2 << SHARED_SIZE_LOG2);
        assert_eq!(buffers.lend_part(1_000, |buffer| buffer.put_bytes(7, 1_000)).len(), 1_000, "too long for a part");
        drop(others);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_lent_outlives_it() {
        let mut buffers = Buffers::new();
        let lent: Vec<_> = (0..100).map(|_| lend(&mut buffers, 64 << 10)).collect();
        assert!(buffers.kept_bytes <= KEPT_BYTES);
        assert_eq!(buffers.sizes.iter().map(VecDeque::len).sum::<usize>() * (64 << 10), buffers.kept_bytes);
        drop(buffers);
        assert!(lent.iter().all(|bytes| bytes[..] == [7; 64 << 10]));
    }

    #[test]
    fn sizes_fit() {
        for (bytes, expected) in [(0, 256), (256, 256), (257, 512), (256 << 10, 256 << 10)] {
            assert_eq!(size_of(bytes).map(bytes_of), Some(expected), "{bytes}");
        }
        assert_eq!(size_of((256 << 10) + 1), None);
        let mut buffers = Buffers::new();
        assert_eq!(lend(&mut buffers, 1 << 20).len(), 1 << 20);
        assert_eq!(buffers.kept_bytes, 0, "too long to be kept");
    }
}
