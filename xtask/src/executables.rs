//! What cargo built, asked of cargo itself.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::workspace;

/// Something that can be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// `bin`, `test`, `bench`, or the like.
    pub(crate) kind: String,
    /// The target's name in the manifest.
    pub(crate) name: String,
    /// Whether it is a harness of tests: a binary's own unit tests have the binary's kind and name.
    pub(crate) is_tests: bool,
    pub(crate) path: PathBuf,
}

/// Builds what cargo's `arguments` ask for, and says what there is to run. Cargo's own words go to our standard error.
pub(crate) fn build(arguments: &[&str]) -> Result<Vec<Executable>, String> {
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(arguments).arg("--message-format=json-render-diagnostics");
    let output = cargo
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {cargo:?}: {error}"))?;
    if output.status.success() {
        return Ok(executables_in(&String::from_utf8_lossy(&output.stdout)));
    }
    Err(format!("{cargo:?} failed: {}", output.status))
}

/// From cargo's messages, one a line.
fn executables_in(messages: &str) -> Vec<Executable> {
    messages.lines().filter_map(|line| executable_of(&serde_json::from_str(line).ok()?)).collect()
}

fn executable_of(message: &Value) -> Option<Executable> {
    let target = &message["target"];
    Some(Executable {
        kind: target["kind"][0].as_str()?.to_owned(),
        name: target["name"].as_str()?.to_owned(),
        is_tests: message["profile"]["test"] == true,
        path: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_run_is_told_from_the_rest() {
        let found = executables_in(concat!(
            r#"{"target":{"kind":["bin"],"name":"pushctl"},"profile":{"test":true},"executable":"/d/pushctl-1"}"#,
            "\nnot a message\n",
            r#"{"target":{"kind":["lib"],"name":"abi"},"profile":{"test":false},"executable":null}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        ));
        let expected = Executable {
            kind: "bin".to_owned(),
            name: "pushctl".to_owned(),
            is_tests: true,
            path: "/d/pushctl-1".into(),
        };
        assert_eq!(found, [expected]);
    }
}
