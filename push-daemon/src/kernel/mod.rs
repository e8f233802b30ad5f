//! The kernel plane: brings the programs up, finds them again, and edits their tables.
//!
//! The filter, its tables and its attachment are pinned under a bpffs directory, so they outlive every process of ours: the
//! guard stays when the daemon dies, and `pushctl` edits the tables without it. All calls are synchronous and need root, or
//! `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`.
//!
//! It does not: mount bpffs, choose an attach mode on its own, judge packets (the object in `ebpf-programs` does), or know
//! anything about connections.
//!
//! Layout: `config` what the operator says · `plane` bring up, adopt, take down · `load` object to pinned maps and program ·
//! `attach` filter to interface · `shape` what leaves is held to rates · `measure` what connections see · [`steer`] which shard gets a
//! connection · `pin` the directory of pins · `migrate` from those of an earlier version · `tables` rules and counters as typed
//! values · `file` the same as a text · `inspect` what is in force · `trace` the programs' own log · `netlink` which mode an
//! interface got · `sys` the system calls that aya lacks · `error` what goes wrong, in words.

mod attach;
mod config;
mod error;
pub mod file;
mod inspect;
mod load;
mod measure;
mod migrate;
mod netlink;
mod pin;
mod plane;
mod shape;
pub mod steer;
mod sys;
mod tables;
mod trace;

pub use config::{DEFAULT_OBJECT, DEFAULT_PIN_ROOT, Fragments, KernelConfig, Mode};
pub use error::KernelError;
pub use inspect::{Attached, Status, status};
pub use plane::{Arrival, KernelPlane, take_down};
pub use shape::Backend;
pub use tables::{
    Action, Added, Applied, Change, Count, Diff, Drop, Explanation, Guard, IspCount, IspEntry, IspRate, IspSpec,
    Listener, MAX_COMMENT_BYTES, Measurement, NewRule, Origin, Rule, RuleCounts, ShapeCount, SourceLimits, SourceUse,
    Tables, Transaction, WholeSet,
};
