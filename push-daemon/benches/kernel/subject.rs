//! The filter under a realistic load of rules, and the packets that it is asked about.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use ipnet::{IpNet, Ipv4Net};
use push_daemon::kernel::{Action, IspRate, IspSpec, KernelConfig, KernelPlane, Mode, NewRule, SourceLimits, WholeSet};

use crate::{
    netns::{Bpffs, Namespace, config},
    packets::syn_from,
};

/// Single addresses that are denied.
pub(crate) const HOSTS: usize = 1_000_000;
/// Prefixes that are denied.
pub(crate) const PREFIXES: usize = 100_000;
/// Sources of each kind that are asked about: where a look-up ends depends on the address.
pub(crate) const SOURCES: usize = ISPS;

/// Rules that are removed and put back one by one.
const SOME_HOSTS: usize = 10_000;
const SOME_PREFIXES: usize = 10_000;

/// ISPs, and prefixes of each.
const ISPS: usize = 16;
const PREFIXES_OF_AN_ISP: usize = 500;
/// What their clients may send: more than ours do, so that each packet is charged and none is over.
const POLICED_BYTES_PER_S: u64 = 10_000_000_000;

/// The port of all packets.
pub(crate) const PORT: u16 = 3101;

/// Denied hosts lie in here, and no denied prefix does.
const HOSTS_IN: Ipv4Addr = Ipv4Addr::new(96, 0, 0, 0);

/// The filter, attached to a loopback that nobody sends to.
pub(crate) struct Subject {
    // The fields drop in this order: the program before its file system.
    pub(crate) program: Xdp,
    pub(crate) plane: KernelPlane,
    pub(crate) rules: Rules,
    _namespace: Namespace,
    _bpffs: Bpffs,
}

