//! `pushctl completions` and `pushctl man`: the command's own description, for shells and for `man`.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use super::{Answer, Failure, arguments::Arguments};

pub(super) fn completions(shell: Shell) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "pushctl", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new(script.clone(), json!({ "shell": shell.to_string(), "script": script }))
}

pub(super) fn man(directory: &Path) -> Result<Answer, Failure> {
    let failed = |error: io::Error| Failure::Manual { directory: directory.into(), source: error };
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(failed)?;
    Answer::new(
        format!("the manual pages are in {}\n", directory.display()),
        json!({ "directory": directory.display().to_string() }),
    )
}
