//! To whom a phase publishes, and which row of numbers each client therefore follows.
//!
//! Messages are numbered per *stream*: all that is published to the same clients, in order. A client follows one stream
//! in a phase, so its books are one row of numbers whatever the target is.

use serde::{Deserialize, Serialize};

/// To whom messages go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The rooms of the scenario, in turn. A room is a stream.
    #[default]
    Rooms,
    /// Everybody at once (`/goim/push/all`): one stream. Clients have to accept the operation.
    Everybody {
        /// Connections a second on each edge; 0 is as fast as it goes.
        speed: u32,
    },
    /// Clients by user id (`/goim/push/mids`), so many in each request. Those of one request are a stream.
    Mids {
        /// User ids in a request.
        each: u32,
    },
    /// Clients by the keys that they brought (`/goim/push/keys`), so many in each request. Those of one request are a
    /// stream. The scenario has to give them keys (`own_keys`): no server tells a client the key that it made.
    Keys {
        /// Keys in a request.
        each: u32,
    },
}

/// The streams of one phase: a [`Target`] for so many clients and rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    target: Target,
    clients: u32,
    /// At least 1.
    count: u32,
}

impl Streams {
    /// What `target` means for `clients` clients in `rooms` rooms.
    #[must_use]
    pub fn new(target: Target, clients: u32, rooms: u32) -> Self {
        let count = match target {
            Target::Rooms => rooms,
            Target::Everybody { .. } => 1,
            Target::Mids { each } | Target::Keys { each } => clients.div_ceil(each.max(1)),
        };
        Self { target, clients, count: count.max(1) }
    }

    /// To whom.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// How many streams.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The stream that `client` follows.
    #[must_use]
    pub fn of_client(&self, client: u32) -> u32 {
        client % self.count
    }

    /// The stream that message `message` of a phase goes to: all get equally many, to one.
    #[must_use]
    pub fn of_message(&self, message: u64) -> u32 {
        let count = u64::from(self.count);
        match self.target {
            Target::Rooms | Target::Everybody { .. } => (message % count) as u32,
            // Not one client after the other: neighbours joined together and share a shard.
            Target::Mids { .. } | Target::Keys { .. } => ((message % count) * stride(count) % count) as u32,
        }
    }

    /// What is heard of `messages` when all are accepted and nobody comes or goes, with so many members in each stream.
    #[must_use]
    pub fn deliveries(&self, messages: u64, members: &[u32]) -> u64 {
        let count = u64::from(self.count);
        let all: u64 = members.iter().map(|members| u64::from(*members)).sum();
        // Whole rounds reach every stream once; of the last one, only a part.
        let rest = (0..messages % count).map(|message| u64::from(members[self.of_message(message) as usize]));
        messages / count * all + rest.sum::<u64>()
    }

    /// The clients that follow `stream`.
    pub fn clients_of(&self, stream: u32) -> impl Iterator<Item = u32> + use<> {
        (stream..self.clients).step_by(self.count as usize)
    }
}

/// A step that visits all of `count` things before it comes back, and leaps about evenly: near the golden section, and
/// without a common divisor.
#[must_use]
pub fn stride(count: u64) -> u64 {
    let golden = (count as f64 * 0.618_033_988_749_894_9) as u64;
    (golden.max(1)..).find(|step| gcd(*step, count) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_client_follows_the_stream_that_it_is_pushed_by() {
        for target in [
            Target::Rooms,
            Target::Everybody { speed: 0 },
            Target::Mids { each: 1 },
            Target::Keys { each: 7 },
            Target::Mids { each: 1000 },
        ] {
            let streams = Streams::new(target, 100, 3);
            let pushed: Vec<(u32, u32)> = (0..streams.count())
                .flat_map(|stream| streams.clients_of(stream).map(move |client| (client, stream)))
                .collect();
            assert_eq!(pushed.len(), 100, "{target:?}: each once");
            assert!(pushed.iter().all(|&(client, stream)| streams.of_client(client) == stream), "{target:?}");
            let spoken_to: BTreeSet<u32> = (0..u64::from(streams.count())).map(|k| streams.of_message(k)).collect();
            assert_eq!(spoken_to.len() as u32, streams.count(), "{target:?}: a round reaches every stream");
        }
    }

    #[test]
    fn deliveries_are_messages_times_members() {
        let rooms = Streams::new(Target::Rooms, 9, 3);
        for (messages, members, deliveries) in
            [(3, [3, 3, 3], 9), (4, [3, 3, 3], 12), (5, [5, 1, 3], 15), (0, [3, 3, 3], 0)]
        {
            assert_eq!(rooms.deliveries(messages, &members), deliveries, "{messages} to {members:?}");
        }
        assert_eq!(Streams::new(Target::Everybody { speed: 0 }, 9, 3).deliveries(7, &[9]), 63);
    }

    #[test]
    fn a_stride_visits_all() {
        for count in [1, 2, 3, 4, 10, 97, 1000, 1024] {
            let visited: BTreeSet<u64> = (0..count).map(|n| n * stride(count) % count).collect();
            assert_eq!(visited.len() as u64, count);
        }
    }
}
