//! When a shard stops hearing clients for a while, so that the next ones are heard together.
//!
//! A rest costs a waking at its end, so it is worth one only where clients speak often. Time is an argument.

use std::time::Duration;

use super::clock::Tick;

/// Whether the shard rests.
pub(crate) struct Rest {
    /// How long clients are let speak up together, in milliseconds.
    length_ms: u32,
    last_heard: Option<Tick>,
    /// Until when only the door is heard.
    until: Option<Tick>,
}

impl Rest {
    pub(crate) fn new(length_ms: u32) -> Self {
        Self { length_ms, last_heard: None, until: None }
    }

    /// So many clients were heard at `now`. With `more` of them waiting there is no rest.
    pub(crate) fn heard(&mut self, clients: usize, more: bool, now: Tick) {
        if clients == 0 {
            return;
        }
        let is_often = clients > 1 || self.last_heard.is_some_and(|last| now.since(last) <= self.length_ms);
        self.last_heard = Some(now);
        self.until = (is_often && !more).then(|| now.after(self.length_ms));
    }

    /// How much longer the shard rests.
    pub(crate) fn left(&self, now: Tick) -> Option<Duration> {
        let until = self.until.filter(|until| !until.is_due(now))?;
        Some(Duration::from_millis(u64::from(until.since(now))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_rests_where_clients_speak_often() {
        let mut rest = Rest::new(10);
        // At which moment how many were heard, whether more wait, and how long the shard rests then.
        let rows = [
            ("a first one", 0, 1, false, None),
            ("one, long after", 50, 1, false, None),
            ("one, soon after", 58, 1, false, Some(10)),
            ("the next, right behind the rest", 68, 1, false, Some(10)),
            ("one, a little later", 79, 1, false, None),
            ("several at once", 200, 3, false, Some(10)),
            ("as many as can be told of at once", 300, 1_024, true, None),
        ];
        for (name, at_ms, clients, more, left_ms) in rows {
            rest.heard(clients, more, Tick(at_ms));
            assert_eq!(rest.left(Tick(at_ms)), left_ms.map(Duration::from_millis), "{name}");
        }
        rest.heard(2, false, Tick(400));
        rest.heard(0, false, Tick(404));
        assert_eq!(rest.left(Tick(404)), Some(Duration::from_millis(6)), "nobody spoke");
        assert_eq!(rest.left(Tick(410)), None);
    }
}
