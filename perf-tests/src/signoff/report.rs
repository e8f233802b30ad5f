//! The result of a sign-off, as it is saved, compared and shown.
//!
//! The JSON form is an interface: a field is never renamed or given another meaning under the same [`SCHEMA`]; new ones
//! may be added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::judge::{Outcome, Verdict};
use super::profile::Profile;
use super::series::Point;
use crate::meter::Machine;

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;

/// All that a sign-off found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of whoever wrote it.
    pub schema: u32,
    /// Whether every row of the budget passed and nothing cut the run short.
    pub passed: bool,
    /// Whether somebody ended it early; the figures are those up to there.
    pub interrupted: bool,
    /// When it began, in seconds since 1970.
    pub began_unix_s: u64,
    /// How long it took.
    pub seconds: f64,
    /// What it ran on.
    pub machine: Machine,
    /// Of the programs that took part: the name of each and what it says of itself.
    pub versions: BTreeMap<String, String>,
    /// How the edge sent: `ring` or `send`; empty when it did not say.
    pub send_path: String,
    /// The plan.
    pub profile: Profile,
    /// The budget, row by row.
    pub verdicts: Vec<Verdict>,
    /// What was measured.
    pub figures: Figures,
    /// When which phase ran.
    pub phases: Vec<PhaseRun>,
    /// What the processes and the host used, over time.
    pub samples: Vec<Point>,
    /// What went wrong, in words, in the order in which it did.
    pub troubles: Vec<String>,
}

/// One run of one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseRun {
    /// The phase; that of the floor has `floor_` and the send path before it.
    pub name: String,
    /// Which repeat, from 1; 0 where clients came in for the phases that follow.
    pub repeat: u64,
    /// Since the sign-off began.
    pub from_seconds: f64,
    /// Since the sign-off began.
    pub to_seconds: f64,
}

/// Why a report cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is in it.
    #[error("{} is no report of a sign-off: {source}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was written by another version.
    #[error("{} has schema {found}, and this perf-tests reads {SCHEMA}: use the perf-tests that wrote it", path.display())]
    Schema {
        /// Which.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
}

impl Report {
    /// Whether the host may be signed off: see [`Report::passed`].
    #[must_use]
    pub fn passes(&self) -> bool {
        !self.interrupted && self.verdicts.iter().all(|verdict| verdict.outcome == Outcome::Passed)
    }

    /// How many rows of the budget came to `outcome`.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.verdicts.iter().filter(|verdict| verdict.outcome == outcome).count()
    }

    /// The report in `path`.
    ///
    /// # Errors
    /// [`ReportError`] when there is none that this version reads.
    pub fn load(path: &Path) -> Result<Self, ReportError> {
        let file = |source| ReportError::File { doing: "read", path: path.to_path_buf(), source };
        let form = |source| ReportError::Form { path: path.to_path_buf(), source };
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).map_err(file)?).map_err(form)?;
        match json["schema"].as_u64() {
            Some(found) if found != u64::from(SCHEMA) => Err(ReportError::Schema { path: path.to_path_buf(), found }),
            _ => serde_json::from_value(json).map_err(form),
        }
    }

    /// Writes the report to `path`.
    ///
    /// # Errors
    /// [`ReportError`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ReportError> {
        let form = |source| ReportError::Form { path: path.to_path_buf(), source };
        write(path, &serde_json::to_string_pretty(self).map_err(form)?)
    }
}

/// Writes `text` to `path`.
///
/// # Errors
/// [`ReportError::File`].
pub fn write(path: &Path, text: &str) -> Result<(), ReportError> {
    std::fs::write(path, text).map_err(|source| ReportError::File { doing: "write", path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signoff::sample;

    #[test]
    fn it_reads_back_as_it_was_written() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let report = sample::report(1.0);
        report.save(&path).unwrap();
        assert_eq!(Report::load(&path).unwrap(), report);
    }

    #[test]
    fn what_is_none_is_said_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        let said = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            Report::load(&path).unwrap_err().to_string().replace(&path.display().to_string(), "FILE")
        };
        assert!(said(None).starts_with("cannot read FILE: "));
        assert!(said(Some("{")).starts_with("FILE is no report of a sign-off: "));
        assert!(said(Some("{\"schema\": 1}")).starts_with("FILE is no report of a sign-off: missing field"));
        assert_eq!(
            said(Some("{\"schema\": 99}")),
            "FILE has schema 99, and this perf-tests reads 1: use the perf-tests that wrote it"
        );
    }

    #[test]
    fn credentials_are_not_in_it() {
        let mut report = sample::report(1.0);
        let target = "tcp = \"127.0.0.1:1\"\nwebsocket = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\nhttp = \"127.0.0.1:4\"\n\
                      edge_pid = 1\napi_key = \"hunter2\"\ntoken = \"hunter3\"\n";
        report.profile.target = Some(toml::from_str(target).unwrap());
        let text = serde_json::to_string(&report).unwrap() + &crate::signoff::html::page(&report);
        assert!(text.contains("edge_pid") && !text.contains("hunter"));
    }
}
