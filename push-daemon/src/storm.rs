//! Tells when a storm of clients is over.
//!
//! What a thousand clients need at once while they come in (questions to admission, answers, queues) is free again when
//! they are in, but the allocator keeps it. After a storm it is given back; see [`crate::sys::give_heap_back`].

/// Clients of a storm at the least. Fewer leave nothing behind that is worth the allocator's time.
const STORM_CLIENTS: u64 = 1_000;

/// Tells when many clients have come and no more do.
#[derive(Default)]
pub(crate) struct Storm {
    /// Clients accepted when the last storm was over, and at the last look.
    before: u64,
    last: u64,
}

impl Storm {
    /// Whether a storm has ended since the last look. `accepted` are the clients of the edge's whole life.
    pub(crate) fn is_over(&mut self, accepted: u64) -> bool {
        let calm = accepted - self.last < STORM_CLIENTS / 10;
        self.last = accepted;
        let over = calm && accepted - self.before >= STORM_CLIENTS;
        if over {
            self.before = accepted;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_over_once_when_it_has_calmed_down() {
        let mut storm = Storm::default();
        // Clients accepted by each look, and whether a storm is over by then.
        let rows = [
            (0, false),
            (600, false),
            (1_400, false),
            (1_410, true),
            (1_420, false),
            (1_500, false),
            (1_510, false),
            (9_000, false),
            (9_000, true),
            (9_000, false),
        ];
        for (look, (accepted, over)) in rows.into_iter().enumerate() {
            assert_eq!(storm.is_over(accepted), over, "look {look}");
        }
    }
}
