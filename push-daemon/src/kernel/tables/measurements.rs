//! What the connections of each ISP's clients saw.

use abi::measuring::{Measured, Measuring, RTT_BUCKETS};
use aya::maps::{MapData, PerCpuArray};
use serde::Serialize;

use super::{
    Tables,
    pinned::{open, open_array},
};
use crate::kernel::error::KernelError;

/// What the connections of one ISP's clients saw since the pins were made. All figures only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Measurement {
    /// His number; 0 = those in no ISP's prefixes.
    pub number: u32,
    /// What operators call him; empty for number 0.
    pub name: String,
    /// Connections opened by clients.
    pub opened: u64,
    /// Those of them that closed.
    pub closed: u64,
    /// Segments sent again, of all connections.
    pub retransmissions: u64,
    /// Data segments sent, of sampled connections.
    pub sampled_segments: u64,
    /// Segments sent again, of sampled connections.
    pub sampled_retransmissions: u64,
    /// Round-trip times taken.
    pub rtt_count: u64,
    /// Their sum, in microseconds.
    pub rtt_sum_us: u64,
    /// Their distribution: place `b` counts those of `2^b` microseconds up to twice that.
    pub rtt_log2_us: [u64; RTT_BUCKETS],
}

impl Measurement {
    /// Part of the data segments that was sent again, of sampled connections.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        (self.sampled_segments != 0).then(|| self.sampled_retransmissions as f64 / self.sampled_segments as f64)
    }

    /// Mean round-trip time in microseconds.
    #[must_use]
    pub fn rtt_us(&self) -> Option<u64> {
        self.rtt_sum_us.checked_div(self.rtt_count)
    }

    fn add(&mut self, cpu: &Measured) {
        let fields = [
            (&mut self.opened, cpu.opened),
            (&mut self.closed, cpu.closed),
            (&mut self.retransmissions, cpu.retransmissions),
            (&mut self.sampled_segments, cpu.sampled_segments),
            (&mut self.sampled_retransmissions, cpu.sampled_retransmissions),
            (&mut self.rtt_count, cpu.rtt_count),
            (&mut self.rtt_sum_us, cpu.rtt_sum_us),
        ];
        for (sum, more) in fields.into_iter().chain(self.rtt_log2_us.iter_mut().zip(cpu.rtt)) {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Tables {
    /// What the connections of each ISP's clients saw, over all CPUs; number 0 first, then those that have a name.
    pub fn measurements(&self) -> Result<Vec<Measurement>, KernelError> {
        let measured: PerCpuArray<MapData, Measured> = open(&self.pins, abi::maps::MEASURED)?;
        let mut all = Vec::new();
        for (number, name) in self.isp_names()? {
            let cpus = measured.get(&number, 0).map_err(|error| KernelError::map("read what was measured", error))?;
            let mut measurement = Measurement { number, name, ..Measurement::default() };
            cpus.iter().for_each(|cpu| measurement.add(cpu));
            all.push(measurement);
        }
        Ok(all)
    }

    /// One connection in how many is sampled.
    pub(in crate::kernel) fn measuring(&self) -> Result<Measuring, KernelError> {
        let map = open_array::<Measuring>(&self.pins, abi::maps::MEASURING)?;
        map.get(&0, 0).map_err(|error| KernelError::map("read how closely connections are looked at", error))
    }

    pub(in crate::kernel) fn set_measuring(&self, measuring: Measuring) -> Result<(), KernelError> {
        let mut map = open_array::<Measuring>(&self.pins, abi::maps::MEASURING)?;
        map.set(0, measuring, 0).map_err(|error| KernelError::map("write how closely connections are looked at", error))
    }
}
