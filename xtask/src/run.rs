//! `cargo xtask run`: the whole appliance on this machine, to look at and to type into.
//!
//! As root the edge lives in a network namespace behind a veth pair with the filter on it, and the host's loopback
//! ports lead to it through the viewers' namespace. Without root it runs on loopback, without a kernel plane.
//! Ctrl-C takes everything down again.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::rig::forward::forward;
use crate::rig::network::{BpfFileSystem, EDGE_V6, Network};
use crate::rig::process::{Daemon, answers};
use crate::setup::{self, Purpose};
use crate::{ebpf, workspace};

/// How long a daemon may take until it is ready.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How often the daemons are looked after.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Options of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build with optimisation, as for measuring
    #[arg(long)]
    release: bool,
    /// Run on loopback, without namespaces and without the filter, even as root
    #[arg(long)]
    no_kernel: bool,
    /// Attach the filter in the kernel's generic path instead of the driver's
    #[arg(long)]
    generic: bool,
    /// Prefix of everything that is made: namespaces, interfaces, pins, files (at most 8 characters)
    #[arg(long, default_value = "push", value_parser = prefix)]
    prefix: String,
    /// Ports on the host: base+1 TCP, base+2 WebSocket, base+11 publisher API, base+90 page
    #[arg(long, default_value_t = 3100)]
    base_port: u16,
}

/// Interface names end at 15 characters.
fn prefix(text: &str) -> Result<String, String> {
    let fits =
        (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err("1 to 8 lower-case letters and digits".to_owned()) }
}

/// The same inside the edge's namespace and on the host's loopback, so that what the edge says of itself is true there.
struct Ports {
    tcp: u16,
    websocket: u16,
    publisher: u16,
    trunk: u16,
    page: u16,
}

/// Where a port of the appliance is on the host.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Sets up, builds, starts, and waits for Ctrl-C.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let with_kernel = !arguments.no_kernel && setup::is_root();
    setup::ensure(if with_kernel { Purpose::Run } else { Purpose::Build })?;
    let object = if with_kernel { Some(ebpf::make()?) } else { None };
    let binaries = build(arguments.release)?;

    let directory = workspace::target().join("run").join(&arguments.prefix);
    fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let _lock = lock(&directory)?;
    let base = arguments.base_port;
    let ports = Ports { tcp: base + 1, websocket: base + 2, publisher: base + 11, trunk: base + 19, page: base + 90 };

    let (stop, stopped) = channel();
    ctrlc::set_handler(move || {
        // The receiver is gone only when we are leaving already.
        let _leaving = stop.send(());
    })
    .map_err(|error| format!("cannot watch for Ctrl-C: {error}"))?;

    let mut rig = Rig::build(arguments, &binaries, &directory, object.as_deref(), &ports)?;
    rig.greet(arguments, &ports, &binaries);
    loop {
        match stopped.recv_timeout(WATCH_INTERVAL) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => rig.look_after()?,
        }
    }
    println!("\nstops: daemons, pins, namespaces");
    drop(rig);
    println!("nothing is left running");
    Ok(())
}

/// Everything that runs, in the order in which it has to go: fields drop from first to last.
struct Rig {
    edge: Daemon,
    tier: Daemon,
    kernel: Option<KernelSide>,
}

/// What only root has.
struct KernelSide {
    _pins: Pins,
    network: Network,
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

impl Rig {
    fn build(
        arguments: &Arguments,
        binaries: &Path,
        directory: &Path,
        object: Option<&Path>,
        ports: &Ports,
    ) -> Result<Self, String> {
        let kernel = object.map(|_| KernelSide::build(&arguments.prefix, binaries)).transpose()?;
        let network = kernel.as_ref().map(|kernel| &kernel.network);
        let tier_config = directory.join("logic-tier.toml");
        write(&tier_config, &tier_settings(directory, ports))?;
        let edge_config = directory.join("push-daemon.toml");
        write(&edge_config, &edge_settings(arguments, ports, network.zip(object)))?;

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
    fn look_after(&mut self) -> Result<(), String> {
        for daemon in [&mut self.edge, &mut self.tier] {
            if let Some(status) = daemon.ended() {
                return Err(daemon.obituary(status));
            }
        }
        Ok(())
    }

    fn greet(&self, arguments: &Arguments, ports: &Ports, binaries: &Path) {
        let Ports { tcp, websocket, publisher, page, .. } = ports;
        println!("\nThe appliance is up.\n");
        println!("  page        http://127.0.0.1:{page}/");
        println!(
            "  publish     curl -d 'hello' 'http://127.0.0.1:{publisher}/goim/push/room?operation=1000&type=live&room=1000'"
        );
        println!("  clients     tcp 127.0.0.1:{tcp}   websocket ws://127.0.0.1:{websocket}/sub");
        match &self.kernel {
            Some(kernel) => {
                let pushctl = binaries.join("pushctl");
                let root = pin_root(&arguments.prefix);
                println!("  filter      on {} in namespace {}", kernel.network.edge_interface(), kernel.network.edge());
                println!("  pushctl     {} --pin-root {} status", pushctl.display(), root.display());
                println!(
                    "              {} --pin-root {} filter add 10.203.0.2   (shuts the page's room out)",
                    pushctl.display(),
                    root.display()
                );
            }
            None => {
                println!("  filter      none: run as root (and without --no-kernel) for the XDP filter on a veth pair")
            }
        }
        println!("\nCtrl-C ends it and takes everything down.");
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

fn pin_root(prefix: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(format!("{prefix}-appliance"))
}

/// Builds the binaries that run and gives their directory.
fn build(release: bool) -> Result<PathBuf, String> {
    let mut command = Command::new(workspace::cargo());
    command.args(["build", "--package", "push-daemon", "--package", "logic-tier"]);
    if release {
        command.arg("--release");
    }
    workspace::run(&mut command)?;
    Ok(workspace::target().join(if release { "release" } else { "debug" }))
}

/// One run of a prefix at a time: what it would find of another is then known to be left over.
fn lock(directory: &Path) -> Result<File, String> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    file.try_lock().map_err(|_| format!("another `cargo xtask run` holds {}: end it first", path.display()))?;
    Ok(file)
}

fn tier_settings(directory: &Path, ports: &Ports) -> String {
    let Ports { publisher, trunk, .. } = ports;
    format!(
        "[http]\nlisten = \"127.0.0.1:{publisher}\"\n\n[trunk]\nlisten = \"127.0.0.1:{trunk}\"\n\n[bus]\ndir = {:?}\n",
        directory.join("bus").display().to_string()
    )
}

fn edge_settings(arguments: &Arguments, ports: &Ports, kernel: Option<(&Network, &Path)>) -> String {
    let Ports { tcp, websocket, trunk, page, .. } = ports;
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
        let mode = if arguments.generic { "generic" } else { "driver" };
        text += &format!(
            "\n[kernel]\ninterface = \"{}\"\nmode = \"{mode}\"\nobject = {:?}\npin_root = {:?}\n",
            network.edge_interface(),
            object.display().to_string(),
            pin_root(&arguments.prefix).display().to_string(),
        );
    }
    text
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
