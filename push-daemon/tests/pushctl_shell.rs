//! `pushctl` beside the tables: completions, manual pages, colours, and a screen that needs a terminal.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

use std::{
    fs,
    process::{Command, Output},
};

fn pushctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pushctl")).args(arguments).output().unwrap()
}

fn says(arguments: &[&str]) -> String {
    let output = pushctl(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_shell_gets_completions_that_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = says(&["completions", shell]);
        for verb in ["apply", "rollback", "events", "limit", "completions"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    // A shell that is here says whether its script is one.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pushctl.bash");
    fs::write(&path, says(&["completions", "bash"])).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&path).status().unwrap().success());
}

#[test]
fn every_verb_has_a_manual_page_with_its_example() {
    let directory = tempfile::tempdir().unwrap();
    says(&["man", directory.path().to_str().unwrap()]);
    for page in ["pushctl.1", "pushctl-apply.1", "pushctl-filter-add.1", "pushctl-isp-set.1", "pushctl-top.1"] {
        let text = fs::read_to_string(directory.path().join(page)).unwrap_or_else(|_| panic!("there is no {page}"));
        assert!(text.contains(".TH pushctl"), "{page}");
        assert!(text.contains("Example"), "{page}");
    }
}

#[test]
fn help_names_an_undo_for_what_changes_something() {
    for verb in
        [&["apply"][..], &["filter", "add"], &["filter", "import"], &["isp", "set"], &["limit", "set"], &["off"]]
    {
        let help = says(&[verb, &["--help"]].concat());
        assert!(help.contains("Undo:"), "{verb:?}");
        assert!(help.contains("--dry-run"), "{verb:?}");
        assert!(!help.contains('\u{1b}'), "colours without a terminal: {verb:?}");
    }
}

#[test]
fn a_screen_needs_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let output = pushctl(&["top", "--pin-root", directory.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("takes a terminal"));
}
