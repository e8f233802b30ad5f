//! Which compiler can build for the kernel's target on this machine.
//!
//! `bpfel-unknown-none` has no prebuilt `core`, so the compiler's library sources must be there and `-Z build-std` allowed.
//! Two ways lead there: a nightly of rustup with the component rust-src, or a distribution's compiler with its source
//! package (Debian: rustc-web, cargo-web, rust-web-src), told to take unstable options. This file finds; it does not install.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::ebpf::neutral;

/// aya-ebpf and this edition's syntax need it.
const LEAST_MINOR_VERSION: u32 = 90;

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
        match self {
            Toolchain::Rustup(name) => {
                let mut command = neutral("rustup");
                command.args(["run", name, "cargo"]);
                command
            }
            Toolchain::System(bin) => {
                let mut command = neutral(bin.join("cargo"));
                // Build scripts look for `rustc` on the path, and must find the one that compiles.
                command.env("PATH", path_with(bin)).env("RUSTC", bin.join("rustc")).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }

    /// Major version of the compiler's LLVM; the linker must be built with the same or a later one.
    pub(crate) fn llvm_major(&self) -> Result<u32, String> {
        let mut rustc = match self {
            Toolchain::Rustup(name) => {
                let mut command = neutral("rustup");
                command.args(["run", name, "rustc"]);
                command
            }
            Toolchain::System(bin) => neutral(bin.join("rustc")),
        };
        let said = output(rustc.arg("-vV"))?;
        said.lines()
            .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
            .ok_or_else(|| format!("{self} does not say its LLVM version"))
    }
}

/// The first toolchain that can, rustup's before the system's.
pub(crate) fn find() -> Result<Toolchain, String> {
    if let Some(name) =
        rustup_nightlies().into_iter().find(|name| has_sources(&rustup_home().join("toolchains").join(name)))
    {
        return Ok(Toolchain::Rustup(name));
    }
    let system = Path::new("/usr/bin");
    if system.join("cargo").exists()
        && has_sources(Path::new("/usr"))
        && system_minor_version(system) >= LEAST_MINOR_VERSION
    {
        return Ok(Toolchain::System(system.into()));
    }
    Err("no compiler here can build for the kernel's target: it takes a nightly with the component rust-src, \
         or a system rustc with its library sources (run `cargo xtask setup`)"
        .into())
}

/// Installed nightlies, the plain one first.
pub(crate) fn rustup_nightlies() -> Vec<String> {
    let Ok(entries) = fs::read_dir(rustup_home().join("toolchains")) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("nightly"))
        .collect();
    names.sort_by_key(|name| (name.starts_with("nightly-20"), name.clone()));
    names
}

/// bpf-linker, on the path or where `cargo install` puts it.
pub(crate) fn find_linker() -> Result<PathBuf, String> {
    find_program("bpf-linker").ok_or_else(|| "bpf-linker is not installed (run `cargo xtask setup`)".into())
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

fn system_minor_version(bin: &Path) -> u32 {
    let said = output(neutral(bin.join("rustc")).arg("--version")).unwrap_or_default();
    said.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

fn rustup_home() -> PathBuf {
    env::var_os("RUSTUP_HOME").map_or_else(|| home().join(".rustup"), PathBuf::from)
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
