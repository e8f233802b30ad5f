//! Internet service providers in the operator's words: names, prefixes, rates.

use abi::isps::{Isp, LEAST_BYTES_PER_S, MAX_ISPS, NAME_BYTES, Rate};
use ipnet::IpNet;
use serde::Serialize;

use crate::kernel::error::KernelError;

/// An egress or ingress rate of an ISP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IspRate {
    /// Bytes per second; 0 = no limit.
    pub bytes_per_s: u64,
    /// Bytes at once; 0 = those of a twentieth of a second, and at least 64 KiB.
    pub burst_bytes: u64,
}

impl IspRate {
    /// A burst that lets a rate be reached: a scheduler's tick and a large packet fit in.
    fn burst(&self) -> u64 {
        if self.burst_bytes != 0 { self.burst_bytes } else { (self.bytes_per_s / 20).max(64 * 1024) }
    }

    pub(super) fn to_kernel(self) -> Rate {
        Rate::new(self.bytes_per_s, self.burst())
    }

    fn from_kernel(rate: &Rate) -> Self {
        Self { bytes_per_s: rate.bytes_per_s, burst_bytes: rate.burst_bytes }
    }
}

/// An ISP, and what came from his clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IspEntry {
    /// His number: 1 to 255.
    pub number: u32,
    /// What operators call him.
    pub name: String,
    /// What his clients may send to the protected ports; the rest is dropped.
    pub ingress: IspRate,
    /// What his clients are sent; the rest waits.
    pub egress: IspRate,
    /// How many prefixes are his.
    pub prefixes: usize,
}

impl IspEntry {
    pub(super) fn from_kernel(number: u32, isp: &Isp, prefixes: usize) -> Option<Self> {
        let name = name_of(isp)?;
        let (ingress, egress) = (IspRate::from_kernel(&isp.ingress), IspRate::from_kernel(&isp.egress));
        Some(Self { number, name, ingress, egress, prefixes })
    }
}

/// Packets and bytes of one ISP's clients that came as far as the ISP's look-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IspCount {
    /// His number; 0 = those in no ISP's prefixes.
    pub number: u32,
    /// What operators call him; empty for number 0.
    pub name: String,
    /// Packets that passed.
    pub passed_packets: u64,
    /// Their bytes.
    pub passed_bytes: u64,
    /// Packets over the ingress rate.
    pub policed_packets: u64,
    /// Their bytes.
    pub policed_bytes: u64,
}

/// What an ISP should be: the operator's half of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IspSpec {
    /// What operators call him.
    pub name: String,
    /// His prefixes.
    pub prefixes: Vec<IpNet>,
    /// What his clients may send.
    pub ingress: IspRate,
    /// What his clients are sent.
    pub egress: IspRate,
}

impl IspSpec {
    /// Says what is wrong with the name or the rates.
    pub fn validate(&self) -> Result<(), KernelError> {
        self.to_kernel().map(drop)
    }

    pub(super) fn to_kernel(&self) -> Result<Isp, KernelError> {
        check_name(&self.name)?;
        for (rate, direction) in [(self.ingress, "ingress"), (self.egress, "egress")] {
            if rate.bytes_per_s != 0 && rate.bytes_per_s < LEAST_BYTES_PER_S {
                let what = format!("{direction} rate of {} bytes/s is below {LEAST_BYTES_PER_S}", rate.bytes_per_s);
                return Err(KernelError::Isp { name: self.name.clone(), what });
            }
        }
        let mut name = [0; NAME_BYTES];
        name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        Ok(Isp { name, ingress: self.ingress.to_kernel(), egress: self.egress.to_kernel() })
    }
}

/// A name that fits in the table, on a command line and in a metric's label.
fn check_name(name: &str) -> Result<(), KernelError> {
    let fits = !name.is_empty() && name.len() < NAME_BYTES;
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
    if fits && plain {
        return Ok(());
    }
    let what = format!("a name has 1 to {} of a-z, 0-9, '.', '_' and '-'", NAME_BYTES - 1);
    Err(KernelError::Isp { name: name.into(), what })
}

/// `None` when there is no ISP of this number.
pub(super) fn name_of(isp: &Isp) -> Option<String> {
    let length = isp.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    (length > 0).then(|| String::from_utf8_lossy(&isp.name[..length]).into_owned())
}

/// The number of the ISP called `name`.
pub(super) fn number_of(isps: &[Isp], name: &str) -> Option<u32> {
    (1..MAX_ISPS).zip(isps.iter().skip(1)).find(|(_, isp)| name_of(isp).as_deref() == Some(name)).map(|(at, _)| at)
}

/// Whether nobody has this number.
pub(super) fn is_free(isps: &[Isp], number: u32) -> bool {
    isps.get(number as usize).is_none_or(|isp| name_of(isp).is_none())
}
