//! Debian's kernel for virtual machines, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};

use super::{remove_if_there, run};
use crate::ebpf::neutral;
use crate::setup;

/// Depends on the package of the release's newest kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel's package, unpacked.
pub(crate) struct Kernel {
    /// Its name, which tells the version.
    pub(crate) package: String,
    /// The version, as `uname -r` says it.
    pub(crate) release: String,
    /// Where it is unpacked.
    root: PathBuf,
}

impl Kernel {
    /// What boots.
    pub(crate) fn boots(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The directory of its modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}

/// The newest kernel that this machine's Debian offers; fetched when it is not under `place` yet.
pub(crate) fn fetch(place: &Path) -> Result<Kernel, String> {
    let package = newest()?;
    let release = package
        .strip_prefix("linux-image-")
        .ok_or_else(|| format!("{META_PACKAGE} depends on {package}, which is no kernel"))?
        .to_owned();
    let root = place.join(&package);
    let kernel = Kernel { package, release, root };
    if kernel.boots().is_file() && kernel.modules().is_dir() {
        return Ok(kernel);
    }
    println!("vm: fetching {}", kernel.package);
    let archive = download(place, &kernel.package)?;
    // Under its own name only when it is whole.
    let beside = place.join("unpacking");
    remove_if_there(&beside)?;
    run(neutral("dpkg").arg("-x").arg(&archive).arg(&beside))?;
    remove_if_there(&kernel.root)?;
    fs::rename(&beside, &kernel.root)
        .map_err(|error| format!("cannot rename {} to {}: {error}", beside.display(), kernel.root.display()))?;
    fs::remove_file(&archive).map_err(|error| format!("cannot remove {}: {error}", archive.display()))?;
    if kernel.boots().is_file() {
        return Ok(kernel);
    }
    Err(format!("the package {} holds no {}", kernel.package, kernel.boots().display()))
}

/// Name of the package that the meta package depends on.
fn newest() -> Result<String, String> {
    if let Some(package) = dependency()? {
        return Ok(package);
    }
    // A fresh machine has no lists of packages yet.
    if setup::is_root() {
        run(neutral("apt-get").args(["-qq", "update"]))?;
    }
    dependency()?.ok_or_else(|| {
        format!(
            "apt knows no package {META_PACKAGE}: the VM takes Debian on x86-64, and `apt-get update` by root before it"
        )
    })
}

fn dependency() -> Result<Option<String>, String> {
    let output = neutral("apt-cache")
        .args(["depends", "--important", META_PACKAGE])
        .output()
        .map_err(|error| format!("cannot run apt-cache, and the VM's kernel comes from Debian: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned)))
}

/// The package's file, alone in a directory of its own.
fn download(place: &Path, package: &str) -> Result<PathBuf, String> {
    let directory = place.join("download");
    remove_if_there(&directory)?;
    fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    // As root, apt fetches as a user of its own, who may not write here; it then says so and fetches as root.
    run(neutral("apt-get")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(&directory))?;
    let files = fs::read_dir(&directory).map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
    files
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| format!("apt-get download {package} left no package in {}", directory.display()))
}
