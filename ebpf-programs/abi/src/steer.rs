//! What the program `steer` and userspace agree on: which shards there are, on which CPUs, and how they are.
//!
//! These tables belong to one process and are made anew by each: sockets do not outlive it, so neither does what is
//! said of them. Their pins are for whoever wants to look.

/// The sk_reuseport program.
pub const STEER: &str = "steer";

/// Listening sockets: sockarray, [`slot`] to socket. The kernel takes a socket out when it stops listening.
pub const STEER_SOCKETS: &str = "STEER_SOCKETS";
/// Listening addresses: hash, [`Place`] to the number of the address.
pub const STEER_PLACES: &str = "STEER_PLACES";
/// Shards: array that the daemon has mapped, number to [`ShardWord`].
pub const STEER_SHARDS: &str = "STEER_SHARDS";
/// CPUs: array, number of the CPU to the [`Span`] of its shards in [`STEER_ORDER`]; at [`ALL`] the span of all.
pub const STEER_CPUS: &str = "STEER_CPUS";
/// Numbers of shards, those of one CPU beside each other.
pub const STEER_ORDER: &str = "STEER_ORDER";
/// Per-CPU counts by [`Choice`].
pub const STEER_COUNTS: &str = "STEER_COUNTS";
/// Per-CPU number of choices made, by which shards have their turns.
pub const STEER_TURNS: &str = "STEER_TURNS";

/// The tables that `pushctl` and others may read.
pub const PINNED: [&str; 5] = [STEER_SOCKETS, STEER_SHARDS, STEER_CPUS, STEER_ORDER, STEER_COUNTS];

/// Shards of one edge.
pub const MAX_SHARDS: u32 = 1_024;
/// Addresses that an edge listens on.
pub const MAX_PLACES: u32 = 64;
/// CPUs of a host, by their highest number.
pub const MAX_CPUS: u32 = 4_096;
/// Index in [`STEER_CPUS`] of the span of all shards.
pub const ALL: u32 = MAX_CPUS;

/// Index in [`STEER_SOCKETS`] of a shard's socket on an address.
#[inline(always)]
#[must_use]
pub const fn slot(place: u32, shard: u32) -> u32 {
    place * MAX_SHARDS + shard
}

/// A shard is crowded when half of its connections are this many more than another has. Fewer, and every connection stays on its
/// CPU, however uneven they come in.
pub const CROWD: u32 = 1_024;

/// A listening address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The address as it stands in a packet; of IPv4 only the first word.
    pub address: [u32; 4],
    /// The port, as a number.
    pub port: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
}

const _: () = assert!(size_of::<Place>() == 24);

/// How a shard is, in one word that is written and read as a whole.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardWord {
    /// [`ShardState`] as a number.
    pub state: u32,
    /// Connections that it has.
    pub load: u32,
}

const _: () = assert!(size_of::<ShardWord>() == 8);

/// Shards that stand beside each other in [`STEER_ORDER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Where they begin.
    pub first: u32,
    /// How many they are.
    pub count: u32,
}

/// What a shard says of itself.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// It does not listen, or is not there.
    Gone = 0,
    /// It takes connections.
    Open = 1,
    /// It has as many as it can hold.
    Full = 2,
    /// It says goodbye to those that it has.
    Draining = 3,
}

impl ShardState {
    /// All, by number.
    pub const ALL: [Self; 4] = [Self::Gone, Self::Open, Self::Full, Self::Draining];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Open => "open",
            Self::Full => "full",
            Self::Draining => "draining",
        }
    }
}

/// Where a connection was put, and why there.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// On a shard of the CPU that it came in on.
    Own = 0,
    /// Elsewhere: no shard of its CPU takes any.
    Other = 1,
    /// Elsewhere: its CPU's shards have far more than others.
    Crowded = 2,
    /// By the kernel's hash: no shard said that it takes any.
    FellBack = 3,
    /// Nowhere, as if nobody listened: every shard is draining.
    Refused = 4,
    /// Counted besides the others: its listener went away before it was accepted.
    Migrated = 5,
}

/// Entries of [`STEER_COUNTS`].
pub const CHOICES: u32 = 6;

impl Choice {
    /// All, by number.
    pub const ALL: [Self; CHOICES as usize] =
        [Self::Own, Self::Other, Self::Crowded, Self::FellBack, Self::Refused, Self::Migrated];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "own_cpu",
            Self::Other => "other_cpu",
            Self::Crowded => "crowded",
            Self::FellBack => "kernel_hash",
            Self::Refused => "refused",
            Self::Migrated => "migrated",
        }
    }
}
