//! What the kernel tests stand on: namespaces with a veth pair, a private bpffs, and the word on what is missing.
//!
//! Everything made here is unmade on drop, also when a test panics. Names carry the process id, so tests of several checkouts
//! can run at once.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::{
    env,
    fs::File,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use push_daemon::kernel::{KernelConfig, Mode, take_down};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// The compiled object, or `None` after saying on stderr why the test is skipped.
///
/// `PUSH_REQUIRE_KERNEL=1` turns what is missing into a failure, so that a green run never hides it.
pub(crate) fn object() -> Option<PathBuf> {
    let path = env::var_os("PUSH_BPF_OBJECT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/push-appliance.bpf.o"),
        PathBuf::from,
    );
    let missing = if !rustix::process::geteuid().is_root() {
        "it needs root for namespaces and eBPF".to_owned()
    } else if !path.exists() {
        format!("{} is not built (cargo xtask build-ebpf)", path.display())
    } else {
        return Some(path);
    };
    assert!(env::var_os("PUSH_REQUIRE_KERNEL").is_none_or(|value| value != "1"), "required, and {missing}");
    // The runner names a test's thread after it.
    let thread = thread::current();
    eprintln!("skipped: {}: {missing}", thread.name().unwrap_or("a test"));
    None
}

/// Whether this kernel is at least Linux `major`.`minor`. If not, says that the test is skipped, and that it needs so much for
/// `what`. The suite also runs on 6.1, which lacks some of what newer ones have (`cargo xtask test --vm`).
pub(crate) fn kernel_is_at_least(major: u32, minor: u32, what: &str) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers =
        release.split(|character: char| !character.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor) {
        return true;
    }
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("skipped: {test}: it needs Linux {major}.{minor} for {what}, and this is {release}");
    false
}

/// A bpffs of our own on a temporary directory, with the pin root in it.
pub(crate) struct Bpffs {
    dir: TempDir,
}

impl Bpffs {
    pub(crate) fn mount() -> Self {
        let dir = TempDir::with_prefix("push-bpffs-").unwrap();
        mount("bpf", dir.path(), "bpf", MountFlags::empty(), None).unwrap();
        Self { dir }
    }

    pub(crate) fn pin_root(&self) -> PathBuf {
        self.dir.path().join("push")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Whatever is still attached goes with its pins; a test that failed may have left anything.
        let _ = take_down(&self.pin_root());
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

/// A network namespace with its loopback up.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        let name = format!("push-{}-{}-{role}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// `ip` with `arguments` inside.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", self.name.as_str()], arguments].concat());
    }

    /// Runs `work` on a thread inside; sockets and child processes made there stay in the namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(rustix::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
                    .unwrap();
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

pub(crate) const SERVER_V4: &str = "10.77.0.1";
pub(crate) const SERVER_V6: &str = "fd77::1";
/// Interface of the server's end, where the filter goes.
pub(crate) const SERVER_INTERFACE: &str = "push0";

/// Two namespaces and a veth pair: the server's end with one address of each family, the client's with several.
pub(crate) struct Pair {
    pub(crate) server: Namespace,
    pub(crate) client: Namespace,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let pair = Self { server: Namespace::new("s"), client: Namespace::new("c") };
        let (server, client) = (&pair.server, &pair.client);
        server.ip(&["link", "add", SERVER_INTERFACE, "type", "veth", "peer", "name", "client0", "netns", &client.name]);
        server.ip(&["addr", "add", "10.77.0.1/24", "dev", SERVER_INTERFACE]);
        server.ip(&["addr", "add", "fd77::1/64", "dev", SERVER_INTERFACE, "nodad"]);
        for last in 2..6 {
            client.ip(&["addr", "add", &format!("10.77.0.{last}/24"), "dev", "client0"]);
            client.ip(&["addr", "add", &format!("fd77::{last}/64"), "dev", "client0", "nodad"]);
        }
        server.ip(&["link", "set", SERVER_INTERFACE, "up"]);
        client.ip(&["link", "set", "client0", "up"]);
        pair
    }
}

/// A configuration for the server's end of a [`Pair`].
pub(crate) fn config(object: &Path, bpffs: &Bpffs, interface: &str, mode: Mode) -> KernelConfig {
    KernelConfig {
        object: object.into(),
        pin_root: bpffs.pin_root(),
        protected_ports: vec![3101, 3102],
        ..KernelConfig::new(interface, mode)
    }
}

/// A connection from `from` to `to` that is on its way and may never arrive.
pub(crate) fn start_connect(from: IpAddr, to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    // `EINPROGRESS` is the ordinary answer.
    let _ = socket.connect(&to.into());
    socket
}

/// Waits for the connection to stand.
pub(crate) fn await_connected(socket: &Socket) {
    eventually("the connection stands", || {
        assert_eq!(socket.take_error().unwrap().map(|error| error.to_string()), None);
        socket.peer_addr().is_ok()
    });
}

/// Polls `condition` until it holds; ten seconds are for a machine under load, not a promise of speed.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed (cargo xtask setup)");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}
