//! What the operator says about the kernel plane: the `[kernel]` section of the daemon's file.
//!
//! It does not look at the machine: whether the interface exists, or has driver support, is found out by bringing it up.

use std::{fmt, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{error::KernelError, shape::Backend};

/// Where a package puts the object.
pub const DEFAULT_OBJECT: &str = "/usr/lib/push-appliance/push-appliance.bpf.o";
/// Where the pins live unless the operator says otherwise.
pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf/push-appliance";

/// How the filter is attached. There is no fall-back from one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the network driver, before a socket buffer exists. Fast; needs the driver's support.
    Driver,
    /// In the kernel's stack, on any interface. For machines and interfaces without driver support.
    Generic,
}

impl Mode {
    /// The word in the config file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Driver => "driver",
            Mode::Generic => "generic",
        }
    }

    /// The other one, for advice.
    pub(super) const fn other(self) -> Mode {
        match self {
            Mode::Driver => Mode::Generic,
            Mode::Generic => Mode::Driver,
        }
    }

    /// Number of the mode in the settings map.
    pub(super) const fn number(self) -> u32 {
        match self {
            Mode::Driver => 1,
            Mode::Generic => 2,
        }
    }

    pub(super) const fn from_number(number: u32) -> Option<Mode> {
        match number {
            1 => Some(Mode::Driver),
            2 => Some(Mode::Generic),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What becomes of fragments to the protected ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fragments {
    /// The first one is judged by its header; a later one passes, and without the first comes to nothing.
    #[default]
    Judge,
    /// They drop, those included that could belong to another port. TCP between hosts of our day is not fragmented.
    Drop,
}

/// The `[kernel]` section. Only `interface` and `mode` have no default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelConfig {
    /// Interface that the clients' packets come in on.
    pub interface: String,
    /// How to attach to it.
    pub mode: Mode,
    /// The compiled programs.
    #[serde(default = "default_object")]
    pub object: PathBuf,
    /// Directory of the pins, on a bpffs. Each layout has its own directory in it.
    #[serde(default = "default_pin_root")]
    pub pin_root: PathBuf,
    /// TCP ports that the filter guards. Empty: the daemon fills in the ports that it listens on.
    #[serde(default)]
    pub protected_ports: Vec<u16>,
    /// Source prefixes that are never denied, whatever the rules say. At most `abi::maps::MAX_MANAGEMENT` of each family.
    #[serde(default)]
    pub management: Vec<IpNet>,
    /// Destination addresses that the filter guards. Empty: every address.
    #[serde(default)]
    pub protected_addresses: Vec<IpAddr>,
    /// What becomes of fragments.
    #[serde(default)]
    pub fragments: Fragments,
    /// Rules for single addresses, per address family. Full: the rule is refused with an error that says so.
    #[serde(default = "default_max_hosts")]
    pub max_hosts: u32,
    /// Rules for prefixes, per address family. Full: as `max_hosts`.
    #[serde(default = "default_max_prefixes")]
    pub max_prefixes: u32,
    /// Sources remembered for the limits, per address family. Full: the least recently seen are forgotten.
    #[serde(default = "default_max_sources")]
    pub max_sources: u32,
    /// Count what would be dropped, and let it pass.
    #[serde(default)]
    pub observe: bool,
    /// Log every verdict, at level DEBUG. For finding a fault in the programs: it costs more than the verdict does.
    #[serde(default)]
    pub trace: bool,
    /// Have new connections steered to a shard of the CPU that they came in on, where the kernel can (Linux 5.17).
    #[serde(default = "default_steer")]
    pub steer: bool,
    /// Hold what leaves for an ISP's clients to his egress rate. It sets up the interface's root queue, so it has to be asked for.
    #[serde(default)]
    pub shape: bool,
    /// By what. Not said: by `fq` where the kernel has it, else by HTB.
    #[serde(default)]
    pub shape_by: Option<Backend>,
    /// Packets that would wait longer than this are refused, which TCP takes as a sign to send less; nothing is lost by it.
    #[serde(default = "default_drop_horizon_ms")]
    pub drop_horizon_ms: u32,
    /// Count connections, and take round-trip times and loss by ISP. Without it there is no limit on open connections either.
    #[serde(default = "default_measure")]
    pub measure: bool,
    /// One connection in so many is sampled for round-trip times and loss; 0 = none.
    #[serde(default = "default_measure_one_in")]
    pub measure_one_in: u32,
    /// Control group (of version 2) whose sockets are measured. Not said: the root.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
}

fn default_object() -> PathBuf {
    DEFAULT_OBJECT.into()
}

fn default_pin_root() -> PathBuf {
    DEFAULT_PIN_ROOT.into()
}

fn default_steer() -> bool {
    true
}

fn default_max_hosts() -> u32 {
    262_144
}

fn default_max_prefixes() -> u32 {
    65_536
}

fn default_max_sources() -> u32 {
    262_144
}

/// Long enough for what a few senders put into a queue before TCP slows them down, short enough for live chat.
fn default_drop_horizon_ms() -> u32 {
    50
}

fn default_measure() -> bool {
    true
}

fn default_measure_one_in() -> u32 {
    16
}

/// What is above it no longer is a queue's delay.
const MAX_DROP_HORIZON_MS: u32 = 2_000;

/// Above this a table is a mistake in the file, not a plan: 16 million rules take more than a gigabyte of kernel memory.
const MAX_TABLE: u32 = 1 << 24;

impl KernelConfig {
    /// A section with the defaults.
    #[must_use]
    pub fn new(interface: impl Into<String>, mode: Mode) -> Self {
        Self {
            interface: interface.into(),
            mode,
            object: default_object(),
            pin_root: default_pin_root(),
            protected_ports: Vec::new(),
            management: Vec::new(),
            max_hosts: default_max_hosts(),
            protected_addresses: Vec::new(),
            fragments: Fragments::default(),
            max_prefixes: default_max_prefixes(),
            max_sources: default_max_sources(),
            observe: false,
            trace: false,
            steer: true,
            shape: false,
            shape_by: None,
            drop_horizon_ms: default_drop_horizon_ms(),
            measure: default_measure(),
            measure_one_in: default_measure_one_in(),
            cgroup: None,
        }
    }

    /// Says what is wrong with the section, without touching the machine.
    pub fn validate(&self) -> Result<(), KernelError> {
        self.fault().map_or(Ok(()), |(_, what)| Err(KernelError::Config(what)))
    }

    /// The key of a value that cannot be, and what is wrong with it.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, String)> {
        if self.interface.is_empty() || self.interface.len() >= abi::settings::INTERFACE_NAME_BYTES {
            let what = format!("interface = \"{}\": an interface name has 1 to 15 bytes", self.interface);
            return Some(("interface", what));
        }
        if self.protected_ports.contains(&0) {
            return Some(("protected_ports", "protected_ports holds 0, which is no port".to_owned()));
        }
        for (name, value) in
            [("max_hosts", self.max_hosts), ("max_prefixes", self.max_prefixes), ("max_sources", self.max_sources)]
        {
            if value == 0 || value > MAX_TABLE {
                return Some((name, format!("{name} = {value}: must be 1 to {MAX_TABLE}")));
            }
        }
        if !(1..=MAX_DROP_HORIZON_MS).contains(&self.drop_horizon_ms) {
            let what = format!("drop_horizon_ms = {}: must be 1 to {MAX_DROP_HORIZON_MS}", self.drop_horizon_ms);
            return Some(("drop_horizon_ms", what));
        }
        let (count, most) = (self.protected_addresses.len(), abi::maps::MAX_ADDRESSES as usize);
        if count > most {
            return Some(("protected_addresses", format!("protected_addresses lists {count}; at most {most} fit")));
        }
        let most = abi::maps::MAX_MANAGEMENT as usize;
        for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
            let count = self.management.iter().filter(|prefix| prefix.addr().is_ipv4() == is_v4).count();
            if count > most {
                return Some(("management", format!("management lists {count} {family} prefixes; at most {most} fit")));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_are_enough_and_a_misspelt_key_is_refused() {
        let config: KernelConfig = toml::from_str("interface = \"eth0\"\nmode = \"driver\"").unwrap();
        assert_eq!(config, KernelConfig::new("eth0", Mode::Driver));
        config.validate().unwrap();

        let error =
            toml::from_str::<KernelConfig>("interface = \"eth0\"\nmode = \"driver\"\nmax_host = 5").unwrap_err();
        assert!(error.to_string().contains("max_host"), "{error}");
        assert!(toml::from_str::<KernelConfig>("interface = \"eth0\"\nmode = \"native\"").is_err());
    }

    #[test]
    fn values_out_of_range_are_named() {
        let refused = |change: fn(&mut KernelConfig), word: &str| {
            let mut config = KernelConfig::new("eth0", Mode::Generic);
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        refused(|config| config.interface = "an-interface-name-too-long".into(), "interface");
        refused(|config| config.protected_ports = vec![3101, 0], "protected_ports");
        refused(|config| config.max_hosts = 0, "max_hosts");
        refused(|config| config.max_prefixes = u32::MAX, "max_prefixes");
        refused(|config| config.drop_horizon_ms = 0, "drop_horizon_ms");
        refused(|config| config.management = vec!["192.0.2.0/24".parse().unwrap(); 257], "management");
    }
}
