//! `cargo xtask setup`: installs what is missing, and says what, why and how long it took.
//!
//! Packages need root; without it they are named in one line to run with sudo, and the rest is done. When nothing is missing,
//! nothing is run and nothing is fetched.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    ebpf::neutral,
    ebpf_toolchain::{self, KNOWN_RELEASE, Toolchain, find_program},
    setup_needs::{NEEDS, Need, Way},
    workspace,
};

pub(crate) use crate::setup_needs::Purpose;

/// The release of bpf-linker that the programs were tried with.
const LINKER_VERSION: &str = "0.13.0";
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
    let apt = work.install_packages();
    // What needs no root is done whatever became of the packages; without a compiler there is nothing to link for.
    if missing.iter().any(|need| matches!(need.way, Way::Linker))
        && let Ok(toolchain) = ebpf_toolchain::find()
    {
        work.install_linker(&toolchain)?;
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
    NEEDS.iter().filter(|need| purpose.includes(need.purpose) && !(need.is_there)()).collect()
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
    took: Vec<(String, Duration)>,
}

impl Work {
    /// Library sources for the toolchain that builds the rest; else rustup's known release with them; where rustup is not
    /// here or cannot, the distribution's packages.
    fn get_kernel_compiler(&mut self) {
        if find_program("rustup").is_some() {
            if let Some(own) = ebpf_toolchain::own_toolchain() {
                let add = ["component", "add", "rust-src", "--toolchain", &own];
                if self.rustup_gives(&format!("rust-src for {own}"), &add) {
                    return;
                }
            }
            let install = ["toolchain", "install", KNOWN_RELEASE, "--profile", "minimal", "--component", "rust-src"];
            if self.rustup_gives(&format!("rust {KNOWN_RELEASE} with rust-src"), &install) {
                return;
            }
            println!("setup: rustup cannot give a compiler with rust-src here; taking the distribution's");
        }
        self.packages.extend(SYSTEM_COMPILER.map(str::to_owned));
    }

    fn rustup_gives(&mut self, what: &str, arguments: &[&str]) -> bool {
        self.timed(what, neutral("rustup").args(arguments)).is_ok() && ebpf_toolchain::find().is_ok()
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

    /// The linker looks for `libLLVM.so` in the folder `lib` of a prefix; the compiler has its own under a longer name.
    fn install_linker(&mut self, toolchain: &Toolchain) -> Result<(), String> {
        let library = toolchain.llvm_library()?;
        let prefix = workspace::target().join("llvm-prefix");
        let lib = prefix.join("lib");
        let link = lib.join("libLLVM.so");
        fs::create_dir_all(&lib)
            .and_then(|()| if link.is_symlink() { fs::remove_file(&link) } else { Ok(()) })
            .and_then(|()| symlink(&library, &link))
            .map_err(|error| format!("cannot link {} to {}: {error}", link.display(), library.display()))?;
        let feature = format!("llvm-{}", toolchain.llvm_major()?);
        let folder = library.parent().unwrap_or(&library).display();
        let mut cargo = toolchain.cargo();
        cargo
            .env_remove("RUSTC_BOOTSTRAP")
            .env("LLVM_PREFIX", &prefix)
            .env("CARGO_ENCODED_RUSTFLAGS", format!("-C\u{1f}link-arg=-Wl,-rpath,{folder}"))
            .args(["install", "--quiet", "--locked", "--force", "bpf-linker", "--version", LINKER_VERSION])
            .args(["--no-default-features", "--features", &feature]);
        self.timed(&format!("cargo install bpf-linker {LINKER_VERSION} for the LLVM of {toolchain}"), &mut cargo)
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

fn is_installed(package: &str) -> bool {
    let state = neutral("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    state.is_ok_and(|state| state.stdout == b"installed")
}

/// Whether we may change the system. Without a crate for it: the owner of our own process directory is us.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
