//! `pushctl` as an operator or a script runs it: on the pinned tables, without the daemon.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::netns::{Bpffs, Namespace, object};

/// `pushctl` in a namespace of its own, on pins of its own.
pub(crate) struct Pushctl {
    object: PathBuf,
    pub(crate) namespace: Namespace,
    pub(crate) bpffs: Bpffs,
    files: TempDir,
    /// The address that the operator is connected from, if over SSH.
    pub(crate) operator: Option<&'static str>,
}

impl Pushctl {
    pub(crate) fn new() -> Option<Self> {
        Some(Self {
            object: object()?,
            namespace: Namespace::new("t"),
            bpffs: Bpffs::mount(),
            files: TempDir::with_prefix("push-files-").unwrap(),
            operator: None,
        })
    }

    /// The command, ready to run inside. `FILES` in it stands for a directory of ours.
    pub(crate) fn command(&self, line: &str) -> Command {
        let files = self.files.path().to_str().unwrap();
        let line = line.replace("OBJECT", self.object.to_str().unwrap()).replace("FILES", files);
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushctl"));
        command.arg("--pin-root").arg(self.bpffs.pin_root()).args(line.split_whitespace());
        match self.operator {
            Some(address) => command.env("SSH_CONNECTION", format!("{address} 50000 10.0.0.1 22")),
            None => command.env_remove("SSH_CONNECTION"),
        };
        command
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        self.namespace.run(|| self.command(line).output().unwrap())
    }

    /// Writes a file that a command can name as `FILES/name`.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Standard output of a command that succeeds.
    pub(crate) fn says(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.says(&format!("{line} --json"))).unwrap()
    }

    /// Standard error of a command that ends with `code`.
    pub(crate) fn fails(&self, code: i32, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn attach(&self) {
        self.says("attach --interface lo --mode generic --protect 3101,3102 --management 192.0.2.0/24 --object OBJECT");
    }
}
