//! What is in force, asked of the kernel rather than remembered.

use std::{io, net::IpAddr, path::Path};

use abi::settings::Settings;
use ipnet::IpNet;
use serde::Serialize;

use super::{
    attach,
    config::Mode,
    error::KernelError,
    netlink,
    pin::PinDir,
    shape::Backend,
    steer::{self, SteerReport},
    sys,
    tables::{RuleCounts, SourceLimits, Tables, Transaction},
};

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Layout of the pins.
    pub layout: u32,
    /// Directory of the pins.
    pub pin_dir: std::path::PathBuf,
    /// Where the filter runs; `None` when only its tables are there.
    pub attached: Option<Attached>,
    /// Everything passes.
    pub kill_switch: bool,
    /// What would be dropped is counted and passes.
    pub observe: bool,
    /// The TCP ports that are guarded.
    pub protected_ports: Vec<u16>,
    /// The destination addresses that are guarded; `None`: all.
    pub protected_addresses: Option<Vec<IpAddr>>,
    /// Fragments to the protected ports drop.
    pub drop_fragments: bool,
    /// Source prefixes that are never denied.
    pub management: Vec<IpNet>,
    /// How many rules there are.
    pub rules: RuleCounts,
    /// What one source may do.
    pub limits: SourceLimits,
    /// How many ISPs there are.
    pub isps: usize,
    /// A change on trial, or one that can be taken back.
    pub transaction: Transaction,
    /// What holds back what leaves for ISPs with an egress rate; `None`: nothing does.
    pub shaping: Option<Backend>,
    /// One connection in how many is sampled for round-trip times and loss; `None`: nothing is measured.
    pub measured_one_in: Option<u32>,
    /// Which shard gets a connection; `None`: the kernel's hash decides.
    pub steering: Option<SteerReport>,
}

/// Where the filter runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The interface's name.
    pub interface: String,
    /// Its index.
    pub interface_index: u32,
    /// The mode that it runs in.
    pub mode: Option<Mode>,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// Whether the interface is in our network namespace. If not, name and mode are those of the day it was attached.
    pub in_this_namespace: bool,
}

/// What is in force under `pin_root`.
pub fn status(pin_root: &Path) -> Result<Status, KernelError> {
    let tables = Tables::open(pin_root)?;
    status_of(&PinDir::new(pin_root), &tables)
}

pub(super) fn status_of(pins: &PinDir, tables: &Tables) -> Result<Status, KernelError> {
    let settings = tables.settings()?;
    let (drop_fragments, only_listed) = tables.policies()?;
    Ok(Status {
        layout: abi::LAYOUT,
        pin_dir: pins.path().into(),
        attached: attached(pins, &settings)?,
        kill_switch: settings.kill_switch == abi::settings::PASS_EVERYTHING,
        observe: settings.observe == abi::settings::OBSERVE,
        protected_ports: tables.protected_ports()?,
        protected_addresses: if only_listed { Some(tables.protected_addresses()?) } else { None },
        drop_fragments,
        management: tables.management()?,
        rules: tables.rule_counts()?,
        limits: tables.limits()?,
        isps: tables.isps()?.len(),
        transaction: tables.transaction()?,
        shaping: Backend::from_kernel(&tables.shaping()?),
        measured_one_in: if pins.measure_link().exists() { Some(tables.measuring()?.one_in) } else { None },
        steering: steer::steering(pins.root())?,
    })
}

/// Where the filter runs: all of the status that does not take a look at every rule.
pub(super) fn attached(pins: &PinDir, settings: &Settings) -> Result<Option<Attached>, KernelError> {
    let failed = |source| KernelError::system(format!("look at the link {}", pins.link().display()), source);
    let link = match sys::open_pinned(&pins.link()) {
        Ok(link) => sys::link_info(link, sys::LinkKind::Xdp).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if link.interface_index == 0 {
        return Ok(None);
    }
    let in_this_namespace = attach::namespace_inode()? == settings.namespace;
    let mode = if in_this_namespace {
        let at = netlink::xdp_at(link.interface_index).map_err(failed)?;
        at.filter(|at| at.program_id == link.program_id).map(|at| at.mode)
    } else {
        Mode::from_number(settings.mode)
    };
    let name = settings.interface_name.iter().take_while(|byte| **byte != 0).copied().collect::<Vec<_>>();
    Ok(Some(Attached {
        interface: String::from_utf8_lossy(&name).into_owned(),
        interface_index: link.interface_index,
        mode,
        program_id: link.program_id,
        in_this_namespace,
    }))
}