impl Subject {
    /// Without rules yet.
    pub(crate) fn bring_up(object: &Path) -> Result<Self, String> {
        let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("b"));
        let config = KernelConfig {
            max_hosts: 2 * HOSTS as u32,
            max_prefixes: 2 * PREFIXES as u32,
            ..config(object, &bpffs, "lo", Mode::Generic)
        };
        let plane = namespace.run(|| KernelPlane::bring_up(&config)).map_err(|error| error.to_string())?;
        let program = open_program(&plane)?;
        Ok(Self { program, plane, rules: Rules::invent(), _namespace: namespace, _bpffs: bpffs })
    }

    /// The filter again, for another thread.
    pub(crate) fn open_program(&self) -> Result<Xdp, String> {
        open_program(&self.plane)
    }

    /// Puts all rules in force, with everything else that a passing packet goes through, in one transaction.
    pub(crate) fn load(&mut self) -> Result<(), String> {
        let rules = self.rules.all().map(|prefix| NewRule::new(prefix, Action::Deny)).collect();
        self.put_in_force(rules)
    }

    /// Removes all rules in one transaction, and leaves limits and ISPs as they are.
    pub(crate) fn unload(&mut self) -> Result<(), String> {
        self.put_in_force(Vec::new())
    }

    /// Removes the first rules of each kind one by one, and says how many.
    pub(crate) fn unload_some(&mut self) -> Result<usize, String> {
        let some = self.rules.some();
        for prefix in &some {
            self.plane.tables_mut().remove(*prefix).map_err(|error| error.to_string())?;
        }
        Ok(some.len())
    }

    /// Puts those back one by one, and says how many.
    pub(crate) fn load_some(&mut self) -> Result<usize, String> {
        let some = self.rules.some();
        for prefix in &some {
            let rule = NewRule::new(*prefix, Action::Deny);
            self.plane.tables_mut().add(&rule).map_err(|error| error.to_string())?;
        }
        Ok(some.len())
    }

    /// With limits for every source, or without any.
    pub(crate) fn limit_sources(&mut self, limits: bool) -> Result<(), String> {
        let limits = if limits { generous_limits() } else { SourceLimits::default() };
        self.plane.tables_mut().set_limits(&limits).map_err(|error| error.to_string())
    }

    /// With a rate for every ISP, or without any; whose client a packet is from is looked up in any case.
    pub(crate) fn police_isps(&mut self, rates: bool) -> Result<(), String> {
        for isp in self.rules.isps() {
            let ingress = if rates { isp.ingress } else { IspRate::default() };
            let spec = IspSpec { ingress, prefixes: Vec::new(), ..isp };
            self.plane.tables_mut().set_isp(&spec).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn put_in_force(&mut self, rules: Vec<NewRule>) -> Result<(), String> {
        let set = WholeSet { rules, limits: generous_limits(), isps: self.rules.isps() };
        let tables = self.plane.tables_mut();
        tables.apply(&set, None).map_err(|error| error.to_string())?;
        // Lets go of the set before, which the kernel then frees.
        tables.confirm().map_err(|error| error.to_string())
    }
}

fn open_program(plane: &KernelPlane) -> Result<Xdp, String> {
    let pin = plane.pin_dir().join(abi::maps::FILTER);
    Xdp::from_pin(&pin, XdpAttachType::Interface).map_err(|error| format!("cannot open {}: {error}", pin.display()))
}

/// Limits of every kind that no packet of ours is over: each is looked up, charged and compared.
fn generous_limits() -> SourceLimits {
    SourceLimits {
        packets_per_s: 1_000_000_000,
        connects_per_s: 1_000_000_000,
        open_connections: 1_000_000,
        ..SourceLimits::default()
    }
}

/// Rules as an operator's lists bring them, the same in every run.
pub(crate) struct Rules {
    pub(crate) hosts: Vec<Ipv4Addr>,
    pub(crate) prefixes: Vec<Ipv4Net>,
    /// Sources that no rule speaks of, in the midst of those that are denied; clients of the ISPs, one of each.
    pub(crate) unknown: Vec<Ipv4Addr>,
    isp_prefixes: Vec<Ipv4Net>,
}

impl Rules {
    fn invent() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut hosts = distinct(HOSTS, || {
            let address = u32::from(HOSTS_IN) | random.u32(..1 << 28);
            Ipv4Addr::from(address)
        });
        // From /16 to /28, most of them /24, as in lists of networks.
        let mut prefixes = distinct(PREFIXES, || {
            let length = if random.bool() { 24 } else { random.u8(16..=28) };
            let address = loop {
                let address = random.u32(0x0100_0000..0xdf00_0000);
                if address >> 28 != u32::from(HOSTS_IN) >> 28 {
                    break Ipv4Addr::from(address);
                }
            };
            Ipv4Net::new_assert(address, length).trunc()
        });
        random.shuffle(&mut hosts);
        random.shuffle(&mut prefixes);
        let mut rules = Self { hosts, prefixes, unknown: Vec::new(), isp_prefixes: Vec::new() };
        rules.unknown = rules.neighbours(&mut random);
        rules.isp_prefixes = distinct(ISPS * PREFIXES_OF_AN_ISP, || {
            Ipv4Net::new_assert(random.u32(0x0100_0000..0xdf00_0000).into(), random.u8(14..=22)).trunc()
        });
        random.shuffle(&mut rules.isp_prefixes);
        rules
    }

    /// All of them, as the tables take them.
    pub(crate) fn all(&self) -> impl Iterator<Item = IpNet> {
        let hosts = self.hosts.iter().map(|host| IpNet::from(IpAddr::from(*host)));
        hosts.chain(self.prefixes.iter().map(|prefix| IpNet::from(*prefix)))
    }

    /// The first of each kind.
    fn some(&self) -> Vec<IpNet> {
        let hosts = self.all().take(SOME_HOSTS);
        hosts.chain(self.all().skip(HOSTS).take(SOME_PREFIXES)).collect()
    }

    /// The ISPs with their prefixes, and the network of one unknown source each.
    fn isps(&self) -> Vec<IspSpec> {
        let clients = self.unknown.iter().map(|source| Ipv4Net::new_assert(*source, 24).trunc());
        let prefixes = self.isp_prefixes.chunks_exact(PREFIXES_OF_AN_ISP);
        let ingress = IspRate { bytes_per_s: POLICED_BYTES_PER_S, burst_bytes: 0 };
        let isp = |(number, (client, prefixes)): (usize, (Ipv4Net, &[Ipv4Net]))| IspSpec {
            name: format!("isp{number}"),
            prefixes: [client].iter().chain(prefixes).map(|prefix| IpNet::from(*prefix)).collect(),
            ingress,
            egress: IspRate::default(),
        };
        clients.zip(prefixes).enumerate().map(isp).collect()
    }

    /// An address right behind a denied prefix each, so that the walk through the trie is as long as one that ends in a rule.
    fn neighbours(&self, random: &mut fastrand::Rng) -> Vec<Ipv4Addr> {
        let mut found = Vec::new();
        while found.len() < SOURCES {
            let prefix = self.prefixes[random.usize(..self.prefixes.len())];
            let behind = Ipv4Addr::from(u32::from(prefix.broadcast()).wrapping_add(1));
            if !self.prefixes.iter().any(|prefix| prefix.contains(&behind)) {
                found.push(behind);
            }
        }
        found
    }
}

fn distinct<T: Ord + Copy>(count: usize, mut invent: impl FnMut() -> T) -> Vec<T> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend((all.len()..count).map(|_| invent()));
        all.sort_unstable();
        all.dedup();
    }
    all
}

/// The first packet of a connection from `source`: a TCP SYN, without payload.
pub(crate) fn first_packet(source: Ipv4Addr) -> Vec<u8> {
    syn_from(source.into(), PORT).build()
}

/// A packet of a connection that stands: what a limit on new connections lets pass.
pub(crate) fn later_packet(source: Ipv4Addr) -> Vec<u8> {
    const FLAGS: usize = 13;
    const ACK: u8 = 0x10;
    syn_from(source.into(), PORT).tcp_byte(FLAGS, ACK).payload(32).build()
}

/// Nanoseconds that `program` takes for `frame`, of `repeats`, when it answers `action` as it should.
pub(crate) fn nanoseconds(program: &Xdp, frame: &[u8], repeats: u32, action: u32) -> Result<f64, String> {
    let options = TestRunOptions { data_in: Some(frame), repeat: repeats, ..TestRunOptions::new() };
    let result = program.test_run(options).map_err(|error| format!("cannot run a program for a test: {error}"))?;
    if result.return_value != action {
        return Err(format!("a program answered {} where {action} was due", result.return_value));
    }
    Ok(result.duration.as_nanos() as f64)
}

/// Answers of an XDP program.
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
