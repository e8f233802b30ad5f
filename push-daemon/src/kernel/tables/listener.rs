//! Listens to the sample of drops. One at a time: two would each hear a part.

use std::{
    fs::File,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use abi::{events::Event, verdict::Reason};
use aya::maps::{Array, MapData, RingBuf};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
};
use serde::{Serialize, Serializer};

use super::{
    Tables,
    pinned::{open, open_array},
    rule::boot_clock_ns,
};
use crate::kernel::error::KernelError;

/// A drop that was told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drop {
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// Who sent it; `None` where no address could be read.
    pub source: Option<IpAddr>,
    /// From which port; 0 where none could be read.
    pub source_port: u16,
    /// To which address.
    pub destination: Option<IpAddr>,
    /// To which port; 0 where none could be read.
    pub port: u16,
    /// Why; `None` for a reason that this version does not know.
    #[serde(serialize_with = "reason_name")]
    pub reason: Option<Reason>,
    /// It passed, for the filter only observes.
    pub observed: bool,
    /// Length of the frame.
    pub bytes: u32,
    /// The TCP flags of the header's byte 13.
    pub tcp_flags: u8,
    /// Drops on the same CPU since the one told before, that were not told of.
    pub untold: u64,
}

/// Hears of drops while it lives.
pub struct Listener {
    ring: RingBuf<MapData>,
    lease: Array<MapData, u64>,
    // Held, so that nobody else listens.
    _lock: File,
}

/// How long the programs go on telling after the last sign of a listener.
const LEASE: Duration = Duration::from_secs(3);

impl Listener {
    /// Begins to listen. What was told to somebody before is skipped.
    ///
    /// # Errors
    /// Somebody else listens; the pins cannot be opened.
    pub fn begin(tables: &Tables) -> Result<Self, KernelError> {
        let path = tables.pins.path().to_path_buf();
        let failed = |error| KernelError::system(format!("lock {}", path.display()), error);
        let lock = File::open(&path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(KernelError::Listening),
            Err(error) => return Err(failed(error.into())),
        }
        let mut listener = Self {
            ring: open(&tables.pins, abi::maps::EVENTS)?,
            lease: open_array(&tables.pins, abi::maps::LISTENING)?,
            _lock: lock,
        };
        while listener.ring.next().is_some() {}
        listener.renew()?;
        Ok(listener)
    }

    /// Waits up to `patience` for a drop, and says which were told of.
    pub fn wait(&mut self, patience: Duration) -> Result<Vec<Drop>, KernelError> {
        self.renew()?;
        let patience = patience.min(LEASE / 2);
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.ring, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(KernelError::system("wait for drops", error)),
        }
        let now_ns = boot_clock_ns();
        let mut drops = Vec::new();
        while let Some(record) = self.ring.next() {
            if let Some(event) = event(&record) {
                drops.push(Drop::of(&event, now_ns));
            }
        }
        Ok(drops)
    }

    fn renew(&mut self) -> Result<(), KernelError> {
        let until_ns = boot_clock_ns().saturating_add(LEASE.as_nanos() as u64);
        self.lease.set(0, until_ns, 0).map_err(|error| KernelError::map("ask for the drops", error))
    }
}

impl std::ops::Drop for Listener {
    fn drop(&mut self) {
        // If it cannot be written, the lease ends by itself.
        let _ = self.lease.set(0, 0, 0);
    }
}

impl Drop {
    fn of(event: &Event, now_ns: u64) -> Self {
        let address = |bytes: [u8; 16]| (bytes != [0; 16]).then(|| Ipv6Addr::from(bytes).to_canonical());
        Self {
            ago_ms: now_ns.saturating_sub(event.at_ns) / 1_000_000,
            source: address(event.source),
            source_port: event.source_port,
            destination: address(event.destination),
            port: event.port,
            reason: Reason::ALL.get(event.reason as usize).copied(),
            observed: event.observed != 0,
            bytes: event.bytes,
            tcp_flags: event.tcp_flags,
            untold: event.untold,
        }
    }
}

/// The record's fields, read one by one: a ring's bytes are aligned to 8, and this does not rely on it.
fn event(record: &[u8]) -> Option<Event> {
    let bytes: &[u8; size_of::<Event>()] = record.get(..size_of::<Event>())?.try_into().ok()?;
    let at = |from: usize| -> u64 { u64::from_ne_bytes(std::array::from_fn(|byte| bytes[from + byte])) };
    let half = |from: usize| -> u16 { u16::from_ne_bytes([bytes[from], bytes[from + 1]]) };
    Some(Event {
        at_ns: at(0),
        source: std::array::from_fn(|byte| bytes[8 + byte]),
        destination: std::array::from_fn(|byte| bytes[24 + byte]),
        bytes: at(40) as u32,
        reason: (at(40) >> 32) as u32,
        untold: at(48),
        source_port: half(56),
        port: half(58),
        observed: bytes[60],
        tcp_flags: bytes[61],
        reserved: 0,
    })
}

fn reason_name<S: Serializer>(reason: &Option<Reason>, out: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::name).serialize(out)
}
