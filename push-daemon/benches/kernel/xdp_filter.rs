//! Debian's xdp-filter, loaded on a veth of its own: the program that ours is compared with.

use std::{net::IpAddr, path::Path, process::Command};

use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::netns::Namespace;

/// Where it keeps its pins, which cannot be told otherwise.
const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";
const INTERFACE: &str = "xdpf0";

/// A bpffs of our own over whatever is at the usual place.
pub(crate) struct BpfFileSystem(());

impl BpfFileSystem {
    pub(crate) fn mount() -> Result<Self, String> {
        let own = std::fs::read_link("/proc/self/ns/mnt").ok();
        if own == std::fs::read_link("/proc/1/ns/mnt").ok() {
            return Err("it mounts a file system over the host's: run it as `cargo xtask bench --kernel`".to_owned());
        }
        mount("bpf", BPF_FILE_SYSTEM, "bpf", MountFlags::empty(), None)
            .map_err(|error| format!("cannot mount a bpffs at {BPF_FILE_SYSTEM}: {error}"))?;
        Ok(Self(()))
    }
}

impl Drop for BpfFileSystem {
    fn drop(&mut self) {
        // It goes with the mount namespace in any case.
        let _unmounted = unmount(BPF_FILE_SYSTEM, UnmountFlags::DETACH);
    }
}

/// It, attached and without rules at first.
pub(crate) struct XdpFilter {
    /// What it runs.
    pub(crate) program: Xdp,
    namespace: Namespace,
}

impl XdpFilter {
    /// In driver mode, with all of its features, letting pass what no rule speaks of.
    pub(crate) fn load() -> Result<Self, String> {
        let namespace = Namespace::new("x");
        namespace.ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", "xdpf1"]);
        namespace.ip(&["link", "set", INTERFACE, "up"]);
        run(&namespace, &["load", "--mode", "native", "--policy", "allow", INTERFACE])?;
        let pins = Path::new(BPF_FILE_SYSTEM).join("xdp-filter/programs").join(INTERFACE);
        let entries = std::fs::read_dir(&pins).map_err(|error| format!("cannot read {}: {error}", pins.display()))?;
        let pin = entries.flatten().next().ok_or_else(|| format!("xdp-filter pinned nothing in {}", pins.display()))?;
        let program = Xdp::from_pin(pin.path(), XdpAttachType::Interface)
            .map_err(|error| format!("cannot open {}: {error}", pin.path().display()))?;
        Ok(Self { program, namespace })
    }

    /// Drops what comes from `source`.
    pub(crate) fn deny(&self, source: IpAddr) -> Result<(), String> {
        run(&self.namespace, &["ip", "--mode", "src", &source.to_string()])
    }
}

fn run(namespace: &Namespace, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("xdp-filter");
    // Alone on its interface, without the dispatcher that would let others run behind it.
    command.args(arguments).env("LIBXDP_SKIP_DISPATCHER", "1");
    let output = namespace
        .run(|| command.output())
        .map_err(|error| format!("cannot run xdp-filter (package xdp-tools): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("xdp-filter {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
