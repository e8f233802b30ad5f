//! What a measurement ran on: the part of a report without which its figures mean nothing.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Kernel settings that move the figures of many connections.
const SYSCTLS: [&str; 15] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "net.core.somaxconn",
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
];

/// Hardware, kernel and its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name for itself.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Memory of the host.
    pub memory_bytes: u64,
    /// The distribution.
    pub system: String,
    /// The kernel's release.
    pub kernel: String,
    /// Descriptors that one table may hold (RLIMIT_NOFILE, the part that may be had without asking).
    pub descriptors_per_table: u64,
    /// Kernel settings by name; those that this kernel does not have are left out.
    pub sysctls: BTreeMap<String, String>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn read() -> Self {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        // What cannot be read is unknown: a report without it is still one.
        let system = System::new_with_specifics(what).ok();
        let cpu = system.as_ref().and_then(|system| system.cpus().first());
        let unknown = || "unknown".to_owned();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            cpu: cpu.map_or_else(unknown, |cpu| cpu.brand().trim().to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: system.as_ref().map_or(0, System::total_memory),
            system: System::long_os_version().unwrap_or_else(|_| unknown()),
            kernel: System::kernel_version().unwrap_or_else(|_| unknown()),
            descriptors_per_table: limit.maximum.unwrap_or(u64::MAX),
            sysctls: SYSCTLS.into_iter().filter_map(sysctl).collect(),
        }
    }
}

fn sysctl(name: &str) -> Option<(String, String)> {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    // Several values stand in one line with tabs between them.
    Some((name.to_owned(), text.split_whitespace().collect::<Vec<_>>().join(" ")))
}
