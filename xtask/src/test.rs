//! `cargo xtask test`: everything that must hold, on this machine.
//!
//! Sets up what is missing, builds, checks style, and runs every test with the real parts: the kernel where root
//! allows, a browser, third-party clients. What was skipped is said again at the end, with the reason.

use std::process::Command;
use std::time::Instant;

use crate::ebpf_toolchain::find_program;
use crate::rig::network::NamespaceDirectory;
use crate::setup::{self, Purpose};
use crate::tally::Tally;
use crate::{ebpf, run, vm, workspace};

/// With this a test of the kernel plane fails where it would be skipped: a green run of root has run them all.
const REQUIRE_KERNEL: &str = "PUSH_REQUIRE_KERNEL";

/// The same for browser, third-party clients and the tools of systemd.
const REQUIRE_ALL: &str = "PUSH_REQUIRE_ALL";

/// Options of `test`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --no-style -- arbiter\n  cargo xtask test --vm"
)]
pub(crate) struct Arguments {
    /// Leave out formatting, lints and documentation
    #[arg(long)]
    no_style: bool,
    /// Leave out the capacity sign-off at 10,000 connections, and the optimised build that it needs
    #[arg(long)]
    no_signoff: bool,
    /// Only the tests of the kernel plane, on Debian's kernel in an emulated machine
    #[arg(long, conflicts_with_all = ["no_style", "no_signoff"])]
    vm: bool,
    /// Passed on to the test runner: names of tests, and its options
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Runs everything; an error names the steps that failed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    if arguments.vm {
        return vm::test(&arguments.filter);
    }
    let started = Instant::now();
    let root = setup::is_root();
    setup::ensure(if root { Purpose::Test } else { Purpose::Build })?;
    // Tests take their namespaces away, but not what the first of them had mounted.
    let _directory = root.then(NamespaceDirectory::note).transpose()?;
    let mut tally = Tally::default();
    let mut failed = Vec::new();
    if root {
        timed("eBPF programs", ebpf::make)?;
    } else {
        tally.skipped.push("the kernel plane: loading XDP programs and making namespaces need root".to_owned());
    }
    if !arguments.no_style && arguments.filter.is_empty() {
        check_style(&mut tally, &mut failed);
    }
    timed("build", || workspace::run(&mut cargo(&["build", "--workspace", "--all-targets"])))?;

    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    if root {
        tests.env(REQUIRE_KERNEL, "1").env(REQUIRE_ALL, "1");
    }
    // A test that is skipped passes; what it says of that is shown only with this.
    tests.args(["--", "--show-output"]).args(&arguments.filter);
    if !timed("tests", || tally.run(&mut tests))? {
        failed.push("cargo test".to_owned());
    }
    if arguments.filter.is_empty() {
        test_page(&mut tally, &mut failed)?;
    }
    if !arguments.no_signoff && arguments.filter.is_empty() {
        sign_off(&mut failed);
    }
    println!("\n{:.0} s in all", started.elapsed().as_secs_f32());
    tally.report();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// Formatting, lints and documentation, as far as the toolchain has the tools.
fn check_style(tally: &mut Tally, failed: &mut Vec<String>) {
    let steps: [(&str, &str, &[&str]); 3] = [
        ("formatting", "cargo-fmt", &["fmt", "--all", "--check"]),
        ("lints", "cargo-clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ("documentation", "rustdoc", &["doc", "--workspace", "--no-deps", "--document-private-items"]),
    ];
    for (name, tool, arguments) in steps {
        if find_program(tool).is_none() {
            tally.skipped.push(format!("{name}: this toolchain has no {tool}"));
            continue;
        }
        let mut command = cargo(arguments);
        command.env("RUSTDOCFLAGS", "-D warnings");
        if let Err(error) = timed(name, || workspace::run(&mut command)) {
            eprintln!("xtask: {error}");
            failed.push(name.to_owned());
        }
    }
}

/// The capacity sign-off of the profile that fits a small and busy machine. Built with optimisation: what it judges are
/// multiples of a raw loop of sends, and without that they would be those of a compiler.
fn sign_off(failed: &mut Vec<String>) {
    let signed_off = (|| {
        let binaries = timed("optimised build", || run::build(true))?;
        let directory = workspace::target().join("run/signoff");
        std::fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let mut command = Command::new(binaries.join("perf-tests"));
        command.arg("signoff").arg("--profile").arg(workspace::root().join("perf-tests/profiles/10k.toml"));
        command.arg("--json").arg(directory.join("10k.json")).arg("--html").arg(directory.join("10k.html"));
        timed("capacity sign-off at 10,000 connections", || workspace::run(&mut command))
    })();
    if let Err(error) = signed_off {
        eprintln!("xtask: {error}");
        failed.push("capacity sign-off".to_owned());
    }
}

/// What the page's files promise by themselves, without a browser.
fn test_page(tally: &mut Tally, failed: &mut Vec<String>) -> Result<(), String> {
    const NAME: &str = "the page's own tests";
    if find_program("node").is_none() {
        tally.skipped.push(format!("{NAME}: node is not installed (cargo xtask setup)"));
        return Ok(());
    }
    let mut page = Command::new("node");
    // The form that is counted from; the default differs between versions and on a terminal.
    page.args(["--test", "--test-reporter=tap"]).current_dir(workspace::root().join("push-daemon/page"));
    if !timed(NAME, || tally.run(&mut page))? {
        failed.push(NAME.to_owned());
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args(arguments);
    command
}

fn timed<T>(name: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    println!("\n== {name}");
    let started = Instant::now();
    let done = work();
    println!("== {name}: {:.1} s", started.elapsed().as_secs_f32());
    done
}
