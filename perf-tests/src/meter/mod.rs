//! What a set of processes and their host use: CPU time, memory, context switches, kernel slab, TCP's counters.
//!
//! Two [`Sample`]s and their difference ([`Sample::since`]) say what a piece of work has cost. CPU time is the process's
//! own clock: exact to the nanosecond, with the threads that have ended. Samples are plain data that go into reports.
//!
//! It does not judge and keeps no history. What a process counts in another network namespace is read there.
//!
//! Layout: `process` one process · `host` memory and TCP · `text` the formats of /proc · `machine` what it ran on

mod host;
mod machine;
mod process;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use host::{HostSample, TcpCounts};
pub use machine::Machine;
pub use process::{ProcessSample, ThreadSample};

use crate::load::stamp::monotonic_ns;

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// A process is gone, or was never there.
    #[error("there is no process {pid} any more, which was to be measured as {name}")]
    Gone {
        /// What it was called.
        name: String,
        /// Its id.
        pid: u32,
    },
    /// Something in /proc could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in /proc is not what this kernel should write.
    #[error("{} has no figure {name:?}: this kernel writes another format", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        name: &'static str,
    },
    /// The CPU clock of a process could not be read.
    #[error("cannot read the CPU clock of process {pid}: {source}")]
    Clock {
        /// Its id.
        pid: u32,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Samples named processes and their host.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    processes: BTreeMap<String, u32>,
}

/// How things stood at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, on the clock of the stamps.
    pub at_ns: u64,
    /// By the name that the meter was given.
    pub processes: BTreeMap<String, ProcessSample>,
    /// Memory and TCP of the host.
    pub host: HostSample,
}

/// What happened between two samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Time between them.
    pub seconds: f64,
    /// By name, those that are in both samples.
    pub processes: BTreeMap<String, ProcessDifference>,
    /// Growth of the kernel's slab; negative when it shrank.
    pub slab_bytes: i64,
    /// Growth of the memory that TCP holds for buffers; negative when it shrank.
    pub tcp_memory_bytes: i64,
    /// What TCP counted meanwhile.
    pub tcp: TcpCounts,
}

/// What a process used between two samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessDifference {
    /// CPU time.
    pub cpu_ns: u64,
    /// Times that a thread gave up the CPU to wait.
    pub voluntary_switches: u64,
    /// Times that a thread lost the CPU to another.
    pub involuntary_switches: u64,
    /// Growth of resident memory; negative when it shrank.
    pub rss_bytes: i64,
    /// Growth of the anonymous part of it; negative when it shrank.
    pub rss_anon_bytes: i64,
}

impl Meter {
    /// A meter of `processes`, each with the name that it has in the samples.
    #[must_use]
    pub fn new<N: Into<String>>(processes: impl IntoIterator<Item = (N, u32)>) -> Self {
        Self { processes: processes.into_iter().map(|(name, pid)| (name.into(), pid)).collect() }
    }

    /// How things stand.
    ///
    /// # Errors
    /// [`MeterError`], above all when one of the processes is gone.
    pub fn sample(&self) -> Result<Sample, MeterError> {
        let mut processes = BTreeMap::new();
        for (name, pid) in &self.processes {
            let sample = ProcessSample::take(*pid).map_err(|error| match error {
                MeterError::Read { source, .. } if is_gone(&source) => {
                    MeterError::Gone { name: name.clone(), pid: *pid }
                }
                MeterError::Clock { source, .. } if is_gone(&source) => {
                    MeterError::Gone { name: name.clone(), pid: *pid }
                }
                other => other,
            })?;
            processes.insert(name.clone(), sample);
        }
        // The counters of the namespace that the first process lives in: its traffic is what is measured.
        let host = HostSample::take(self.processes.values().next().copied())?;
        Ok(Sample { at_ns: monotonic_ns(), processes, host })
    }
}

impl Sample {
    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Difference {
        let processes = self.processes.iter().filter_map(|(name, now)| {
            let before = earlier.processes.get(name)?;
            Some((name.clone(), now.since(before)))
        });
        Difference {
            seconds: self.at_ns.saturating_sub(earlier.at_ns) as f64 / 1e9,
            processes: processes.collect(),
            slab_bytes: growth(earlier.host.slab_bytes, self.host.slab_bytes),
            tcp_memory_bytes: growth(earlier.host.tcp_memory_bytes, self.host.tcp_memory_bytes),
            tcp: self.host.tcp.since(&earlier.host.tcp),
        }
    }
}

impl Difference {
    /// CPU time of all processes of which `wanted` says true, in nanoseconds.
    #[must_use]
    pub fn cpu_ns(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        self.processes.iter().filter(|(name, _)| wanted(name)).map(|(_, process)| process.cpu_ns).sum()
    }
}

/// From `before` to `now`, with its sign.
fn growth(before: u64, now: u64) -> i64 {
    now.wrapping_sub(before) as i64
}

/// A process that ends leaves `ENOENT` for its files, or `ESRCH` when it ends between open and read.
fn is_gone(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::NOENT, Errno::SRCH].into_iter().any(|gone| code == Some(gone.raw_os_error()))
}
