//! The machine: starts it, shows its serial line, and ends it when it takes too long.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use super::suite::Suite;
use crate::tally::Tally;

const QEMU: &str = "qemu-system-x86_64";

/// For the whole run, on a machine under load. A test that hangs is ended by it.
const BOUND: Duration = Duration::from_secs(600);

/// What `init.sh` says of itself begins with this.
const SAYS: &str = "vm: ";

/// What the machine said.
pub(crate) struct Run {
    /// Lines of its serial line.
    pub(crate) lines: Vec<String>,
    ended: bool,
}

/// Boots, and reads until it is off, or until it takes too long.
pub(crate) fn run(kernel: &Kernel, image: &Path) -> Result<Run, String> {
    let mut machine = Machine::start(kernel, image)?;
    let console = machine.child.stdout.take().ok_or("the machine's serial line is taken already")?;
    let (lines_out, lines_in) = channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if lines_out.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + BOUND;
    let mut run = Run { lines: Vec::new(), ended: false };
    loop {
        match lines_in.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                // Nobody reads any more: the result still counts.
                let _shown = writeln!(std::io::stdout(), "{line}");
                run.lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => {
                run.ended = true;
                break;
            }
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    drop(machine);
    // With the machine gone its line ends.
    let _read = reader.join();
    Ok(run)
}

/// A running qemu; dropping it ends it.
struct Machine {
    child: Child,
}

impl Machine {
    fn start(kernel: &Kernel, image: &Path) -> Result<Self, String> {
        let mut qemu = Command::new(QEMU);
        // Software emulation everywhere, so that a result does not depend on where it was got. A panic ends the machine.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
                "-serial",
                "stdio",
                "-nic",
                "none",
            ])
            .arg("-kernel")
            .arg(kernel.boots())
            .arg("-initrd")
            .arg(image)
            .args(["-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=1 mitigations=off"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = qemu.spawn().map_err(|error| format!("cannot run {QEMU} (package qemu-system-x86): {error}"))?;
        Ok(Self { child })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself, which is what we want.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

impl Run {
    /// Whether every file of tests ran to its end, and none of them failed.
    pub(crate) fn judge(&self, suite: &Suite, tally: &Tally, filter: &[String]) -> Result<(), String> {
        let codes: Vec<&str> = self.said("exit code ").collect();
        let failed: Vec<&str> = codes.iter().filter(|said| !said.starts_with("0 ")).copied().collect();
        if !self.ended {
            return Err(format!("the machine did not end within {} s", BOUND.as_secs()));
        }
        if self.said("done").next().is_none() || codes.len() != suite.tests.len() {
            return Err("the machine went down before the tests were through".to_owned());
        }
        if !failed.is_empty() || tally.failed > 0 {
            return Err(format!("failed in the machine: exit code {}", failed.join(", exit code ")));
        }
        if tally.passed == 0 && filter.is_empty() {
            return Err("no test ran in the machine".to_owned());
        }
        Ok(())
    }

    fn said<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(move |line| line.strip_prefix(SAYS)?.strip_prefix(word))
    }
}
