//! Two network namespaces without a name, and the veth pair between them.
//!
//! ```text
//! server's namespace                                                clients' namespace
//! daemons   10.64.0.1  push0  <=== veth, driver mode at both ends ===>  clients0   (no address, no socket)
//!           10.128.0.0/9 by the gateway 10.64.0.2, a permanent neighbour     program `clients` plays all addresses
//!           the appliance's filter
//! ```
//!
//! Where the kernel has IPv6, the same once more: fd64::1, and fd80::/64 by fd64::2.
//!
//! Around a server that is not ours the rig is built by [`Rig::build_around`] (`borrowed`).
//!
//! Nobody but this process holds namespaces, link and programs, so they go with it, however it ends. Nothing leaves the
//! pair: there is no other interface in either namespace but loopback.

mod borrowed;
mod ipv6;

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use abi::clients::{PASS, PROGRAM};
use aya::maps::Array;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use rustix::thread::gettid;

use super::error::XdpError;
use super::program::{Program, load, object};
use super::script::{FIRST_PORT, PORTS_PER_ADDRESS};
use crate::probe::daemons::{Addresses, in_namespace};
use crate::sys;
pub use ipv6::{SERVER_V6, client_address as client_address_v6};

/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// Where all clients live, as the server sees it.
const GATEWAY: &str = "10.64.0.2";
const CLIENTS_NETWORK: &str = "10.128.0.0/9";
/// The first client's address and port.
pub const FIRST_CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 128, 0, 1), FIRST_PORT as u16);
/// Addresses of the clients' network behind the first.
pub const CLIENT_ADDRESSES: u32 = (1 << 23) - 2;

/// Clients that have addresses at once.
pub const MOST_CLIENTS: u32 = CLIENT_ADDRESSES * PORTS_PER_ADDRESS;

const SERVER_END: &str = "push0";
const CLIENTS_END: &str = "clients0";
/// Queues of each end. The ring of one holds 256 frames, and what a burst of the server's puts beyond is lost, to be repeated
/// a fifth of a second later. A flow keeps its queue, so a client's segments stay in order.
const QUEUES: &str = "32";
/// Of the two ends, locally administered.
pub(super) const SERVER_MAC: [u8; 6] = [2, 0x70, 0x75, 0x73, 0x68, 1];
pub(super) const GATEWAY_MAC: [u8; 6] = [2, 0x70, 0x75, 0x73, 0x68, 2];

/// What a server of many needs, in its namespace.
const SERVER_SETTINGS: [(&str, &str); 4] = [
    ("core/somaxconn", "65535"),
    ("ipv4/tcp_max_syn_backlog", "262144"),
    // The filter of return paths, which both of these can switch on.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/push0/rp_filter", "0"),
];

/// So many connections share the kernel's table with those of other namespaces.
const SHARED_TABLE_CONNECTIONS: u32 = 100_000;
/// The most buckets that `tcp_child_ehash_entries` takes (Linux 6.1).
const MOST_BUCKETS: u32 = 1 << 24;

/// What stands at the server's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEnd {
    /// The appliance's filter, guarding these ports.
    Filter(Vec<u16>),
    /// A program that lets everything pass.
    Pass,
}

/// See the module.
pub struct Rig {
    // The programs before what they are attached to.
    program: Arc<Mutex<Program>>,
    _filter: Option<Ebpf>,
    server: File,
    clients: File,
    /// Whether somebody else made it, and goes on with it.
    is_server_borrowed: bool,
    /// Addresses that clients have had, from the first on.
    used_addresses: AtomicU32,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rig").field("server", &self.server).field("clients", &self.clients).finish_non_exhaustive()
    }
}

impl Rig {
    /// Makes namespaces and pair, and attaches `program` and what stands at the server's end.
    ///
    /// # Errors
    /// [`XdpError`] says what is missing; nothing is left then.
    pub fn build(program: Program, server_end: &ServerEnd) -> Result<Self, XdpError> {
        let rig = Self::around(namespace_for(program.clients().count())?, false, program)?;
        rig.link()?;
        rig.attach(server_end)
    }

    /// With nothing in its namespaces yet.
    fn around(server: File, is_server_borrowed: bool, program: Program) -> Result<Self, XdpError> {
        let program = Arc::new(Mutex::new(program));
        let (clients, used_addresses) = (new_namespace()?, AtomicU32::new(0));
        Ok(Self { program, _filter: None, server, clients, is_server_borrowed, used_addresses })
    }

