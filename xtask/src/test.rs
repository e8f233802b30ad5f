//! `cargo xtask test`: everything that must hold, on this machine.
//!
//! Sets up what is missing, builds, checks style, and runs every test with the real parts: the kernel where root
//! allows, a browser, third-party clients. What was skipped is said again at the end, with the reason.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::ebpf_toolchain::find_program;
use crate::rig::network::NamespaceDirectory;
use crate::setup::{self, Purpose};
use crate::{ebpf, run, workspace};

/// With this a test of the kernel plane fails where it would be skipped: a green run of root has run them all.
const REQUIRE_KERNEL: &str = "PUSH_REQUIRE_KERNEL";

/// The same for browser, third-party clients and the tools of systemd.
const REQUIRE_ALL: &str = "PUSH_REQUIRE_ALL";

/// A test that does not run here says so in a line that begins with this.
const SKIPPED: &str = "skipped: ";

/// Options of `test`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --no-style -- arbiter")]
pub(crate) struct Arguments {
    /// Leave out formatting, lints and documentation
    #[arg(long)]
    no_style: bool,
    /// Leave out the capacity sign-off at 10,000 connections, and the optimised build that it needs
    #[arg(long)]
    no_signoff: bool,
    /// Passed on to the test runner: names of tests, and its options
    #[arg(last = true)]
    filter: Vec<String>,
}

/// What a run of tests came to.
#[derive(Default)]
struct Tally {
    /// By the runner, which does not know of tests that skip themselves.
    passed: u64,
    failed: u64,
    /// Tests that skipped themselves, each with one line.
    skipped_tests: u64,
    /// These, and the steps that were left out.
    skipped: Vec<String>,
}

/// Runs everything; an error names the steps that failed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
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
    report(&tally, started);
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

fn report(tally: &Tally, started: Instant) {
    println!("\n{:.0} s in all", started.elapsed().as_secs_f32());
    for reason in &tally.skipped {
        println!("skipped: {reason}");
    }
    println!("{} passed, {} failed, {} skipped", tally.really_passed(), tally.failed, tally.skipped.len());
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

impl Tally {
    /// Runs `tests`, shows what they print, and takes from it what ran and what was skipped. False when they failed.
    fn run(&mut self, tests: &mut Command) -> Result<bool, String> {
        if tests.get_current_dir().is_none() {
            tests.current_dir::<&Path>(workspace::root());
        }
        let failed = |error: std::io::Error| format!("cannot run the tests: {error}");
        let mut child = tests.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
        let errors = child.stderr.take().map(|stream| thread::spawn(move || pass_on(stream, &mut std::io::stderr())));
        let lines = child.stdout.take().map(|stream| pass_on(stream, &mut std::io::stdout())).unwrap_or_default();
        let errors = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
        for line in lines.iter().chain(&errors) {
            self.take(line);
        }
        let status = child.wait().map_err(failed)?;
        Ok(status.success())
    }

    fn really_passed(&self) -> u64 {
        self.passed.saturating_sub(self.skipped_tests)
    }

    fn take(&mut self, line: &str) {
        if let Some((_, reason)) = line.split_once(SKIPPED) {
            self.skipped_tests += 1;
            self.skipped.push(reason.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += number_before(counts, " passed");
            self.failed += number_before(counts, " failed");
        } else if let Some(count) = line.strip_prefix("# pass ") {
            self.passed += count.trim().parse().unwrap_or(0);
        } else if let Some(count) = line.strip_prefix("# fail ") {
            self.failed += count.trim().parse().unwrap_or(0);
        }
    }
}

/// Copies lines as they come, and keeps those that count.
fn pass_on(stream: impl Read, to: &mut impl Write) -> Vec<String> {
    let mut kept = Vec::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        // Nobody reads any more: the result still counts.
        let _shown = writeln!(to, "{line}");
        if line.contains(SKIPPED) || line.starts_with("test result: ") || line.starts_with("# ") {
            kept.push(line);
        }
    }
    kept
}

fn number_before(text: &str, word: &str) -> u64 {
    let digits = text.split(word).next().and_then(|before| before.rsplit(' ').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_skips_are_taken_from_the_runners_lines() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 31 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.73s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "# pass 74",
            "# fail 2",
            "skipped: no root",
            "test some::name ... ok",
        ] {
            tally.take(line);
        }
        assert_eq!((tally.really_passed(), tally.failed), (106, 3), "the one that was skipped did not pass");
        assert_eq!(tally.skipped, ["no root"]);
    }
}
