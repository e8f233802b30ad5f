//! The tests of the kernel plane, built, and found by their name.

use std::path::PathBuf;

use crate::executables::{self, Executable};
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
    let built = executables::build(&["test", "--package", "push-daemon", "--tests", "--no-run"])?;
    let suite = of(built);
    if suite.tests.is_empty() {
        return Err(format!("push-daemon has no file of tests named {PREFIX}*"));
    }
    Ok(suite)
}

fn of(built: Vec<Executable>) -> Suite {
    let mut suite = Suite { tests: Vec::new(), programs: Vec::new(), directory: workspace::root().join("push-daemon") };
    for executable in built {
        match executable.kind.as_str() {
            "test" if executable.name.starts_with(PREFIX) => suite.tests.push(executable.path),
            "bin" if !executable.is_tests => suite.programs.push(executable.path),
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
    fn tests_of_the_kernel_plane_and_the_programs_are_taken() {
        let built = |kind: &str, name: &str, is_tests, path: &str| Executable {
            kind: kind.to_owned(),
            name: name.to_owned(),
            is_tests,
            path: path.into(),
        };
        let suite = of(vec![
            built("lib", "kernel_x", true, "/lib"),
            built("test", "kernel_b", true, "/b"),
            built("test", "kernel_a", true, "/a"),
            built("test", "memory", true, "/memory"),
            built("bin", "pushctl", false, "/pushctl"),
            built("bin", "pushctl", true, "/pushctl-tests"),
        ]);
        assert_eq!(suite.tests, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(suite.programs, ["/pushctl"].map(PathBuf::from));
    }
}
