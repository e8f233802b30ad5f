//! What runs of tests came to, read from what the runners print.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::workspace;

/// A test that does not run here says so in a line that begins with this.
const SKIPPED: &str = "skipped: ";

/// What a run of tests came to.
#[derive(Default)]
pub(crate) struct Tally {
    /// By the runner, which does not know of tests that skip themselves.
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Tests that skipped themselves, each with one line.
    skipped_tests: u64,
    /// These, and the steps that were left out.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    /// Runs `tests`, shows what they print, and takes from it what ran and what was skipped. False when they failed.
    pub(crate) fn run(&mut self, tests: &mut Command) -> Result<bool, String> {
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

    /// Prints it all, the reasons first.
    pub(crate) fn report(&self) {
        for reason in &self.skipped {
            println!("skipped: {reason}");
        }
        println!("{} passed, {} failed, {} skipped", self.really_passed(), self.failed, self.skipped.len());
    }

    fn really_passed(&self) -> u64 {
        self.passed.saturating_sub(self.skipped_tests)
    }

    pub(crate) fn take(&mut self, line: &str) {
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
