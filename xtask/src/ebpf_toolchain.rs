//! Which compiler can build for the kernel's target on this machine, and with which linker.
//!
//! `bpfel-unknown-none` has no prebuilt `core`, so the compiler's library sources must be there and `-Z build-std` allowed.
//! Two ways lead there: a toolchain of rustup with the component rust-src, or a distribution's compiler with its source
//! package (Debian: rustc-web, cargo-web, rust-web-src). Stable releases of either are told to take unstable options: the
//! kernel's programs then come from the very compiler that builds the rest, and no nightly moves under them.
//! This file finds; it does not install.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::ebpf::neutral;

/// The stable release that is known to work, for machines whose own one is too new for the linker.
pub(crate) const KNOWN_RELEASE: &str = "1.95.0";
/// Major versions of LLVM that the linker's release can be built with.
const LINKER_LLVM: RangeInclusive<u32> = 21..=23;

/// A compiler that can build for the kernel's target.
pub(crate) enum Toolchain {
    /// A rustup toolchain with rust-src, by name.
    Rustup(String),
    /// The distribution's compiler, by the directory of its binaries.
    System(PathBuf),
}

impl fmt::Display for Toolchain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Toolchain::Rustup(name) => write!(out, "rustup's {name}"),
            Toolchain::System(bin) => write!(out, "the system's {}", bin.join("rustc").display()),
        }
    }
}

impl Toolchain {
    /// Its cargo, ready for unstable options.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.program("cargo");
        command.env("RUSTC_BOOTSTRAP", "1");
        if let Toolchain::System(bin) = self {
            // Build scripts look for `rustc` on the path, and must find the one that compiles.
            command.env("PATH", path_with(bin)).env("RUSTC", bin.join("rustc"));
        }
        command
    }

    /// Major version of the compiler's LLVM; the linker must be built with the same or a later one.
    pub(crate) fn llvm_major(&self) -> Result<u32, String> {
        let said = output(self.program("rustc").arg("-vV"))?;
        said.lines()
            .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
            .ok_or_else(|| format!("{self} does not say its LLVM version"))
    }

    /// The LLVM that the compiler itself loads. The linker is built against this one, so no other has to be installed, and
    /// the two agree to the last digit.
    pub(crate) fn llvm_library(&self) -> Result<PathBuf, String> {
        let name = format!("libLLVM.so.{}.", self.llvm_major()?);
        let lib = self.sysroot().join("lib");
        let architecture = lib.join(format!("{}-linux-gnu", env::consts::ARCH));
        [&lib, &architecture]
            .into_iter()
            .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&name))
            .map(|entry| entry.path())
            .ok_or_else(|| format!("{self} has no {name}* in {} or {}", lib.display(), architecture.display()))
    }

    fn can_build(&self) -> bool {
        has_sources(&self.sysroot()) && self.llvm_major().is_ok_and(|major| LINKER_LLVM.contains(&major))
    }

    fn sysroot(&self) -> PathBuf {
        match self {
            Toolchain::Rustup(name) => rustup_toolchains().join(name),
            Toolchain::System(bin) => bin.parent().unwrap_or(bin).to_path_buf(),
        }
    }

    fn program(&self, name: &str) -> Command {
        match self {
            Toolchain::Rustup(toolchain) => {
                let mut command = neutral("rustup");
                command.args(["run", toolchain, name]);
                command
            }
            Toolchain::System(bin) => neutral(bin.join(name)),
        }
    }
}

/// The first toolchain that can, rustup's before the system's.
pub(crate) fn find() -> Result<Toolchain, String> {
    rustup_candidates()
        .into_iter()
        .map(Toolchain::Rustup)
        .chain([Toolchain::System("/usr/bin".into())])
        .find(Toolchain::can_build)
        .ok_or_else(|| {
            format!(
                "no compiler here can build for the kernel's target: it takes one with its library sources and LLVM {} to {} \
                 (run `cargo xtask setup`)",
                LINKER_LLVM.start(),
                LINKER_LLVM.end()
            )
        })
}

/// The rustup toolchain that builds the rest, when its LLVM suits the linker.
pub(crate) fn own_toolchain() -> Option<String> {
    let name = env::var("RUSTUP_TOOLCHAIN").ok()?;
    let major = Toolchain::Rustup(name.clone()).llvm_major().ok()?;
    LINKER_LLVM.contains(&major).then_some(name)
}

/// Installed toolchains worth a look: the one that builds the rest, the known release, then nightlies, the plain one first.
fn rustup_candidates() -> Vec<String> {
    let Ok(entries) = fs::read_dir(rustup_toolchains()) else { return Vec::new() };
    let own = env::var("RUSTUP_TOOLCHAIN").unwrap_or_default();
    let rank = |name: &str| match name {
        _ if name == own => Some(0),
        _ if name.starts_with(KNOWN_RELEASE) => Some(1),
        _ if name.starts_with("nightly-20") => Some(3),
        _ if name.starts_with("nightly") => Some(2),
        _ => None,
    };
    let mut ranked: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some((rank(&name)?, name))
        })
        .collect();
    ranked.sort();
    ranked.into_iter().map(|(_, name)| name).collect()
}

/// bpf-linker, on the path or where `cargo install` puts it.
pub(crate) fn find_linker() -> Result<PathBuf, String> {
    let linker = find_program("bpf-linker").ok_or("bpf-linker is not installed (run `cargo xtask setup`)")?;
    // An update of the compiler takes away the LLVM that the linker was built against.
    let starts = neutral(&linker).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if starts.is_ok_and(|status| status.success()) {
        return Ok(linker);
    }
    Err(format!("{} does not start, its LLVM may be gone (run `cargo xtask setup`)", linker.display()))
}

/// A program on the path or among cargo's.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain([cargo_home().join("bin"), "/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

fn rustup_toolchains() -> PathBuf {
    env::var_os("RUSTUP_HOME").map_or_else(|| home().join(".rustup"), PathBuf::from).join("toolchains")
}

fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

fn home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

fn path_with(first: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [first.to_path_buf()].into_iter().chain(env::split_paths(&path));
    // A directory with a colon in its name came out of PATH, where it could not have been.
    env::join_paths(dirs).unwrap_or(path)
}

fn output(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if !done.status.success() {
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&done.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
