//! Frames that are ready for lines at the tail of a partition: the newest ones, contiguous, bounded in bytes.
//!
//! No I/O: a line that finds itself behind the oldest of them reads the bus itself.

use std::collections::VecDeque;

use super::merge::Frame;

/// What a line at `cursor` does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send this; it holds the position behind the cursor, and maybe some before it, which the arbiter skips.
    Frame(Frame),
    /// There is nothing newer.
    CaughtUp,
    /// The frame is no longer here; read the bus.
    Behind,
}

/// The newest frames of a partition.
#[derive(Debug)]
pub struct Ready {
    frames: VecDeque<Frame>,
    /// The position before the first frame; the position of everything when there is none.
    start: u64,
    /// The position of the last frame.
    end: u64,
    bytes: usize,
    /// The newest frame stays however long it is.
    max_bytes: usize,
}

impl Ready {
    /// Nothing is ready, and the next frame is the one behind `start`.
    #[must_use]
    pub fn new(start: u64, max_bytes: usize) -> Self {
        Self { frames: VecDeque::new(), start, end: start, bytes: 0, max_bytes }
    }

    /// The position of the newest frame.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds the newest frame. One that does not join on (the bus trimmed what lay between) drops the older ones.
    pub fn push(&mut self, frame: Frame) {
        if frame.previous != self.end {
            self.frames.clear();
            self.bytes = 0;
            self.start = frame.previous;
        }
        self.end = frame.last;
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        while self.bytes > self.max_bytes && self.frames.len() > 1 {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.bytes.len();
            self.start = oldest.last;
        }
    }

    /// What a line at `cursor` sends next.
    #[must_use]
    pub fn next(&self, cursor: u64) -> Next {
        if cursor >= self.end {
            return Next::CaughtUp;
        }
        if cursor < self.start {
            return Next::Behind;
        }
        let at = self.frames.partition_point(|frame| frame.last <= cursor);
        self.frames.get(at).map_or(Next::CaughtUp, |frame| Next::Frame(frame.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(previous: u64, last: u64) -> Frame {
        Frame { previous, last, packets: (last - previous) as usize, bytes: Bytes::from_static(&[0; 10]) }
    }

    #[test]
    fn a_line_gets_the_frame_that_holds_its_next_position() {
        let mut ready = Ready::new(4, 100);
        assert_eq!(ready.next(4), Next::CaughtUp);
        assert_eq!(ready.next(3), Next::Behind);
        ready.push(frame(4, 7));
        ready.push(frame(7, 8));
        for (cursor, next) in [
            (3, Next::Behind),
            (4, Next::Frame(frame(4, 7))),
            (6, Next::Frame(frame(4, 7))),
            (7, Next::Frame(frame(7, 8))),
            (8, Next::CaughtUp),
            (9, Next::CaughtUp),
        ] {
            assert_eq!(ready.next(cursor), next, "at {cursor}");
        }
    }

    #[test]
    fn old_frames_go_when_there_are_too_many_bytes() {
        let mut ready = Ready::new(0, 20);
        for last in 1..=4 {
            ready.push(frame(last - 1, last));
        }
        assert_eq!(ready.next(1), Next::Behind);
        assert_eq!(ready.next(2), Next::Frame(frame(2, 3)));
        let mut ready = Ready::new(0, 5);
        ready.push(frame(0, 3));
        assert_eq!(ready.next(0), Next::Frame(frame(0, 3)), "one frame over the bound stays");
    }

    #[test]
    fn a_hole_sends_lines_before_it_to_the_bus() {
        let mut ready = Ready::new(0, 100);
        ready.push(frame(0, 1));
        ready.push(frame(5, 6));
        assert_eq!(ready.next(1), Next::Behind);
        assert_eq!(ready.next(5), Next::Frame(frame(5, 6)));
    }
}
