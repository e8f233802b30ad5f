//! Where it happens: a server behind the filter, clients and flood at the other end of its veth pair, and a sink.
//!
//! ```text
//!  clients' namespace                server's namespace
//! ┌────────────────────┐ veth pair  ┌──────────────────────────┐
//! │ client, flood      │═══════════▶│ push0: the filter, server│
//! │                    │ veth pair  ├──────────────────────────┤
//! │                    │═══════════▶│ drop0: the sink          │  a namespace of its own
//! └────────────────────┘            └──────────────────────────┘
//! ```
//!
//! Each pair has a queue for each CPU, as a network card has: what is sent from a CPU comes in by its own queue.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use abi::verdict::Reason;
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use push_daemon::kernel::{Action, KernelPlane, Mode, NewRule};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::Pid,
};
use tempfile::TempDir;

use crate::{
    cpus,
    netns::{Bpffs, Namespace, config},
    subject::PORT,
};

/// The server's end of the pair with the filter.
const FILTER: &str = "push0";
/// The clients' end.
pub(super) const TO_FILTER: &str = "client0";
/// The clients' end of the pair with the sink.
pub(super) const TO_SINK: &str = "sink0";
const SINK: &str = "drop0";

/// The one that frames for the tests of the filter are for.
const SERVER_MAC: &str = "02:00:00:00:00:01";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Hosts that the flood comes from; the server would answer them by way of the client.
const FLOOD_FROM: &str = "203.0.113.0/24";

/// The object with the sink's program.
pub(crate) const SINK_OBJECT: &str = "push-clients.bpf.o";
const SINK_PROGRAM: &str = "sink";

/// Where what was sent is taken in: by the CPU that sent it, or by the one that client and server run on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    SendersCpu,
    ServersCpu,
}

/// Everything, up.
pub(super) struct Site {
    plane: KernelPlane,
    denies: bool,
    _sink_program: Ebpf,
    sink: Namespace,
    server: Namespace,
    clients: Namespace,
    _bpffs: Bpffs,
}

impl Site {
    pub(super) fn build(object: &Path) -> Result<Self, String> {
        let bpffs = Bpffs::mount();
        let (server, clients, sink) = (Namespace::new("s"), Namespace::new("c"), Namespace::new("d"));
        make_pair(&clients, TO_FILTER, &server, FILTER);
        make_pair(&clients, TO_SINK, &sink, SINK);
        clients.ip(&["address", "add", &format!("{CLIENT}/24"), "dev", TO_FILTER]);
        server.ip(&["address", "add", &format!("{SERVER}/24"), "dev", FILTER]);
        server.ip(&["link", "set", FILTER, "address", SERVER_MAC]);
        server.ip(&["route", "add", FLOOD_FROM, "via", &CLIENT.to_string()]);
        let config = config(object, &bpffs, FILTER, Mode::Driver);
        let plane = server.run(|| KernelPlane::bring_up(&config)).map_err(|error| error.to_string())?;
        let sink_program = sink.run(|| attach_sink(object))?;
        for (namespace, interface) in [(&clients, TO_FILTER), (&clients, TO_SINK), (&server, FILTER), (&sink, SINK)] {
            with_sysfs(namespace, interface, give_each_cpu_its_queue)?;
        }
        Ok(Self { plane, denies: false, _sink_program: sink_program, sink, server, clients, _bpffs: bpffs })
    }

    /// Where client and flood are.
    pub(super) fn clients(&self) -> &Namespace {
        &self.clients
    }

    /// Where the server and the filter are.
    pub(super) fn server(&self) -> &Namespace {
        &self.server
    }

    /// Where the server listens.
    pub(super) fn address() -> SocketAddr {
        SocketAddr::from((SERVER, PORT))
    }

    /// Hosts that the flood comes from.
    pub(super) fn flooders() -> impl Iterator<Item = Ipv4Addr> {
        (1..255).map(|last| Ipv4Addr::new(203, 0, 113, last))
    }

    /// Whether the flood's hosts are denied.
    pub(super) fn deny(&mut self, denies: bool) -> Result<(), String> {
        if denies == self.denies {
            return Ok(());
        }
        let tables = self.plane.tables_mut();
        for host in Self::flooders().map(std::net::IpAddr::from) {
            let done = if denies {
                tables.add(&NewRule::new(host.into(), Action::Deny)).map(drop)
            } else {
                tables.remove(host.into()).map(drop)
            };
            done.map_err(|error| error.to_string())?;
        }
        self.denies = denies;
        Ok(())
    }

