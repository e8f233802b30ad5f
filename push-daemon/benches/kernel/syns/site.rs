//! Where it happens: a server that two veth pairs lead to, one with the filter, one with whatever answers SYNs.
//!
//! ```text
//!  clients' namespace                         server's namespace
//! ┌───────────────────────────────┐ veth pair ┌─────────────────────────────────────────┐
//! │ flood, honest clients client0 │══════════▶│ push0: the filter                       │
//! │                               │ veth pair │                                listener │
//! │ refuses answers       client1 │══════════▶│ edge0: sink, pass or cookies            │
//! └───────────────────────────────┘           └─────────────────────────────────────────┘
//! ```

use std::{
    fmt::Display,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::PerCpuArray,
    programs::{
        ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        tc::{SchedClassifierLinkId, qdisc_add_clsact},
        xdp::XdpLinkId,
    },
};
use push_daemon::kernel::{Action, KernelPlane, Mode, NewRule};

use super::Fate;
use crate::{
    flood::site::{SINK_OBJECT, make_pair},
    netns::{Bpffs, Namespace, config},
    subject::PORT,
    sys,
};

/// The one that frames for the tests of the filter are for.
const SERVER_MAC: &str = "02:00:00:00:00:01";

/// Where the flood says that it comes from.
const INVENTED: &str = "198.18.0.0/15";

/// Which way to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pair {
    Filtered,
    Answered,
}

impl Pair {
    fn network(self) -> u8 {
        if self == Self::Filtered { 77 } else { 78 }
    }

    fn servers_end(self) -> &'static str {
        if self == Self::Filtered { "push0" } else { "edge0" }
    }

    pub(super) fn clients_end(self) -> &'static str {
        if self == Self::Filtered { "client0" } else { "client1" }
    }

    /// Where the server listens, for those who come this way.
    pub(super) fn address(self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(10, self.network(), 0, 1), PORT))
    }
}

/// Everything, up.
pub(super) struct Site {
    programs: Ebpf,
    attached: Option<(&'static str, XdpLinkId)>,
    withheld: Option<SchedClassifierLinkId>,
    _plane: KernelPlane,
    server: Namespace,
    clients: Namespace,
    _bpffs: Bpffs,
}

impl Site {
    pub(super) fn build(object: &Path) -> Result<Self, String> {
        let bpffs = Bpffs::mount();
        let (server, clients) = (Namespace::new("s"), Namespace::new("c"));
        for pair in [Pair::Filtered, Pair::Answered] {
            let (near, far, network) = (pair.clients_end(), pair.servers_end(), pair.network());
            make_pair(&clients, near, &server, far);
            clients.ip(&["address", "add", &format!("10.{network}.0.2/24"), "dev", near]);
            server.ip(&["address", "add", &format!("10.{network}.0.1/24"), "dev", far]);
            server.ip(&["link", "set", far, "address", SERVER_MAC]);
        }
        server.ip(&["route", "add", INVENTED, "via", "10.78.0.2"]);
        let config = config(object, &bpffs, Pair::Filtered.servers_end(), Mode::Driver);
        let mut plane = server.run(|| KernelPlane::bring_up(&config)).map_err(|error| error.to_string())?;
        let invented = INVENTED.parse().map_err(|_| "the flood's prefix is none".to_owned())?;
        plane.tables_mut().add(&NewRule::new(invented, Action::Deny)).map_err(|error| error.to_string())?;
        let path = object.with_file_name(SINK_OBJECT);
        let failed = |error: &dyn Display| format!("cannot use the programs of {}: {error}", path.display());
        let scale = server.run(window_scale).map_err(|error| failed(&error))?;
        let mut loader = EbpfLoader::new();
        loader.override_global("WINDOW_SCALE", &scale, true);
        let mut programs = loader.load_file(&path).map_err(|error| failed(&error))?;
        for name in ["sink", "pass", "cookies", "refuse"] {
            xdp(&mut programs, name)?.load().map_err(|error| failed(&error))?;
        }
        classifier(&mut programs)?.load().map_err(|error| failed(&error))?;
        clients.run(|| attach(&mut programs, "refuse", Pair::Answered.clients_end()))?;
        server
            .run(|| qdisc_add_clsact(Pair::Answered.servers_end()))
            .map_err(|error| format!("cannot classify what the server sends: {error}"))?;
        // Only timestamps without an offset bring back what a cookie of ours put into them.
        sysctl(&server, "tcp_timestamps", 2)?;
        Ok(Self { programs, attached: None, withheld: None, _plane: plane, server, clients, _bpffs: bpffs })
    }

