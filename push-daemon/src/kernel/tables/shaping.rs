//! What shaping keeps in the tables: how it works, and what went to each ISP's clients.

use abi::{
    isps::{Isp, MAX_ISPS},
    shaping::{ShapeCounter, Shaping},
};
use aya::maps::{MapData, PerCpuArray};
use serde::Serialize;

use super::{
    Tables,
    isp::name_of,
    pinned::{open, open_array},
};
use crate::kernel::error::KernelError;

/// What went to one ISP's clients from the protected ports, while shaping was on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShapeCount {
    /// His number; 0 = those in no ISP's prefixes.
    pub number: u32,
    /// What operators call him; empty for number 0.
    pub name: String,
    /// Packets on the wire.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Those of the packets that were delayed (fq only).
    pub delayed_packets: u64,
    /// Those of them that were marked as having met congestion (fq only).
    pub marked_packets: u64,
    /// Packets refused because they would have waited beyond the horizon (fq only); not counted above.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

impl Tables {
    /// What went to each ISP's clients, over all CPUs; number 0 first, then those that have a name.
    pub fn shape_counters(&self) -> Result<Vec<ShapeCount>, KernelError> {
        let shaped: PerCpuArray<MapData, ShapeCounter> = open(&self.pins, abi::maps::SHAPED)?;
        let mut counts = Vec::new();
        for (number, name) in self.isp_names()? {
            let cpus = shaped.get(&number, 0).map_err(|error| KernelError::map("read what was shaped", error))?;
            let sum = |field: fn(&ShapeCounter) -> u64| cpus.iter().map(field).fold(0, u64::saturating_add);
            counts.push(ShapeCount {
                number,
                name,
                packets: sum(|cpu| cpu.packets),
                bytes: sum(|cpu| cpu.bytes),
                delayed_packets: sum(|cpu| cpu.delayed_packets),
                marked_packets: sum(|cpu| cpu.marked_packets),
                dropped_packets: sum(|cpu| cpu.dropped_packets),
                dropped_bytes: sum(|cpu| cpu.dropped_bytes),
            });
        }
        Ok(counts)
    }

    /// The numbers that are counted by, with the names in force: 0 without one, then those of ISPs.
    pub(super) fn isp_names(&self) -> Result<Vec<(u32, String)>, KernelError> {
        let isps = self.isps_in_force()?;
        let named = (1..MAX_ISPS).zip(isps.iter().skip(1)).filter_map(|(number, isp)| Some((number, name_of(isp)?)));
        Ok(std::iter::once((abi::isps::NO_ISP, String::new())).chain(named).collect())
    }

    /// The ISPs of the set in force, by number.
    pub(in crate::kernel) fn isps_in_force(&self) -> Result<Vec<Isp>, KernelError> {
        self.generations.isps_of(self.generations.in_force()?.generation)
    }

    pub(in crate::kernel) fn shaping(&self) -> Result<Shaping, KernelError> {
        let map = open_array::<Shaping>(&self.pins, abi::maps::SHAPING)?;
        map.get(&0, 0).map_err(|error| KernelError::map("read how egress is shaped", error))
    }

    pub(in crate::kernel) fn set_shaping(&self, shaping: Shaping) -> Result<(), KernelError> {
        let mut map = open_array::<Shaping>(&self.pins, abi::maps::SHAPING)?;
        map.set(0, shaping, 0).map_err(|error| KernelError::map("write how egress is shaped", error))
    }
}
