//! Two network namespaces with a veth pair between them, and a bpffs of the test's own.
//!
//! Names carry the process id, so that tests of several checkouts run at once; everything made here is unmade on drop,
//! also when the test fails.
#![allow(dead_code)] // Each test binary uses its own part of it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use perf_tests::probe::daemons::{binary, in_namespace};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// The server's end of the pair, where the filter goes.
pub(crate) const SERVER_INTERFACE: &str = "push0";

/// The server's end, in both families.
pub(crate) const SERVER: [&str; 2] = ["10.78.0.1", "fd78::1"];

/// Where eBPF objects are built to, or why this machine cannot use them.
///
/// # Errors
/// What is missing.
pub(crate) fn object() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces and eBPF need root".to_owned());
    }
    let path = std::env::var_os("PUSH_BPF_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/push-appliance.bpf.o"),
        PathBuf::from,
    );
    if path.exists() { Ok(path) } else { Err(format!("{} is not built (cargo xtask build-ebpf)", path.display())) }
}

/// A network namespace with its loopback up.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("push-e2e-{}-{}-{role}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Where the kernel shows it.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `work` inside; sockets and child processes made there stay there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.path(), work).expect("the namespace stands until it is dropped")
    }

    /// Has `ip` do something inside.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", self.name.as_str()], arguments].concat());
    }

    /// What `ip` says of something inside.
    pub(crate) fn ip_says(&self, arguments: &[&str]) -> String {
        ip(&[&["-n", self.name.as_str()], arguments].concat())
    }

    /// As `ip netns` calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// The server's namespace and the clients', one link apart.
pub(crate) struct Pair {
    pub(crate) server: Namespace,
    pub(crate) client: Namespace,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let pair = Self { server: Namespace::new("server"), client: Namespace::new("client") };
        let (server, client) = (&pair.server, &pair.client);
        let peer = ["type", "veth", "peer", "name", "client0", "netns", &client.name];
        server.ip(&[&["link", "add", SERVER_INTERFACE][..], &peer].concat());
        for (namespace, interface, host) in
            [(server, SERVER_INTERFACE, 1), (client, "client0", 2), (client, "client0", 3), (client, "client0", 4)]
        {
            namespace.ip(&["addr", "add", &format!("10.78.0.{host}/24"), "dev", interface]);
            // Without the wait for a duplicate of the address.
            namespace.ip(&["addr", "add", &format!("fd78::{host}/64"), "dev", interface, "nodad"]);
        }
        server.ip(&["link", "set", SERVER_INTERFACE, "up"]);
        client.ip(&["link", "set", "client0", "up"]);
        pair
    }
}

/// A bpffs on a temporary directory, with the pin root in it.
pub(crate) struct Bpffs {
    directory: TempDir,
}

impl Bpffs {
    pub(crate) fn mount() -> Self {
        let directory = TempDir::with_prefix("push-e2e-bpffs-").expect("a temporary directory");
        mount("bpf", directory.path(), "bpf", MountFlags::empty(), None).expect("root mounts a bpffs");
        Self { directory }
    }

    pub(crate) fn pin_root(&self) -> PathBuf {
        self.directory.path().join("push")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if let Ok(pushctl) = binary("pushctl") {
            // What is attached goes with its pins, whatever a test that failed has left.
            let _ = Command::new(pushctl).arg("--pin-root").arg(self.pin_root()).arg("detach").output();
        }
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

/// A connection from `from` to `to` that is on its way and may never stand.
pub(crate) fn start_connect(from: IpAddr, to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("it is ours");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("the address is on the interface");
    // `EINPROGRESS` is the ordinary answer; anything else is the socket's error later.
    let _ = socket.connect(&to.into());
    socket
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed (cargo xtask setup)");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
