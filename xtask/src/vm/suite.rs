//! The tests of the kernel plane, built, and found by their name.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::workspace;

/// A file of tests that begins with this is of the kernel plane; a new one joins by its name.
const PREFIX: &str = "kernel_";

/// What is to run, and what it runs itself.
pub(crate) struct Suite {
    /// One binary per file of tests, in the order of their names.
    pub(crate) tests: Vec<PathBuf>,
    /// The package's own binaries, which tests start from where cargo put them.
    pub(crate) programs: Vec<PathBuf>,
    /// The directory that cargo runs the tests in.
    pub(crate) directory: PathBuf,
}

/// Builds the tests and the binaries of `push-daemon`.
pub(crate) fn build() -> Result<Suite, String> {
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(["test", "--package", "push-daemon", "--tests", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = cargo
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {cargo:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{cargo:?} failed: {}", output.status));
    }
    let built = String::from_utf8_lossy(&output.stdout);
    let mut suite = of_messages(&built);
    if suite.tests.is_empty() {
        return Err(format!("push-daemon has no file of tests named {PREFIX}*"));
    }
    suite.directory = workspace::root().join("push-daemon");
    Ok(suite)
}

/// Takes what it needs from cargo's messages, one a line.
fn of_messages(messages: &str) -> Suite {
    let mut suite = Suite { tests: Vec::new(), programs: Vec::new(), directory: PathBuf::new() };
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(executable) = message["executable"].as_str() else { continue };
        let name = message["target"]["name"].as_str().unwrap_or_default();
        match message["target"]["kind"][0].as_str() {
            Some("test") if name.starts_with(PREFIX) => suite.tests.push(executable.into()),
            // With the test profile a binary is its own unit tests.
            Some("bin") if message["profile"]["test"] == false => suite.programs.push(executable.into()),
            _ => {}
        }
    }
    suite.tests.sort();
    suite
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_the_kernel_plane_and_programs_are_told_from_the_rest() {
        let suite = of_messages(concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"kernel_x"},"profile":{"test":true},"executable":"/d/x"}"#,
            "\nnot a message\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel_b"},"profile":{"test":true},"executable":"/d/b"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel_a"},"profile":{"test":true},"executable":"/d/a"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"memory"},"profile":{"test":true},"executable":"/d/m"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"pushctl"},"profile":{"test":false},"executable":"/d/p"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"pushctl"},"profile":{"test":true},"executable":"/d/q"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"abi"},"profile":{"test":false},"executable":null}"#,
        ));
        assert_eq!(suite.tests, ["/d/a", "/d/b"].map(PathBuf::from));
        assert_eq!(suite.programs, ["/d/p"].map(PathBuf::from));
    }
}
