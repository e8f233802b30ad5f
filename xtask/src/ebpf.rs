//! `cargo xtask build-ebpf`: the kernel's programs, from source to one object, and the clients for tests to another.
//!
//! Builds the workspace `ebpf-programs` for the target `bpfel-unknown-none` with whichever toolchain `ebpf_toolchain` found, and
//! copies the results to where tests and `run` look for them. Cargo sees for itself what changed.
//! It does not install anything: `setup` does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::ebpf_toolchain::{self, Toolchain};
use crate::workspace;

const TARGET: &str = "bpfel-unknown-none";
const PROGRAM: &str = "push-appliance";
/// Plays clients, for tests.
const CLIENTS: &str = "push-clients";

/// Cargo says these about the toolchain and flags of whoever called us; the kernel's programs have their own.
const NOT_INHERITED: [&str; 9] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// Compile the kernel's programs to target/bpf: push-appliance.bpf.o, and push-clients.bpf.o for tests
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask build-ebpf")]
pub(crate) struct Arguments {
    /// Say which compiler and linker are used
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let started = Instant::now();
    if arguments.verbose {
        let (toolchain, linker) = (ebpf_toolchain::find()?, ebpf_toolchain::find_linker()?);
        println!("compiler: {toolchain}\nlinker:   {}", linker.display());
    }
    let object = make()?;
    println!("{} ({:.1} s)", object.display(), started.elapsed().as_secs_f32());
    Ok(())
}

/// Compiles the objects and gives the appliance's path.
pub(crate) fn make() -> Result<PathBuf, String> {
    build(&ebpf_toolchain::find()?, &ebpf_toolchain::find_linker()?)
}

/// Where the appliance's object goes.
pub(crate) fn object_path() -> PathBuf {
    place_of(PROGRAM)
}

fn place_of(program: &str) -> PathBuf {
    workspace::root().join("target/bpf").join(format!("{program}.bpf.o"))
}

fn build(toolchain: &Toolchain, linker: &Path) -> Result<PathBuf, String> {
    let root = workspace::root();
    let target_dir = root.join("target/ebpf-programs");
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(root.join("ebpf-programs"))
        .args(["build", "--release", "--locked", "--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .env(
            "RUSTFLAGS",
            // BTF for the maps and for the verifier's messages; it is made from the debug information.
            format!("-C linker={} -C link-arg=--btf -C debuginfo=2", linker.display()),
        );
    let status = cargo.status().map_err(|error| format!("cannot run {cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the kernel's programs did not compile with {toolchain}\n  if the linker complains about bitcode, {} was built \
             with an older LLVM than the compiler's {}: `cargo uninstall bpf-linker`, then `cargo xtask setup`",
            linker.display(),
            toolchain.llvm_major().map_or_else(|_| "own".into(), |major| major.to_string())
        ));
    }
    for program in [PROGRAM, CLIENTS] {
        install(&target_dir.join(TARGET).join("release").join(program), &place_of(program))?;
    }
    Ok(object_path())
}

/// Copies in one step, and only what differs, so that a running daemon never reads half an object.
fn install(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
    let bytes = fs::read(from).map_err(failed)?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let beside = to.with_extension("o.next");
    fs::write(&beside, &bytes).map_err(failed)?;
    fs::rename(&beside, to).map_err(failed)
}

/// A command that does not inherit the toolchain that built us.
pub(crate) fn neutral(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    command
}
