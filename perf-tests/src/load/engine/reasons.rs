//! Why things ended, counted by the words that were given.

use std::collections::BTreeMap;

/// Different reasons that are counted apart; the rest goes under one name.
const MAX_REASONS: usize = 64;

/// Longest text kept of a reason, which may be the peer's.
const MAX_REASON_CHARS: usize = 120;

/// How often each reason occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    /// Counts `reason` `times` more.
    pub fn add(&mut self, reason: &str, times: u64) {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect();
        if self.0.len() >= MAX_REASONS && !self.0.contains_key(&reason) {
            *self.0.entry("other reasons".to_owned()).or_default() += times;
        } else {
            *self.0.entry(reason).or_default() += times;
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (reason, times) in &other.0 {
            self.add(reason, *times);
        }
    }

    /// How often anything occurred.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The counts by reason.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, u64> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_makes_up_reasons_fills_no_memory() {
        let mut reasons = Reasons::default();
        for n in 0..1000 {
            reasons.add(&format!("{n}\n{}", "x".repeat(500)), 1);
        }
        assert_eq!(reasons.total(), 1000);
        let map = reasons.into_map();
        assert_eq!(map.len(), MAX_REASONS + 1);
        assert!(map.keys().all(|reason| reason.len() <= MAX_REASON_CHARS && !reason.contains('\n')));
    }
}