    /// Where the clients and the flood are.
    pub(super) fn clients(&self) -> &Namespace {
        &self.clients
    }

    /// Where the server and the filter are.
    pub(super) fn server(&self) -> &Namespace {
        &self.server
    }

    /// Sets up what the SYNs are to meet.
    pub(super) fn prepare(&mut self, fate: Fate) -> Result<(), String> {
        sysctl(&self.server, "tcp_syncookies", fate.syncookies())?;
        let interface = Pair::Answered.servers_end();
        if let Some((name, link)) = self.attached.take() {
            xdp(&mut self.programs, name)?.detach(link).map_err(|error| format!("cannot detach {name}: {error}"))?;
        }
        let (programs, name) = (&mut self.programs, fate.program());
        self.attached = Some((name, self.server.run(|| attach(programs, name, interface))?));
        let failed = |error: ProgramError| format!("cannot withhold answers: {error}");
        if let Some(link) = self.withheld.take() {
            classifier(&mut self.programs)?.detach(link).map_err(failed)?;
        }
        if fate == Fate::KernelUnsent {
            let withhold = classifier(&mut self.programs)?;
            let attached = self.server.run(|| withhold.attach(interface, TcAttachType::Egress));
            self.withheld = Some(attached.map_err(failed)?);
        }
        Ok(())
    }

    /// Answers to the flood so far.
    pub(super) fn refused(&self) -> Result<u64, String> {
        let failed = |error: &dyn Display| format!("cannot count the answers: {error}");
        let map = self.programs.map("REFUSED").ok_or_else(|| failed(&"there is no such map"))?;
        let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(|error| failed(&error))?;
        Ok(counts.get(&0, 0).map_err(|error| failed(&error))?.iter().sum())
    }
}

/// By what the kernel scales the windows that a server here tells. It says so only of a connection, so one is made.
fn window_scale() -> io::Result<u8> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let _client = TcpStream::connect(listener.local_addr()?)?;
    let (connection, _) = listener.accept()?;
    let [_, scales] = sys::options_and_scales(&connection)?;
    // What it sends by is the lower half.
    Ok(scales >> 4)
}

fn xdp<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, String> {
    let program = programs.program_mut(name).ok_or_else(|| format!("there is no program {name}"))?;
    program.try_into().map_err(|error: ProgramError| format!("{name}: {error}"))
}

fn classifier(programs: &mut Ebpf) -> Result<&mut SchedClassifier, String> {
    let program = programs.program_mut("withhold").ok_or("there is no program withhold")?;
    program.try_into().map_err(|error: ProgramError| format!("withhold: {error}"))
}

fn attach(programs: &mut Ebpf, name: &str, interface: &str) -> Result<XdpLinkId, String> {
    let attached = xdp(programs, name)?.attach(interface, XdpMode::Driver);
    attached.map_err(|error| format!("cannot attach {name} to {interface}: {error}"))
}

fn sysctl(namespace: &Namespace, name: &str, value: u8) -> Result<(), String> {
    let file = format!("/proc/sys/net/ipv4/{name}");
    namespace
        .run(|| fs::write(&file, value.to_string()))
        .map_err(|error| format!("cannot write {value} to {file}: {error}"))
}