    fn attach(mut self, server_end: &ServerEnd) -> Result<Self, XdpError> {
        let clients_index = self.in_clients(|| index_of(CLIENTS_END))??;
        let server_index = self.in_server(|| index_of(SERVER_END))??;
        self.in_clients(|| self.program().attach(PROGRAM, clients_index))??;
        self._filter = self.in_server(|| match server_end {
            ServerEnd::Pass => self.program().attach(PASS, server_index).map(|()| None),
            ServerEnd::Filter(ports) => filter(ports, server_index).map(Some),
        })??;
        Ok(self)
    }

    /// The program that plays the clients.
    pub fn program(&self) -> MutexGuard<'_, Program> {
        // Whoever panicked had no table half written: the kernel's tables are not in here.
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, for whoever keeps it.
    pub(super) fn shared_program(&self) -> Arc<Mutex<Program>> {
        Arc::clone(&self.program)
    }

    /// Where the first of `clients` clients lives that begin now. They get addresses that were nobody's for as long as
    /// there are any: the server may remember the last ones for a minute.
    pub(super) fn place_for(&self, clients: u32) -> SocketAddrV4 {
        let wanted = clients.div_ceil(PORTS_PER_ADDRESS);
        let used = self.used_addresses.load(Ordering::Relaxed);
        let first = if used.saturating_add(wanted) > CLIENT_ADDRESSES { 0 } else { used };
        self.used_addresses.store(first + wanted, Ordering::Relaxed);
        SocketAddrV4::new(Ipv4Addr::from(u32::from(*FIRST_CLIENT.ip()) + first), FIRST_CLIENT.port())
    }

    /// The server's namespace, for whoever starts a server in it. The path is good as long as this value is.
    #[must_use]
    pub fn server_path(&self) -> PathBuf {
        path_of(&self.server)
    }

    /// Runs `work` on a thread in the server's namespace.
    ///
    /// # Errors
    /// [`XdpError::Io`] when the system does not let us in.
    pub fn in_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, XdpError> {
        in_namespace(&path_of(&self.server), work).map_err(XdpError::io("enter the server's namespace"))
    }

    /// Runs `work` on a thread in the clients' namespace.
    ///
    /// # Errors
    /// As [`Self::in_server`].
    pub fn in_clients<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, XdpError> {
        in_namespace(&path_of(&self.clients), work).map_err(XdpError::io("enter the clients' namespace"))
    }

    /// A socket for frames to the server.
    ///
    /// # Errors
    /// [`XdpError::Io`].
    pub(super) fn frame_socket(&self) -> Result<socket2::Socket, XdpError> {
        self.in_clients(|| {
            let index = index_of(CLIENTS_END)?;
            sys::frame_socket(index).map_err(XdpError::io("open a socket for frames"))
        })?
    }

    /// The pair, one end in each namespace.
    fn link_pair(&self) -> Result<(), XdpError> {
        let (server_mac, gateway_mac) = (text_of(SERVER_MAC), text_of(GATEWAY_MAC));
        // The other end is given to a namespace by a thread that is in it.
        self.in_clients(|| {
            let thread = gettid().as_raw_nonzero().to_string();
            self.in_server(|| {
                let queues = ["numtxqueues", QUEUES, "numrxqueues", QUEUES];
                let ours = [&["link", "add", SERVER_END, "address", &server_mac][..], &queues].concat();
                let theirs =
                    [&["type", "veth", "peer", "name", CLIENTS_END, "address", &gateway_mac][..], &queues].concat();
                ip(&[&ours[..], &theirs, &["netns", &thread]].concat())
            })
        })??
    }

    fn set_up_clients_end(&self) -> Result<(), XdpError> {
        self.in_clients(|| {
            // It would ask its neighbours for routers, and answer for addresses that are the program's.
            if ipv6::is_there() {
                set("ipv6/conf/all/disable_ipv6", "1")?;
            }
            ip(&["link", "set", CLIENTS_END, "up"])
        })?
    }

    /// The pair, its addresses, and the one route.
    fn link(&self) -> Result<(), XdpError> {
        self.link_pair()?;
        self.set_up_clients_end()?;
        let gateway_mac = text_of(GATEWAY_MAC);
        self.in_server(|| {
            ip(&["link", "set", "lo", "up"])?;
            if ipv6::is_there() {
                ipv6::prepare()?;
                ipv6::give_address(SERVER_V6)?;
            }
            ip(&["address", "add", &format!("{SERVER}/30"), "dev", SERVER_END])?;
            ip(&["link", "set", SERVER_END, "up"])?;
            ip(&["neighbour", "add", GATEWAY, "lladdr", &gateway_mac, "dev", SERVER_END, "nud", "permanent"])?;
            ip(&["route", "add", CLIENTS_NETWORK, "via", GATEWAY, "dev", SERVER_END])?;
            if ipv6::is_there() {
                ipv6::lead_to_clients()?;
            }
            SERVER_SETTINGS.iter().try_for_each(|(name, value)| set(name, value))
        })?
    }
}

