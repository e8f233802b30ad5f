//! `cargo xtask test --vm`: the tests of the kernel plane on Debian's kernel, in a machine that qemu emulates in software.
//!
//! The host's kernel is one; the oldest that we promise to run on is another, and its verifier is stricter. The machine has
//! no disk and no network: kernel and image are two files, and what comes back is text on its serial line. It needs neither
//! KVM nor root, and installs nothing but `qemu` and `busybox`: the kernel's package is only unpacked, under target/vm.
//!
//! Layout: `kernel` fetches the kernel · `suite` builds the tests and finds them by name · `image` puts them and what they
//! need into one archive · `machine` runs it, within a bound · `init.sh` what runs inside.

mod image;
mod kernel;
mod machine;
mod suite;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::ebpf;
use crate::setup::{self, Purpose};
use crate::tally::Tally;
use crate::workspace;

/// Runs the suite in the machine; an error says what failed, or why it could not be run.
pub(crate) fn test(filter: &[String]) -> Result<(), String> {
    let started = Instant::now();
    setup::ensure(Purpose::Vm)?;
    let place = workspace::target().join("vm");
    let kernel = kernel::fetch(&place)?;
    let object = ebpf::make()?;
    let suite = suite::build()?;
    let image = image::pack(&place, &kernel, &suite, &object, filter)?;
    println!("\n== {} tests in a machine with {}", suite.tests.len(), kernel.package);
    let booted = Instant::now();
    let run = machine::run(&kernel, &image)?;
    let mut tally = Tally::default();
    run.lines.iter().for_each(|line| tally.take(line));
    println!(
        "\n{:.0} s in the machine, {:.0} s in all",
        booted.elapsed().as_secs_f32(),
        started.elapsed().as_secs_f32()
    );
    tally.report();
    run.judge(&suite, &tally, filter)
}

/// A directory with all that is in it.
fn remove_if_there(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} failed: {status}")),
        Err(error) => Err(format!("cannot run {command:?}: {error}")),
    }
}
