//! The capabilities that the edge's unit grants are enough for the filter, and none of them can be spared.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;
mod namespaces;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use missing_part::{Kind, or_skip};
use namespaces::{Bpffs, Pair, SERVER_INTERFACE, object};
use perf_tests::probe::daemons::binary;
use tempfile::TempDir;

const UNIT: &str = include_str!("../../systemd/push-daemon.service");

/// Anybody but root; no such user has to be known.
const USER: u32 = 65_534;

/// Killed when dropped.
struct Edge(Child);

impl Drop for Edge {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the unit names, as `setpriv` does: without `CAP_`.
fn granted() -> Vec<String> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    line.split(' ').map(|name| name.strip_prefix("CAP_").unwrap().to_lowercase()).collect()
}

/// Binary, object and settings where a user without rights can read them.
struct Installed(TempDir);

impl Installed {
    fn new(object: &Path, pin_root: &Path) -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let installed = Self(directory);
        fs::copy(binary("push-daemon").unwrap(), installed.path("push-daemon")).unwrap();
        fs::copy(object, installed.path("object")).unwrap();
        let settings = format!(
            "[kernel]\ninterface = \"{SERVER_INTERFACE}\"\nmode = \"driver\"\nobject = {:?}\npin_root = {pin_root:?}\n",
            installed.path("object")
        );
        fs::write(installed.path("settings"), settings).unwrap();
        installed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the edge with `capabilities` and no others until it is ready or has ended. What it said until then, and
    /// whether it is ready.
    fn run_with(&self, capabilities: &[String]) -> (bool, String) {
        let set = ["-all".to_owned()].into_iter().chain(capabilities.iter().map(|name| format!("+{name}")));
        let set = set.collect::<Vec<_>>().join(",");
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups", "--no-new-privs"]);
        command.args(["bounding-set", "inh-caps", "ambient-caps"].map(|kind| format!("--{kind}={set}")));
        command.arg(self.path("push-daemon")).arg("--config").arg(self.path("settings"));
        let mut edge = Edge(command.env_remove("RUST_LOG").stderr(Stdio::piped()).spawn().unwrap());
        let mut said = String::new();
        for line in BufReader::new(edge.0.stderr.take().unwrap()).lines().map_while(Result::ok) {
            said += &format!("{line}\n");
            if line.contains("ready for clients") {
                return (true, said);
            }
        }
        assert!(!edge.0.wait().unwrap().success(), "it ended without being asked to: {said}");
        (false, said)
    }
}

#[test]
fn the_units_capabilities_are_enough_and_none_can_be_spared() {
    let Some(object) = or_skip(Kind::Kernel, "least_privilege", object()) else { return };
    let (pair, bpffs) = (Pair::new(), Bpffs::mount());
    // As the shipped tmpfiles have it.
    let (root, pins) = (bpffs.pin_root().parent().unwrap().to_owned(), bpffs.pin_root());
    fs::set_permissions(&root, Permissions::from_mode(0o711)).unwrap();
    fs::create_dir(&pins).unwrap();
    fs::set_permissions(&pins, Permissions::from_mode(0o750)).unwrap();
    chown(&pins, Some(USER), Some(USER)).unwrap();
    let installed = Installed::new(&object, &pins);

    let all = granted();
    assert!(!all.is_empty());
    for spared in &all {
        let rest: Vec<String> = all.iter().filter(|name| *name != spared).cloned().collect();
        let (is_ready, said) = pair.server.run(|| installed.run_with(&rest));
        assert!(!is_ready, "{spared} is not needed: {said}");
        assert!(
            said.contains("not permitted to ") && said.contains(&format!("CAP_{}", spared.to_uppercase())),
            "{said}"
        );
    }
    let (is_ready, said) = pair.server.run(|| installed.run_with(&all));
    for words in ["the filter is in force", "connections are steered"] {
        assert!(is_ready && said.contains(words), "{all:?} are not enough: {said}");
    }
}
