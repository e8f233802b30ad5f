//! Everything that runs in the machine, as one archive that the kernel unpacks into memory.
//!
//! Each file stands at the path that it has here, so that what a test remembers from its build (`CARGO_BIN_EXE_*`, its own
//! path, the directory of its package) is true in the machine as well. Binaries come with the libraries that `ldd` names.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::kernel::Kernel;
use super::suite::Suite;
use super::{remove_if_there, run};
use crate::ebpf::neutral;
use crate::ebpf_toolchain::find_program;

const INIT: &str = include_str!("init.sh");

/// Parts of the kernel's modules that the tests may need; the kernel loads them when something asks for them.
const MODULES: [&str; 10] = [
    "kernel/net/sched",
    "kernel/net/ipv4",
    "kernel/net/ipv6",
    "kernel/net/8021q",
    "kernel/net/802",
    "kernel/net/core",
    "kernel/net/llc",
    "kernel/lib",
    "kernel/drivers/net/veth.ko",
    "kernel/drivers/net/dummy.ko",
];

/// Programs of iproute2.
const TOOLS: [&str; 2] = ["ip", "tc"];

/// Makes the archive under `place`, and says where.
pub(crate) fn pack(
    place: &Path,
    kernel: &Kernel,
    suite: &Suite,
    object: &Path,
    filter: &[String],
) -> Result<PathBuf, String> {
    let busybox = find_program("busybox").ok_or("busybox is not installed (cargo xtask setup --for vm)")?;
    let stage = Stage::new(place.join("root"))?;
    stage.write("init", INIT, 0o755)?;
    stage.copy(&busybox, Path::new("/bin/busybox"))?;
    stage.link("/bin/busybox", "/sbin/modprobe")?;
    for directory in ["/applets", "/proc", "/sys", "/dev", "/run", "/tmp"] {
        stage.directory(Path::new(directory))?;
    }
    stage.directory(&suite.directory)?;
    stage.write("suite", &lines(&suite.tests), 0o644)?;
    stage.write("directory", &format!("{}\n", suite.directory.display()), 0o644)?;
    stage.write("object", &format!("{}\n", object.display()), 0o644)?;
    stage.write("filter", &filter.iter().map(|word| format!("{word}\n")).collect::<String>(), 0o644)?;
    stage.copy(object, object)?;

    // None, when it is the static one.
    let mut libraries = BTreeSet::from_iter(libraries_of(&busybox)?);
    for binary in suite.tests.iter().chain(&suite.programs) {
        stage.copy_stripped(binary)?;
        libraries.extend(libraries_of(binary)?);
    }
    for tool in TOOLS {
        let path = find_program(tool).ok_or_else(|| format!("{tool} is not installed (package iproute2)"))?;
        stage.copy(&path, &Path::new("/sbin").join(tool))?;
        libraries.extend(libraries_of(&path)?);
    }
    for library in &libraries {
        stage.copy(library, library)?;
    }
    add_modules(&stage, kernel, &busybox)?;
    stage.archive(&busybox, &place.join("image.cpio"))
}

fn lines(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("{}\n", path.display())).collect()
}

/// Copies the modules, and has their dependencies and aliases listed, by which `modprobe` finds them.
fn add_modules(stage: &Stage, kernel: &Kernel, busybox: &Path) -> Result<(), String> {
    let from = kernel.modules();
    let to = Path::new("/lib/modules").join(&kernel.release);
    for part in MODULES {
        stage.copy_tree(&from.join(part), &to.join(part))?;
    }
    for list in ["modules.order", "modules.builtin"] {
        stage.copy(&from.join(list), &to.join(list))?;
    }
    run(neutral(busybox).arg("depmod").arg("-b").arg(&stage.root).arg(&kernel.release))
}

/// What the dynamic linker loads for `binary`, itself included. None for a static one.
fn libraries_of(binary: &Path) -> Result<Vec<PathBuf>, String> {
    let output = neutral("ldd").arg(binary).output().map_err(|error| format!("cannot run ldd: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        return Err(format!("{} needs a library that is not here: {}", binary.display(), line.trim()));
    }
    Ok(text.lines().filter_map(library_in).collect())
}

/// The path in a line such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f...)`.
fn library_in(line: &str) -> Option<PathBuf> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from)
}

/// A directory that becomes the machine's root.
struct Stage {
    root: PathBuf,
}

impl Stage {
    /// An empty one.
    fn new(root: PathBuf) -> Result<Self, String> {
        remove_if_there(&root)?;
        fs::create_dir_all(&root).map_err(|error| format!("cannot make {}: {error}", root.display()))?;
        Ok(Self { root })
    }

    /// Where `path` of the machine is here.
    fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn directory(&self, path: &Path) -> Result<(), String> {
        let place = self.place(path);
        fs::create_dir_all(&place).map_err(|error| format!("cannot make {}: {error}", place.display()))
    }

    /// `place`, after making what it stands in.
    fn room_for(&self, path: &Path) -> Result<PathBuf, String> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        Ok(self.place(path))
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), String> {
        let place = self.room_for(Path::new(name))?;
        fs::write(&place, text)
            .and_then(|()| fs::set_permissions(&place, fs::Permissions::from_mode(mode)))
            .map_err(|error| format!("cannot write {}: {error}", place.display()))
    }

    fn link(&self, to: &str, name: &str) -> Result<(), String> {
        let place = self.room_for(Path::new(name))?;
        symlink(to, &place).map_err(|error| format!("cannot make {}: {error}", place.display()))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), String> {
        let place = self.room_for(to)?;
        fs::copy(from, &place)
            .map(drop)
            .map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), place.display()))
    }

    /// Without what only a debugger reads, which is most of a binary and would all be in the machine's memory.
    fn copy_stripped(&self, binary: &Path) -> Result<(), String> {
        let place = self.room_for(binary)?;
        run(neutral("strip").arg("--strip-debug").arg("-o").arg(&place).arg(binary))
    }

    /// A file, or a directory with all that is in it.
    fn copy_tree(&self, from: &Path, to: &Path) -> Result<(), String> {
        if !from.is_dir() {
            return self.copy(from, to);
        }
        let entries = fs::read_dir(from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
        for entry in entries.flatten() {
            self.copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
        Ok(())
    }

    /// Packs it all, as root's.
    fn archive(&self, busybox: &Path, to: &Path) -> Result<PathBuf, String> {
        let script = "\"$0\" find . | \"$0\" cpio -o -H newc -R 0:0 >\"$1\" 2>/dev/null";
        run(neutral(busybox).args(["sh", "-c", script]).arg(busybox).arg(to).current_dir(&self.root))?;
        Ok(to.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let path = |line| library_in(line).map(|path| path.display().to_string());
        assert_eq!(path("\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f8838)"), Some("/lib/x/libc.so.6".to_owned()));
        assert_eq!(path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"), Some("/lib64/ld-linux-x86-64.so.2".to_owned()));
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007f8838c93000)"), None);
        assert_eq!(path("\tstatically linked"), None);
    }
}
