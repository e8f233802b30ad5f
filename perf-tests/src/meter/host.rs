//! Memory and TCP of the host.

use std::path::PathBuf;

use rustix::param::page_size;
use serde::{Deserialize, Serialize};

use super::process::read;
use super::{MeterError, text};

/// The host at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSample {
    /// Memory that a new process could have without swapping.
    pub available_bytes: u64,
    /// Memory in the kernel's slab caches: sockets, above all.
    pub slab_bytes: u64,
    /// TCP sockets in use, IPv4.
    pub tcp_sockets: u64,
    /// Of the closed ones, those that wait for stragglers.
    pub tcp_time_wait: u64,
    /// Memory that TCP holds for buffers.
    pub tcp_memory_bytes: u64,
    /// TCP's counters since boot.
    pub tcp: TcpCounts,
}

/// TCP's counters, of one network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpCounts {
    /// Segments sent.
    pub segments_sent: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Resets sent.
    pub resets_sent: u64,
    /// Handshakes given up because the listener's queue was full.
    pub listen_overflows: u64,
    /// Handshakes given up for that or any other reason.
    pub listen_drops: u64,
    /// SYNs sent again.
    pub syn_retransmits: u64,
    /// Connections aborted for want of memory.
    pub aborts_on_memory: u64,
    /// Received data dropped for want of room in the receiver.
    pub receive_prunes: u64,
}

impl HostSample {
    /// How the host stands; TCP's figures are those of the namespace of `process`, or of our own.
    pub(super) fn take(process: Option<u32>) -> Result<Self, MeterError> {
        let (path, memory) = read(PathBuf::from("/proc/meminfo"))?;
        let bytes = |name| match text::keyed(&memory, name) {
            Some(kilobytes) => Ok(kilobytes * 1024),
            None => Err(MeterError::Format { path: path.clone(), name }),
        };
        let (available_bytes, slab_bytes) = (bytes("MemAvailable")?, bytes("Slab")?);
        let net = PathBuf::from(process.map_or("/proc/self/net".to_owned(), |pid| format!("/proc/{pid}/net")));
        let (path, sockets) = read(net.join("sockstat"))?;
        let socket =
            |name| text::after(&sockets, "TCP", name).ok_or_else(|| MeterError::Format { path: path.clone(), name });
        Ok(Self {
            available_bytes,
            slab_bytes,
            tcp_sockets: socket("inuse")?,
            tcp_time_wait: socket("tw")?,
            tcp_memory_bytes: socket("mem")? * page_size() as u64,
            tcp: TcpCounts::take(&net)?,
        })
    }
}

impl TcpCounts {
    fn take(net: &std::path::Path) -> Result<Self, MeterError> {
        let (snmp_path, snmp) = read(net.join("snmp"))?;
        let (netstat_path, netstat) = read(net.join("netstat"))?;
        let basic =
            |name| text::under(&snmp, "Tcp", name).ok_or_else(|| MeterError::Format { path: snmp_path.clone(), name });
        let extended = |name| {
            text::under(&netstat, "TcpExt", name).ok_or_else(|| MeterError::Format { path: netstat_path.clone(), name })
        };
        Ok(Self {
            segments_sent: basic("OutSegs")?,
            retransmits: basic("RetransSegs")?,
            resets_sent: basic("OutRsts")?,
            listen_overflows: extended("ListenOverflows")?,
            listen_drops: extended("ListenDrops")?,
            syn_retransmits: extended("TCPSynRetrans")?,
            aborts_on_memory: extended("TCPAbortOnMemory")?,
            receive_prunes: extended("PruneCalled")?,
        })
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            segments_sent: self.segments_sent.saturating_sub(earlier.segments_sent),
            retransmits: self.retransmits.saturating_sub(earlier.retransmits),
            resets_sent: self.resets_sent.saturating_sub(earlier.resets_sent),
            listen_overflows: self.listen_overflows.saturating_sub(earlier.listen_overflows),
            listen_drops: self.listen_drops.saturating_sub(earlier.listen_drops),
            syn_retransmits: self.syn_retransmits.saturating_sub(earlier.syn_retransmits),
            aborts_on_memory: self.aborts_on_memory.saturating_sub(earlier.aborts_on_memory),
            receive_prunes: self.receive_prunes.saturating_sub(earlier.receive_prunes),
        }
    }
}
