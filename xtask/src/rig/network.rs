//! Two network namespaces and the veth pair between them.
//!
//! ```text
//! edge namespace   veth 10.203.0.1, fd00:203::1   <=>   veth 10.203.0.2, fd00:203::2   viewers namespace
//! ```
//!
//! The filter sits on the edge's end, so what viewers send passes it. Nothing here touches the host's interfaces.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `ip netns` keeps namespaces by name.
const NAMESPACES: &str = "/run/netns";

/// The edge's addresses, as viewers see them.
pub(crate) const EDGE_V4: &str = "10.203.0.1";
/// As above.
pub(crate) const EDGE_V6: &str = "fd00:203::1";
const VIEWERS_V4: &str = "10.203.0.2";
const VIEWERS_V6: &str = "fd00:203::2";

/// The two namespaces; dropping it removes them and the pair.
pub(crate) struct Network {
    prefix: String,
    _directory: NamespaceDirectory,
}

impl Network {
    /// Builds namespaces and pair. What an earlier run of the same name left behind when it was killed goes first.
    pub(crate) fn build(prefix: &str) -> Result<Self, String> {
        let network = Self { prefix: prefix.to_owned(), _directory: NamespaceDirectory::note()? };
        network.remove();
        let (edge, viewers) = (network.edge(), network.viewers());
        let (edge_end, viewers_end) = (network.edge_interface(), format!("{prefix}-view0"));
        ip(&["netns", "add", &edge])?;
        ip(&["netns", "add", &viewers])?;
        ip(&["-n", &edge, "link", "add", &edge_end, "type", "veth", "peer", "name", &viewers_end, "netns", &viewers])?;
        for (namespace, interface, v4, v6) in
            [(&edge, &edge_end, EDGE_V4, EDGE_V6), (&viewers, &viewers_end, VIEWERS_V4, VIEWERS_V6)]
        {
            ip(&["-n", namespace, "address", "add", &format!("{v4}/24"), "dev", interface])?;
            ip(&["-n", namespace, "address", "add", &format!("{v6}/64"), "dev", interface, "nodad"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", namespace, "link", "set", interface, "up"])?;
        }
        Ok(network)
    }

    /// Name of the edge's namespace.
    pub(crate) fn edge(&self) -> String {
        format!("{}-edge", self.prefix)
    }

    /// Name of the viewers' namespace.
    pub(crate) fn viewers(&self) -> String {
        format!("{}-viewers", self.prefix)
    }

    /// The edge's end of the pair, where the filter sits.
    pub(crate) fn edge_interface(&self) -> String {
        format!("{}-edge0", self.prefix)
    }

    /// Where viewers reach the edge.
    pub(crate) fn edge_address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 203, 0, 1], port))
    }

    fn remove(&self) {
        for name in [self.edge(), self.viewers()] {
            if namespace_path(&name).exists()
                && let Err(error) = ip(&["netns", "delete", &name])
            {
                eprintln!("xtask: {error}");
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The file that stands for a namespace.
pub(crate) fn namespace_path(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(name)
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run ip (package iproute2): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// `ip netns` mounts its directory on itself when it is first used; dropping this undoes that, if it was not so before
/// and nobody else's namespaces are there.
pub(crate) struct NamespaceDirectory {
    was_mounted: bool,
}

impl NamespaceDirectory {
    /// Remembers how it is now.
    pub(crate) fn note() -> Result<Self, String> {
        Ok(Self { was_mounted: is_mounted(NAMESPACES, None)? })
    }
}

impl Drop for NamespaceDirectory {
    fn drop(&mut self) {
        let is_empty = || fs::read_dir(NAMESPACES).is_ok_and(|mut entries| entries.next().is_none());
        if !self.was_mounted
            && is_empty()
            && let Err(error) = run_or_say("umount", &[NAMESPACES])
        {
            eprintln!("xtask: {error}");
        }
    }
}

/// A bpffs at its usual place; dropping it unmounts what it mounted itself.
pub(crate) struct BpfFileSystem {
    mounted_here: bool,
}

const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";

impl BpfFileSystem {
    /// Mounts it unless it is there.
    pub(crate) fn ensure() -> Result<Self, String> {
        let is_there = is_mounted(BPF_FILE_SYSTEM, Some("bpf"))?;
        if !is_there {
            run_or_say("mount", &["-t", "bpf", "bpf", BPF_FILE_SYSTEM])?;
        }
        Ok(Self { mounted_here: !is_there })
    }
}

impl Drop for BpfFileSystem {
    fn drop(&mut self) {
        if self.mounted_here
            && let Err(error) = run_or_say("umount", &[BPF_FILE_SYSTEM])
        {
            eprintln!("xtask: {error}");
        }
    }
}

/// Whether something is mounted at `place`, of this kind if one is named.
fn is_mounted(place: &str, kind: Option<&str>) -> Result<bool, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| format!("cannot read the mounts: {error}"))?;
    Ok(mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(place) && fields.next().is_some_and(|found| kind.is_none_or(|kind| kind == found))
    }))
}

fn run_or_say(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} {} failed: {status}", arguments.join(" "))),
        Err(error) => Err(format!("cannot run {program}: {error}")),
    }
}
