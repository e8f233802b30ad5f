//! What one process has used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{MeterError, ProcessDifference, growth, is_gone, text};
use crate::sys;

/// One process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Its id.
    pub pid: u32,
    /// CPU time since it began, all threads, those that have ended included.
    pub cpu_ns: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// The part of it that no file backs: what the process has allocated.
    pub rss_anon_bytes: u64,
    /// Its threads by id.
    pub threads: BTreeMap<u32, ThreadSample>,
}

/// One thread at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSample {
    /// Its name, at most 15 characters.
    pub name: String,
    /// CPU time since it began, as the scheduler accounts it (for one that runs: up to its last tick).
    pub cpu_ns: u64,
    /// Times that it gave up the CPU to wait.
    pub voluntary_switches: u64,
    /// Times that it lost the CPU to another.
    pub involuntary_switches: u64,
}

impl ProcessSample {
    /// How `pid` stands.
    pub(super) fn take(pid: u32) -> Result<Self, MeterError> {
        let cpu_ns = sys::process_cpu_ns(pid).map_err(|source| MeterError::Clock { pid, source })?;
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let (path, status) = read(directory.join("status"))?;
        let kilobytes = |name: &'static str| {
            // Kernel threads and processes that are ending have no memory, and no such line.
            text::keyed(&status, name).map_or(0, |kilobytes| kilobytes * 1024)
        };
        // The one line that every status has, so that another format is noticed.
        text::keyed(&status, "Pid").ok_or(MeterError::Format { path, name: "Pid" })?;
        let mut threads = BTreeMap::new();
        let (tasks, listing) = (directory.join("task"), directory.join("task"));
        let entries = fs::read_dir(&tasks).map_err(|source| MeterError::Read { path: listing, source })?;
        for entry in entries {
            let entry = entry.map_err(|source| MeterError::Read { path: tasks.clone(), source })?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match ThreadSample::take(&entry.path()) {
                Ok(thread) => drop(threads.insert(id, thread)),
                // It ended since the listing.
                Err(MeterError::Read { source, .. }) if is_gone(&source) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { pid, cpu_ns, rss_bytes: kilobytes("VmRSS"), rss_anon_bytes: kilobytes("RssAnon"), threads })
    }

    /// What it used since `earlier`. What a thread did that has ended meanwhile is in the CPU time, but not in the
    /// context switches: the kernel forgets those with the thread.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> ProcessDifference {
        let mut difference = ProcessDifference {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            rss_bytes: growth(earlier.rss_bytes, self.rss_bytes),
            rss_anon_bytes: growth(earlier.rss_anon_bytes, self.rss_anon_bytes),
            ..ProcessDifference::default()
        };
        let none = ThreadSample::default();
        for (id, now) in &self.threads {
            let before = earlier.threads.get(id).unwrap_or(&none);
            difference.voluntary_switches += now.voluntary_switches.saturating_sub(before.voluntary_switches);
            difference.involuntary_switches += now.involuntary_switches.saturating_sub(before.involuntary_switches);
        }
        difference
    }
}

impl ThreadSample {
    fn take(directory: &Path) -> Result<Self, MeterError> {
        let (path, schedstat) = read(directory.join("schedstat"))?;
        let cpu_ns = text::column(&schedstat, 0).ok_or(MeterError::Format { path, name: "time on the CPU" })?;
        let (path, status) = read(directory.join("status"))?;
        let figure =
            |name: &'static str| text::keyed(&status, name).ok_or(MeterError::Format { path: path.clone(), name });
        Ok(Self {
            name: text::line(&status, "Name").unwrap_or_default().to_owned(),
            cpu_ns,
            voluntary_switches: figure("voluntary_ctxt_switches")?,
            involuntary_switches: figure("nonvoluntary_ctxt_switches")?,
        })
    }
}

/// A file of /proc, whole.
pub(super) fn read(path: PathBuf) -> Result<(PathBuf, String), MeterError> {
    match fs::read(&path) {
        // Names of threads may be any bytes.
        Ok(bytes) => Ok((path, String::from_utf8_lossy(&bytes).into_owned())),
        Err(source) => Err(MeterError::Read { path, source }),
    }
}
