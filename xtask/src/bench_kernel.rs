//! `cargo xtask bench --kernel`: what the filter costs beside Debian's xdp-filter, and what it is worth under a flood.
//!
//! The measuring is `push-daemon`'s bench `kernel`, which works through the library that the daemon and `pushctl` use. Here it
//! is built, and started in a mount namespace and a network namespace of its own: what it mounts and makes goes with it,
//! however it ends, and xdp-filter, which pins at one fixed place, finds no file system of the host there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, Purpose};
use crate::{ebpf, executables};

const BENCH: &str = "kernel";

/// With this the bench says that it measured, and that a limit does not hold.
const DOES_NOT_HOLD: i32 = 1;

/// Builds, measures, and prints the table. An error when a limit does not hold.
pub(crate) fn run(rounds: Option<u64>, json: Option<&Path>) -> Result<(), String> {
    if !setup::is_root() {
        return Err(
            "the bench of the kernel plane loads XDP programs and makes namespaces, which takes root".to_owned()
        );
    }
    setup::ensure(Purpose::BenchKernel)?;
    let object = ebpf::make()?;
    let mut bench = Command::new("unshare");
    bench.args(["--mount", "--net", "--"]).arg(build()?).env("PUSH_BPF_OBJECT", object);
    if let Some(rounds) = rounds {
        bench.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(file) = json {
        bench.arg("--json").arg(file);
    }
    let status = bench.status().map_err(|error| format!("cannot run {bench:?}: {error}"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(DOES_NOT_HOLD) => Err("not every limit holds".to_owned()),
        _ => Err(format!("{bench:?} failed: {status}")),
    }
}

/// With optimisation.
fn build() -> Result<PathBuf, String> {
    let built = executables::build(&["bench", "--package", "push-daemon", "--bench", BENCH, "--no-run"])?;
    let bench = built.into_iter().find(|executable| executable.kind == "bench" && executable.name == BENCH);
    bench.map(|bench| bench.path).ok_or_else(|| format!("cargo built no bench named {BENCH}"))
}