    /// Packets that the filter dropped by a rule.
    pub(super) fn denied(&self) -> Result<u64, String> {
        let counts = self.plane.stats().map_err(|error| error.to_string())?;
        Ok(counts.iter().filter(|count| count.reason == Reason::Denied).map(|count| count.packets).sum())
    }

    /// Chooses where filter and sink run. On the sender's CPU that is the ordinary way of a veth pair; elsewhere a thread of
    /// the kernel takes in what comes, as the interrupts of a network card would there.
    pub(super) fn take_in(&self, place: Where) -> Result<(), String> {
        let before = napi_threads();
        for (namespace, interface) in [(&self.server, FILTER), (&self.sink, SINK)] {
            with_sysfs(namespace, interface, |directory| {
                write(&directory.join("threaded"), if place == Where::ServersCpu { "1" } else { "0" })
            })?;
        }
        let threads: Vec<Pid> = napi_threads().difference(&before).filter_map(|pid| Pid::from_raw(*pid)).collect();
        if place == Where::ServersCpu && threads.is_empty() {
            return Err("this kernel gives a veth pair no threads of its own (threaded NAPI)".to_owned());
        }
        for thread in threads {
            cpus::pin(Some(thread), cpus::WORKER)?;
            cpus::put_first(thread)?;
        }
        Ok(())
    }
}

/// A veth pair with a queue for each CPU at both ends, both of them up.
pub(crate) fn make_pair(one: &Namespace, one_end: &str, other: &Namespace, other_end: &str) {
    let queues = ["numtxqueues", "2", "numrxqueues", "2"];
    let pair = ["type", "veth", "peer", "name", other_end];
    one.ip(&[&["link", "add", one_end][..], &queues, &pair, &queues, &["netns", &other.name]].concat());
    one.ip(&["link", "set", one_end, "up"]);
    other.ip(&["link", "set", other_end, "up"]);
}

/// Loads the sink and attaches it, for as long as the value lives.
fn attach_sink(object: &Path) -> Result<Ebpf, String> {
    let path = object.with_file_name(SINK_OBJECT);
    let failed = |error: &dyn std::fmt::Display| format!("cannot attach the sink of {}: {error}", path.display());
    let mut object = Ebpf::load_file(&path).map_err(|error| failed(&error))?;
    let program = object.program_mut(SINK_PROGRAM).ok_or_else(|| failed(&"there is none"))?;
    let program: &mut Xdp = program.try_into().map_err(|error: aya::programs::ProgramError| failed(&error))?;
    program.load().map_err(|error| failed(&error))?;
    program.attach(SINK, XdpMode::Driver).map_err(|error| failed(&error))?;
    Ok(object)
}

/// Packets that a CPU sends take the queue of its number.
fn give_each_cpu_its_queue(directory: &Path) -> Result<(), String> {
    for cpu in [cpus::WORKER, cpus::OTHER] {
        write(&directory.join(format!("queues/tx-{cpu}/xps_cpus")), &format!("{:x}", 1 << cpu))?;
    }
    Ok(())
}

/// Calls `work` with the directory that shows `interface` of `namespace`. Which interfaces sysfs shows is decided when it is
/// mounted.
fn with_sysfs(
    namespace: &Namespace,
    interface: &str,
    work: impl FnOnce(&Path) -> Result<(), String> + Send,
) -> Result<(), String> {
    let mounted = TempDir::with_prefix("push-sysfs-").map_err(|error| format!("cannot make a directory: {error}"))?;
    namespace.run(|| {
        mount("sysfs", mounted.path(), "sysfs", MountFlags::empty(), None)
            .map_err(|error| format!("cannot mount sysfs: {error}"))?;
        let done = work(&mounted.path().join("class/net").join(interface));
        unmount(mounted.path(), UnmountFlags::DETACH).map_err(|error| format!("cannot unmount sysfs: {error}"))?;
        done
    })
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("cannot write {text} to {}: {error}", file.display()))
}

/// Threads of the kernel that take packets in, whoever's they are.
fn napi_threads() -> BTreeSet<i32> {
    let is_one =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("napi/"));
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}
