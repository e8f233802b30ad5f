//! Who is picked for an order: spread evenly, the same in every run, and going on where the last order ended.

use crate::load::target::stride;

/// Visits the slots of a thread, or of an engine, in leaps, and goes on where it was.
#[derive(Debug)]
pub(in crate::load::engine) struct Picker {
    slots: u64,
    stride: u64,
    at: u64,
}

impl Picker {
    pub(in crate::load::engine) fn new(slots: usize) -> Self {
        let slots = slots as u64;
        Self { slots, stride: if slots > 0 { stride(slots) } else { 1 }, at: 0 }
    }

    /// The next slot. `slots` calls visit each once; there has to be one.
    pub(in crate::load::engine) fn next(&mut self) -> usize {
        let slot = self.at;
        self.at = (self.at + self.stride) % self.slots;
        slot as usize
    }
}

/// How many of the clients `first..first + count` are in a share of all: rounded so that the parts of all threads add up
/// to the share of all, to the nearest client.
pub(super) fn part_of_share(first: u64, count: u64, share: f64) -> u64 {
    let upto = |clients: u64| (clients as f64 * share.clamp(0.0, 1.0) + 0.5) as u64;
    upto(first + count) - upto(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_share_add_up() {
        for (clients, share, wanted) in
            [(1000, 0.01, 10), (999, 0.5, 500), (7, 0.0, 0), (7, 1.0, 7), (1_000_000, 0.123_456, 123_456), (3, 0.1, 0)]
        {
            for threads in [1, 2, 53] {
                let bounds: Vec<u64> = (0..=threads).map(|thread| clients * thread / threads).collect();
                let parts = bounds.windows(2).map(|pair| part_of_share(pair[0], pair[1] - pair[0], share));
                assert_eq!(parts.sum::<u64>(), wanted, "{share} of {clients} on {threads} threads");
            }
        }
    }

    #[test]
    fn a_picker_visits_everybody_and_goes_on_where_it_was() {
        let mut picker = Picker::new(10);
        let mut visited: Vec<usize> = (0..4).chain(4..10).map(|_| picker.next()).collect();
        assert!(visited.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1), "in leaps: {visited:?}");
        visited.sort_unstable();
        assert_eq!(visited, (0..10).collect::<Vec<_>>());
    }
}