/// Where daemons of ours are in the server's namespace, which is theirs alone.
#[must_use]
pub fn addresses() -> Addresses {
    addresses_at(SERVER.into())
}

/// The same, with one of the server's addresses.
#[must_use]
pub fn addresses_at(server: IpAddr) -> Addresses {
    let outside = |port| SocketAddr::from((server, port));
    let inside = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Addresses {
        tcp: outside(3101),
        websocket: outside(3102),
        admin: inside(3180),
        http: inside(3111),
        trunk: inside(3119),
        trunk_as_dialled: inside(3119),
    }
}

/// The appliance's filter at an interface of this thread's namespace, guarding `ports`, with no rules.
fn filter(ports: &[u16], interface_index: u32) -> Result<Ebpf, XdpError> {
    let path = object("push-appliance.bpf.o")?;
    let refused = |reason: String| XdpError::Load { object: path.clone(), reason };
    let mut loaded = EbpfLoader::new().load_file(&path).map_err(|error| refused(error.to_string()))?;
    {
        let table = abi::maps::PROTECTED;
        let failed = |reason: String| XdpError::Table { doing: "write", table, reason };
        let map = loaded.map_mut(table).ok_or_else(|| failed("the object holds none".to_owned()))?;
        let mut words: Array<_, u64> = Array::try_from(map).map_err(|error| failed(error.to_string()))?;
        for port in ports {
            let (word, bit) = abi::maps::port_bit(*port);
            let before = words.get(&word, 0).map_err(|error| failed(error.to_string()))?;
            words.set(word, before | bit, 0).map_err(|error| failed(error.to_string()))?;
        }
    }
    let missing = || refused("it holds no filter".to_owned());
    let program = loaded.program_mut(abi::maps::FILTER).ok_or_else(missing)?;
    let program: &mut Xdp = program.try_into().map_err(|_| missing())?;
    load(program).map_err(|error| refused(error.to_string()))?;
    let attached = program.attach_to_if_index(interface_index, XdpMode::Driver);
    attached.map_err(|error| XdpError::Attach { program: abi::maps::FILTER, reason: error.to_string() })?;
    Ok(loaded)
}

/// A namespace for a server of so many connections. Very many get a kernel table of their own with a bucket for each: in the
/// host's, which all namespaces share, every segment would walk a long chain.
fn namespace_for(connections: u32) -> Result<File, XdpError> {
    if connections <= SHARED_TABLE_CONNECTIONS {
        return new_namespace();
    }
    let made = thread::spawn(move || {
        // What is set in one namespace holds for those that are made out of it, and the host's setting stays as it is.
        sys::enter_new_network_namespace().map_err(XdpError::io("make a network namespace"))?;
        set("ipv4/tcp_child_ehash_entries", &connections.min(MOST_BUCKETS).next_power_of_two().to_string())?;
        sys::enter_new_network_namespace()
            .and_then(|()| File::open("/proc/thread-self/ns/net"))
            .map_err(XdpError::io("make a network namespace with a large table of connections"))
    });
    made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn new_namespace() -> Result<File, XdpError> {
    let made = thread::spawn(|| {
        sys::enter_new_network_namespace()?;
        File::open("/proc/thread-self/ns/net")
    });
    let made = made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    made.map_err(XdpError::io("make a network namespace"))
}

fn path_of(namespace: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()))
}

/// Index of an interface of this thread's namespace.
fn index_of(name: &str) -> Result<u32, XdpError> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let found =
        socket(AddressFamily::INET, SocketType::DGRAM, None).and_then(|socket| netdevice::name_to_index(&socket, name));
    found.map_err(|error| XdpError::io(format!("find the interface {name}"))(error.into()))
}

/// Sets a sysctl of this thread's network namespace.
fn set(name: &str, value: &str) -> Result<(), XdpError> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).map_err(XdpError::io(format!("write {value} to {path}")))
}

fn ip(arguments: &[&str]) -> Result<(), XdpError> {
    ip_says(arguments).map(drop)
}

/// What `ip` prints.
fn ip_says(arguments: &[&str]) -> Result<String, XdpError> {
    let doing = format!("run ip {} (package iproute2)", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output().map_err(XdpError::io(doing.as_str()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(XdpError::io(doing)(std::io::Error::other(said)))
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
