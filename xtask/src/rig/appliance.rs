//! The daemons on this machine, with their settings, and as root the kernel side around the edge.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::forward::forward;
use super::network::{BpfFileSystem, EDGE_V6, Network};
use super::process::{Daemon, answers};

/// How long a daemon may take until it is ready.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The same inside the edge's namespace and on the host's loopback, so that what the edge says of itself is true there.
pub(crate) struct Ports {
    pub(crate) tcp: u16,
    pub(crate) websocket: u16,
    pub(crate) publisher: u16,
    pub(crate) trunk: u16,
    pub(crate) page: u16,
}

impl Ports {
    /// The fixed numbers, moved by `base - 3100`.
    pub(crate) fn from_base(base: u16) -> Self {
        Self { tcp: base + 1, websocket: base + 2, publisher: base + 11, trunk: base + 19, page: base + 90 }
    }
}

/// Where a port of the appliance is on the host.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// What to build.
pub(crate) struct Plan<'a> {
    /// Prefix of namespaces, interfaces and pins.
    pub(crate) prefix: &'a str,
    /// Where the binaries are.
    pub(crate) binaries: &'a Path,
    /// For settings, logs and the bus.
    pub(crate) directory: &'a Path,
    /// The compiled programs; none for no kernel plane.
    pub(crate) object: Option<&'a Path>,
    /// Attach in the kernel's generic path instead of the driver's.
    pub(crate) generic: bool,
    /// Ports.
    pub(crate) ports: &'a Ports,
}

/// Everything that runs, in the order in which it has to go: fields drop from first to last.
pub(crate) struct Appliance {
    pub(crate) edge: Daemon,
    pub(crate) tier: Daemon,
    pub(crate) kernel: Option<KernelSide>,
}

/// What only root has.
pub(crate) struct KernelSide {
    _pins: Pins,
    pub(crate) network: Network,
    _bpf: BpfFileSystem,
}

/// The filter's pins; dropping it takes the filter down.
struct Pins {
    pushctl: PathBuf,
    root: PathBuf,
}

impl Drop for Pins {
    fn drop(&mut self) {
        if !self.root.exists() {
            return;
        }
        let detached = Command::new(&self.pushctl).arg("--pin-root").arg(&self.root).arg("detach").output();
        let failed = match detached {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failed {
            eprintln!("xtask: cannot take the filter down: {why}");
        }
    }
}

impl Appliance {
    /// Starts everything and waits until it is ready.
    pub(crate) fn start(plan: &Plan<'_>) -> Result<Self, String> {
        let Plan { directory, ports, binaries, .. } = plan;
        let kernel = plan.object.map(|_| KernelSide::build(plan.prefix, binaries)).transpose()?;
        let network = kernel.as_ref().map(|kernel| &kernel.network);
        let tier_config = directory.join("logic-tier.toml");
        write(&tier_config, &tier_settings(directory, ports, network.is_some()))?;
        let edge_config = directory.join("push-daemon.toml");
        write(&edge_config, &edge_settings(plan, network.zip(plan.object)))?;

        let namespace = network.map(Network::edge);
        if let Some(network) = network {
            forward(ports.page, &network.edge(), loopback(ports.page))?;
            forward(ports.publisher, &network.edge(), loopback(ports.publisher))?;
            forward(ports.tcp, &network.viewers(), Network::edge_address(ports.tcp))?;
            forward(ports.websocket, &network.viewers(), Network::edge_address(ports.websocket))?;
        }
        let start =
            |name, config: &Path| Daemon::start(name, &binaries.join(name), config, namespace.as_deref(), directory);
        let mut tier = start("logic-tier", &tier_config)?;
        tier.wait_until(START_PATIENCE, || answers(loopback(ports.publisher), "/healthz"))?;
        let mut edge = start("push-daemon", &edge_config)?;
        edge.wait_until(START_PATIENCE, || answers(loopback(ports.page), "/healthz"))?;
        Ok(Self { edge, tier, kernel })
    }

    /// An error when a daemon has ended by itself.
    pub(crate) fn look_after(&mut self) -> Result<(), String> {
        for daemon in [&mut self.edge, &mut self.tier] {
            if let Some(status) = daemon.ended() {
                return Err(daemon.obituary(status));
            }
        }
        Ok(())
    }
}

impl KernelSide {
    fn build(prefix: &str, binaries: &Path) -> Result<Self, String> {
        let bpf = BpfFileSystem::ensure()?;
        let pins = Pins { pushctl: binaries.join("pushctl"), root: pin_root(prefix) };
        let network = Network::build(prefix)?;
        Ok(Self { _pins: pins, network, _bpf: bpf })
    }
}

/// Where the filter of this prefix is pinned.
pub(crate) fn pin_root(prefix: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(format!("{prefix}-appliance"))
}

/// An edge in a namespace has an address that is not loopback, though nobody outside this host reaches it.
fn tier_settings(directory: &Path, ports: &Ports, in_a_namespace: bool) -> String {
    let Ports { publisher, trunk, .. } = ports;
    format!(
        "[http]\nlisten = \"127.0.0.1:{publisher}\"\n\n[trunk]\nlisten = \"127.0.0.1:{trunk}\"\n\n[bus]\ndirectory = {:?}\n\n\
         [admission]\nallow_open = {in_a_namespace}\n",
        directory.join("bus").display().to_string()
    )
}

fn edge_settings(plan: &Plan<'_>, kernel: Option<(&Network, &Path)>) -> String {
    let Ports { tcp, websocket, trunk, page, .. } = plan.ports;
    let hosts: &[String] = match kernel {
        Some(_) => &["127.0.0.1".to_owned(), Network::edge_address(0).ip().to_string(), format!("[{EDGE_V6}]")],
        None => &["127.0.0.1".to_owned()],
    };
    let addresses = |port: &u16| hosts.iter().map(|host| format!("\"{host}:{port}\"")).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "[node]\nname = \"edge-1\"\nhostname = \"localhost\"\n\n[listen]\ntcp = [{}]\nwebsocket = [{}]\n\n\
         [admin]\nlisten = \"127.0.0.1:{page}\"\n\n[trunk]\nlines = [{{ name = \"A\", address = \"127.0.0.1:{trunk}\" }}]\n",
        addresses(tcp),
        addresses(websocket),
    );
    if let Some((network, object)) = kernel {
        let mode = if plan.generic { "generic" } else { "driver" };
        text += &format!(
            "\n[kernel]\ninterface = \"{}\"\nmode = \"{mode}\"\nobject = {:?}\npin_root = {:?}\n",
            network.edge_interface(),
            object.display().to_string(),
            pin_root(plan.prefix).display().to_string(),
        );
    }
    text
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
