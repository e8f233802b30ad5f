//! The shard's coarse time: milliseconds since the process began, in 32 bits that wrap.
//!
//! Nothing here reads a clock: the loop does that once per turn and passes `now` on.

/// A moment. Differences are right as long as they are below 24 days; the longest time-out is far below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tick(pub(crate) u32);

impl Tick {
    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> u32 {
        let difference = self.0.wrapping_sub(earlier.0);
        if difference > u32::MAX / 2 { 0 } else { difference }
    }

    /// The moment `ms` from here.
    pub(crate) fn after(self, ms: u32) -> Self {
        Self(self.0.wrapping_add(ms))
    }

    /// Whether this moment has come by `now`.
    pub(crate) fn is_due(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) <= u32::MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use super::Tick;

    #[test]
    fn differences_survive_the_wrap() {
        let before = Tick(u32::MAX - 9);
        let after = before.after(30);
        assert_eq!(after, Tick(20));
        assert_eq!(after.since(before), 30);
        assert_eq!(before.since(after), 0);
        assert!(before.is_due(after) && !after.is_due(before) && after.is_due(after));
    }
}
