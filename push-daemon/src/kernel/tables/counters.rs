//! What the programs counted: by reason, by ISP, by source.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use abi::{
    isps::{IspCounter, MAX_ISPS},
    limits::SourceState,
    rules::{V4, V6},
    verdict::{Counter, REASONS, Reason},
};
use aya::Pod;
use serde::Serialize;

use super::{
    Tables,
    address::Address,
    isp::{IspCount, name_of},
    pinned::map_data,
    rule::Count,
};
use crate::kernel::{error::KernelError, sys::maps};

/// What a source did since it was last forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SourceUse {
    /// The source: the first address of its width.
    pub source: IpAddr,
    /// Packets that came as far as the limits.
    pub packets: u64,
    /// Those of them that a limit stopped.
    pub over: u64,
}

impl Tables {
    /// Packets and bytes by reason, over all CPUs.
    pub fn counters(&self) -> Result<Vec<Count>, KernelError> {
        let total = |place: u32| -> Result<Counter, KernelError> {
            let cpus = self.counts.get(&place, 0).map_err(|error| KernelError::map("read the counters", error))?;
            Ok(cpus.iter().fold(Counter::default(), |sum, cpu| Counter {
                packets: sum.packets.saturating_add(cpu.packets),
                bytes: sum.bytes.saturating_add(cpu.bytes),
            }))
        };
        Reason::ALL
            .iter()
            .map(|reason| Ok(Count::new(*reason, total(*reason as u32)?, total(*reason as u32 + REASONS)?)))
            .collect()
    }

    /// Packets and bytes by ISP, over all CPUs; number 0 first, then those that have a name or were counted.
    pub fn isp_counters(&self) -> Result<Vec<IspCount>, KernelError> {
        let isps = self.generations.isps_of(self.generations.in_force()?.generation)?;
        let mut counts = Vec::new();
        for number in 0..MAX_ISPS {
            let cpus = self.isp_counts.get(&number, 0);
            let cpus = cpus.map_err(|error| KernelError::map("read the counters of ISPs", error))?;
            let sum = cpus.iter().fold(IspCounter::default(), |sum, cpu| IspCounter {
                passed_packets: sum.passed_packets.saturating_add(cpu.passed_packets),
                passed_bytes: sum.passed_bytes.saturating_add(cpu.passed_bytes),
                policed_packets: sum.policed_packets.saturating_add(cpu.policed_packets),
                policed_bytes: sum.policed_bytes.saturating_add(cpu.policed_bytes),
            });
            let name = isps.get(number as usize).and_then(name_of);
            if number == 0 || name.is_some() {
                counts.push(IspCount {
                    number,
                    name: name.unwrap_or_default(),
                    passed_packets: sum.passed_packets,
                    passed_bytes: sum.passed_bytes,
                    policed_packets: sum.policed_packets,
                    policed_bytes: sum.policed_bytes,
                });
            }
        }
        Ok(counts)
    }

    /// Every source that the limits remember, in no order. None without limits: then nobody is remembered.
    pub fn sources(&self) -> Result<Vec<SourceUse>, KernelError> {
        let failed = |error| KernelError::system("list the sources", error);
        let v4 = map_data(&self.pins, Ipv4Addr::SOURCES)?;
        let v6 = map_data(&self.pins, Ipv6Addr::SOURCES)?;
        let v4 = maps::entries::<V4, SourceState>(v4.fd()).map_err(failed)?.into_iter();
        let v6 = maps::entries::<V6, SourceState>(v6.fd()).map_err(failed)?.into_iter();
        let told = |source, state: SourceState| SourceUse { source, packets: state.packets, over: state.over };
        let v4 = v4.map(|(key, state)| told(Ipv4Addr::from(key).into(), state));
        Ok(v4.chain(v6.map(|(key, state)| told(Ipv6Addr::from(key).into(), state))).collect())
    }

    /// How many connections each source has open, in no order.
    pub fn open_connections(&self) -> Result<Vec<(IpAddr, u64)>, KernelError> {
        let failed = |error| KernelError::system("list the open connections", error);
        let v4 = map_data(&self.pins, Ipv4Addr::OPEN)?;
        let v6 = map_data(&self.pins, Ipv6Addr::OPEN)?;
        let v4 = maps::entries::<V4, u64>(v4.fd()).map_err(failed)?.into_iter();
        let v6 = maps::entries::<V6, u64>(v6.fd()).map_err(failed)?.into_iter();
        let v4 = v4.map(|(key, open)| (Ipv4Addr::from(key).into(), open));
        Ok(v4.chain(v6.map(|(key, open)| (Ipv6Addr::from(key).into(), open))).collect())
    }

    /// Forgets what sources did and have open: they are of another width from now on.
    pub(super) fn forget_sources(&self) -> Result<(), KernelError> {
        self.empty::<V4, SourceState>(Ipv4Addr::SOURCES)?;
        self.empty::<V6, SourceState>(Ipv6Addr::SOURCES)?;
        self.forget_open()
    }

    /// Forgets what sources have open, when nobody will tell of its end.
    pub(in crate::kernel) fn forget_open(&self) -> Result<(), KernelError> {
        self.empty::<V4, u64>(Ipv4Addr::OPEN)?;
        self.empty::<V6, u64>(Ipv6Addr::OPEN)
    }

    fn empty<K: Pod + Eq + std::hash::Hash, V: Pod>(&self, name: &str) -> Result<(), KernelError> {
        let map = map_data(&self.pins, name)?;
        let failed = |error| KernelError::system(format!("empty the table {name}"), error);
        let keys: HashSet<K> =
            maps::entries::<K, V>(map.fd()).map_err(failed)?.into_iter().map(|(key, _)| key).collect();
        maps::delete_all(map.fd(), &keys.into_iter().collect::<Vec<_>>()).map_err(failed)
    }
}
