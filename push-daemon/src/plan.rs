//! How many shards there are, how large, and on which CPUs.
//!
//! A shard has a descriptor table of its own, and a table has as many descriptors as RLIMIT_NOFILE says: more connections
//! than that need more shards.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::appliance::ApplianceError;
use crate::config::Config;

/// Descriptors of a table that are not connections: standard streams, polls, listeners, and some to spare.
const RESERVED_DESCRIPTORS: u64 = 64;

/// Longest rest of a shard in milliseconds, however many share a CPU: what a client asks is to be answered in a moment.
const LONGEST_REST_MS: u32 = 250;

/// Longest that frames gather, however many shards share a CPU: a message is to arrive well under a second.
const LONGEST_GATHERING_MS: u32 = 300;

/// How many shards, how large, and on which CPUs.
pub(crate) struct Plan {
    /// Shards.
    pub(crate) count: u16,
    /// How long a shard rests that has heard clients, in milliseconds. Shards of one CPU take turns, so that the CPU is
    /// woken as seldom as if it had one.
    pub(crate) rest_ms: u32,
    /// How long frames of a line gather. The members of a small room are in as many shards as they are, and each of these is
    /// woken for it: with many to a CPU that has to be worth more.
    pub(crate) gather: Duration,
    /// Connections of each.
    pub(crate) capacity: u32,
    /// CPUs to stay on, in turn; none when shards are not pinned.
    cpus: Vec<usize>,
}

impl Plan {
    /// What the settings ask for, as far as this host allows.
    ///
    /// # Errors
    /// The process cannot find out which CPUs it may use.
    pub(crate) fn of(config: &Config) -> Result<Self, ApplianceError> {
        let descriptors = raise_descriptor_limit();
        let per_table = descriptors.saturating_sub(RESERVED_DESCRIPTORS).clamp(1, u64::from(u32::MAX / 2)) as u32;
        let cpus = cpus()?;
        let wanted = config.shard.max_connections.get_u32();
        let count = match config.shard.count {
            0 => (cpus.len() as u32..u32::from(u16::MAX))
                .find(|count| room_for_share(wanted, *count) <= per_table)
                .unwrap_or(u32::from(u16::MAX)) as u16,
            count => count,
        };
        let capacity = room_for_share(wanted, u32::from(count)).min(per_table);
        if u64::from(capacity) * u64::from(count) < u64::from(wanted) {
            tracing::warn!(
                wanted,
                capacity,
                shards = count,
                descriptors,
                "holds fewer connections than shard.max_connections: a table has too few descriptors (LimitNOFILE) for so few shards"
            );
        }
        let per_cpu = (u32::from(count) / cpus.len().max(1) as u32).max(1);
        let rest_ms = in_turn(config.shard.rest_ms.get_u32(), per_cpu, LONGEST_REST_MS);
        let gather_ms = in_turn(config.trunk.gather_ms.get_u32(), per_cpu, LONGEST_GATHERING_MS);
        let gather = Duration::from_millis(u64::from(gather_ms));
        Ok(Self { count, rest_ms, gather, capacity, cpus: if config.shard.pin { cpus } else { Vec::new() } })
    }

    /// The CPU of each shard, if it has one.
    pub(crate) fn cpus_of_shards(&self) -> Vec<Option<usize>> {
        (0..usize::from(self.count)).map(|id| self.cpu(id)).collect()
    }

    /// The CPU of the shard with this number, if it has one.
    pub(crate) fn cpu(&self, id: usize) -> Option<usize> {
        (!self.cpus.is_empty()).then(|| self.cpus[id % self.cpus.len()])
    }
}

/// Connections that a shard is to have room for, so that `shards` of them hold `wanted` together. The kernel throws dice for
/// each connection: a share strays from the mean by its root, and five times that is once in a million.
fn room_for_share(wanted: u32, shards: u32) -> u32 {
    let share = wanted.div_ceil(shards);
    if shards == 1 { share } else { share.saturating_add(5 * share.isqrt()) }
}

/// A pause of `each_ms` for each of the shards that share a CPU, up to `longest_ms` unless one alone is longer.
fn in_turn(each_ms: u32, per_cpu: u32, longest_ms: u32) -> u32 {
    each_ms.saturating_mul(per_cpu).min(longest_ms).max(each_ms)
}

fn cpus() -> Result<Vec<usize>, ApplianceError> {
    let set = sched_getaffinity(None)
        .map_err(|error| ApplianceError::Host { what: "read which CPUs this process may use", error: error.into() })?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Raises the soft limit on descriptors to the hard one, and gives it.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit on descriptors to its maximum");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_has_room_for_more_than_its_share() {
        assert_eq!(room_for_share(1_000, 1), 1_000, "one shard gets all");
        assert_eq!(room_for_share(100_000, 2), 50_000 + 5 * 223);
        assert_eq!(room_for_share(u32::MAX, 2), u32::MAX / 2 + 1 + 5 * 46_340);
    }

    #[test]
    fn pauses_add_up_over_the_shards_of_a_cpu_to_a_bound() {
        assert_eq!(in_turn(10, 1, 200), 10);
        assert_eq!(in_turn(10, 4, 200), 40);
        assert_eq!(in_turn(10, 26, 200), 200);
        assert_eq!(in_turn(500, 26, 200), 500, "what somebody asked for stays");
        assert_eq!(in_turn(0, 26, 200), 0);
    }
}
