//! `cargo xtask setup`: installs what is missing, and says what, why and how long it took.
//!
//! Packages need root; without it they are named in one line to run with sudo, and the rest is done. When nothing is missing,
//! nothing is run and nothing is fetched.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    ebpf::neutral,
    ebpf_toolchain::{self, find_program, rustup_nightlies},
    setup_needs::{NEEDS, Need, Way},
};

pub(crate) use crate::setup_needs::Purpose;

/// The release of bpf-linker that the programs were tried with.
const LINKER_VERSION: &str = "0.13.0";
/// Major versions of LLVM that this release can be built with.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// Another package manager may be at work; wait for it instead of failing.
const APT_LOCK_WAIT: &str = "DPkg::Lock::Timeout=300";
const SYSTEM_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Install what is missing on this machine, and nothing else
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask setup\n  cargo xtask setup --for run")]
pub(crate) struct Arguments {
    /// What the machine is set up for; `test` includes `run`
    #[arg(long = "for", value_enum, default_value = "test")]
    purpose: Purpose,
    /// Only say what is missing; fails when something is
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    if arguments.check {
        let missing = missing_for(arguments.purpose);
        announce(&missing);
        return if missing.is_empty() { Ok(()) } else { Err("run `cargo xtask setup`".into()) };
    }
    ensure(arguments.purpose)
}

/// Makes the machine fit for `purpose`. Costs a few file look-ups when it is.
pub(crate) fn ensure(purpose: Purpose) -> Result<(), String> {
    let started = Instant::now();
    let missing = missing_for(purpose);
    announce(&missing);
    if missing.is_empty() {
        return Ok(());
    }
    let mut work = Work::default();
    if missing.iter().any(|need| matches!(need.way, Way::KernelCompiler)) {
        work.get_kernel_compiler();
    }
    for need in &missing {
        if let Way::Apt(packages) = need.way {
            work.packages.extend(packages.iter().map(|package| (*package).to_owned()));
        }
    }
    let linker = missing.iter().any(|need| matches!(need.way, Way::Linker));
    if linker {
        work.want_llvm()?;
    }
    let apt = work.install_packages();
    if linker && work.has_llvm() {
        work.install_linker()?;
    }
    for (what, took) in &work.took {
        println!("setup: {:>6.1} s  {what}", took.as_secs_f32());
    }
    println!("setup: {:>6.1} s  in all", started.elapsed().as_secs_f32());
    apt?;
    let still = missing_for(purpose);
    if still.is_empty() {
        return Ok(());
    }
    let names = still.iter().map(|need| need.name).collect::<Vec<_>>().join("; ");
    Err(format!("still missing after setup: {names}"))
}

fn missing_for(purpose: Purpose) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| need.purpose <= purpose && !(need.is_there)()).collect()
}

fn announce(missing: &[&Need]) {
    if missing.is_empty() {
        println!("setup: nothing is missing");
    }
    for need in missing {
        println!("setup: missing: {} ({})", need.name, need.what_for);
    }
}

/// What is to be done, and how long the parts took.
#[derive(Default)]
struct Work {
    packages: BTreeSet<String>,
    /// The compiler will come as a package, so its LLVM is known without asking it.
    system_compiler: bool,
    took: Vec<(String, Duration)>,
}

impl Work {
    /// rustup's nightly with rust-src; where that cannot be had, the distribution's packages.
    fn get_kernel_compiler(&mut self) {
        if find_program("rustup").is_some() {
            let mut rustup = neutral("rustup");
            match rustup_nightlies().first() {
                Some(name) => rustup.args(["component", "add", "rust-src", "--toolchain", name]),
                None => {
                    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"])
                }
            };
            let done = self.timed("rust-src for a nightly", &mut rustup);
            if done.is_ok() && ebpf_toolchain::find().is_ok() {
                return;
            }
            println!("setup: rustup cannot give a nightly with rust-src here; taking the distribution's compiler");
        }
        self.system_compiler = true;
        self.packages.extend(SYSTEM_COMPILER.map(str::to_owned));
    }

    /// Adds the packages of the LLVM that the linker must be built with.
    fn want_llvm(&mut self) -> Result<(), String> {
        let major = self.llvm_major()?;
        if !LINKER_LLVM.contains(&major) {
            return Err(format!(
                "the compiler uses LLVM {major}, and bpf-linker {LINKER_VERSION} can be built with {} to {}: \
                 put a bpf-linker for LLVM {major} on the path yourself (its project publishes binaries)",
                LINKER_LLVM.start(),
                LINKER_LLVM.end()
            ));
        }
        self.packages.extend([format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"), "libzstd-dev".to_owned()]);
        Ok(())
    }

    fn llvm_major(&self) -> Result<u32, String> {
        match ebpf_toolchain::find() {
            Ok(toolchain) => toolchain.llvm_major(),
            // What Debian's rustc-web is built with.
            Err(_) if self.system_compiler => Ok(22),
            Err(error) => Err(error),
        }
    }

    /// LLVM is here, from now or from before, whatever became of the other packages.
    fn has_llvm(&self) -> bool {
        self.llvm_major().is_ok_and(|major| std::path::Path::new(&llvm_prefix(major)).exists())
    }

    fn install_packages(&mut self) -> Result<(), String> {
        self.packages.retain(|package| !is_installed(package));
        if self.packages.is_empty() {
            return Ok(());
        }
        let packages = self.packages.iter().cloned().collect::<Vec<_>>();
        let names = packages.join(" ");
        if find_program("apt-get").is_none() {
            return Err(format!(
                "this machine has no apt-get; install the equivalents of these Debian packages: {names}"
            ));
        }
        if !is_root() {
            return Err(format!(
                "packages need root. Run this, then `cargo xtask setup` again:\n\n  sudo sh -c 'apt-get update && apt-get \
                 install -y --no-install-recommends {names}'\n"
            ));
        }
        self.timed("apt-get update", neutral("apt-get").args(["-qq", "-o", APT_LOCK_WAIT, "update"]))?;
        let mut install = neutral("apt-get");
        install
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", APT_LOCK_WAIT, "install", "-y", "--no-install-recommends"])
            .args(&packages);
        self.timed(&format!("apt-get install {names}"), &mut install)
    }

    fn install_linker(&mut self) -> Result<(), String> {
        let major = self.llvm_major()?;
        let feature = format!("llvm-{major}");
        let mut cargo = neutral("cargo");
        cargo
            .env("LLVM_PREFIX", llvm_prefix(major))
            .args(["install", "--quiet", "--locked", "bpf-linker", "--version", LINKER_VERSION])
            .args(["--no-default-features", "--features", &feature]);
        self.timed(&format!("cargo install bpf-linker {LINKER_VERSION} for LLVM {major}"), &mut cargo)
    }

    /// Runs `command` with its output shown, and remembers how long it took.
    fn timed(&mut self, what: &str, command: &mut Command) -> Result<(), String> {
        println!("setup: {what} ...");
        let started = Instant::now();
        let status = command.status().map_err(|error| format!("cannot run {command:?}: {error}"));
        self.took.push((what.to_owned(), started.elapsed()));
        if status?.success() { Ok(()) } else { Err(format!("this failed: {command:?}")) }
    }
}

/// Where Debian's packages put an LLVM.
fn llvm_prefix(major: u32) -> String {
    format!("/usr/lib/llvm-{major}")
}

fn is_installed(package: &str) -> bool {
    let state = neutral("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    state.is_ok_and(|state| state.stdout == b"installed")
}

/// Without a crate for it: the owner of our own process directory is us.
/// Whether we may change the system.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
