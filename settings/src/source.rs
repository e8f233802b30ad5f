//! One file of settings: its text, what is read out of it, and where in it something is wrong.
//!
//! It opens the file, and the files of secrets that the file names; nothing else.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Secret;
use crate::explain::explain;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file, or one that it names, cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Something in the file is not as it should be.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong there and what would be right.
        what: String,
    },
}

/// A file of settings and its text.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads the file.
    ///
    /// # Errors
    /// [`SettingsError::Read`].
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        Ok(Self::new(path, read(path)?))
    }

    /// A text that was already read. `path` is what errors call it, and where the files that it names are looked for.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The text as a `T`, which should carry `#[serde(deny_unknown_fields)]`.
    ///
    /// # Errors
    /// [`SettingsError::Wrong`], with the nearest valid key if a key is wrong.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        toml::from_str(&self.text).map_err(|error| self.at(error.span().unwrap_or(0..0), explain(error.message())))
    }

    /// An error about the value of `key`, a path of names and of indexes such as `http.api_keys.1`.
    ///
    /// It points at the value. When the file leaves that key out, so that a default is meant, it points at the
    /// nearest table around it and names the key.
    #[must_use]
    pub fn wrong(&self, key: &str, what: impl Into<String>) -> SettingsError {
        let what = what.into();
        match self.find(key) {
            (span, true) => self.at(span, what),
            (span, false) => self.at(span, format!("{key}: {what}")),
        }
    }

    /// The secret of `table`, out of its keys `secret` and `secret_file`: one of them, or none for no secret.
    ///
    /// A relative path starts where the settings are. A line end behind the secret does not count, since editors
    /// leave one.
    ///
    /// # Errors
    /// Both are set, or the file cannot be read.
    pub fn secret(&self, table: &str, secret: &Secret, file: Option<&Path>) -> Result<Secret, SettingsError> {
        let Some(file) = file else { return Ok(secret.clone()) };
        if !secret.is_empty() {
            let what = format!("[{table}] sets both secret and secret_file; keep one of them");
            return Err(self.wrong(&format!("{table}.secret_file"), what));
        }
        let base = self.path.parent().unwrap_or(Path::new(""));
        Ok(Secret::new(read(&base.join(file))?.trim_end_matches(['\r', '\n'])))
    }

    fn at(&self, span: Range<usize>, what: String) -> SettingsError {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        SettingsError::Wrong {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
            what,
        }
    }

    /// Where `key` is, or the last table on the way to it, and whether it is the key itself.
    fn find(&self, key: &str) -> (Range<usize>, bool) {
        // Whoever asks has read the text before, so that it is TOML.
        let Ok(root) = DeTable::parse(&self.text) else { return (0..0, false) };
        let mut steps = key.split('.');
        let mut found: Option<&Spanned<DeValue<'_>>> = None;
        for step in &mut steps {
            let next = match found {
                None => root.get_ref().get(step),
                Some(value) => match step.parse::<usize>() {
                    Ok(index) => value.get_ref().get(index),
                    Err(_) => value.get_ref().get(step),
                },
            };
            match next {
                Some(value) => found = Some(value),
                None => return (found.map_or(0..0, Spanned::span), false),
            }
        }
        (found.map_or(0..0, Spanned::span), true)
    }
}

fn read(path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|error| SettingsError::Read { path: path.to_path_buf(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        limits: Limits,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Limits {
        handshake_timeout_ms: u64,
        debt_bytes: u32,
    }

    fn mistake(text: &str) -> String {
        let read = Source::new("edge.toml", text).parse::<Sample>();
        read.map(|sample| (sample.limits.debt_bytes, sample.limits.handshake_timeout_ms)).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_file_line_and_the_nearest_key() {
        let rows = [
            (
                "# edge\n[limits]\nhandshake_timeut_ms = 8000\n",
                "edge.toml:3:1: unknown key `handshake_timeut_ms`: did you mean `handshake_timeout_ms`?",
            ),
            ("[limts]\n", "edge.toml:1:2: unknown key `limts`: did you mean `limits`?"),
            ("[limits]\nzzz = 1\n", "edge.toml:2:1: unknown key `zzz`: valid here: handshake_timeout_ms, debt_bytes"),
        ];
        for (text, expected) in rows {
            assert_eq!(mistake(text), expected);
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_shown_where_it_stands() {
        let message = mistake("[limits]\ndebt_bytes = \"many\"\n");
        assert!(message.starts_with("edge.toml:2:14: invalid type"), "{message}");
    }

    #[test]
    fn what_a_daemon_finds_wrong_has_a_place() {
        let text = "# \u{e9}\n[trunk]\nlines = [\"a\", \"\u{e9}\u{e9}\", \"c\"]\n\n  [trunk.deep]\n  level = 3\n";
        let source = Source::new("edge.toml", text);
        for (key, expected) in [
            ("trunk.lines", "edge.toml:3:9: no"),
            ("trunk.lines.2", "edge.toml:3:21: no"),
            ("trunk.deep.level", "edge.toml:6:11: no"),
            ("trunk.deep", "edge.toml:5:3: no"),
            // What is left out: the table that would have it, else the file.
            ("trunk.secret", "edge.toml:2:1: trunk.secret: no"),
            ("trunk.lines.7", "edge.toml:3:9: trunk.lines.7: no"),
            ("node.name", "edge.toml:1:1: node.name: no"),
        ] {
            assert_eq!(source.wrong(key, "no").to_string(), expected);
        }
    }

    #[test]
    fn a_secret_stands_in_the_settings_or_in_a_file_beside_them() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("trunk.secret"), "from the file\r\n").unwrap();
        let source = Source::new(directory.path().join("edge.toml"), "[trunk]\nsecret_file = \"trunk.secret\"\n");
        let (none, set, file) = (Secret::default(), Secret::new("set"), Some(Path::new("trunk.secret")));
        assert_eq!(source.secret("trunk", &none, None).unwrap().expose(), "");
        assert_eq!(source.secret("trunk", &set, None).unwrap().expose(), "set");
        assert_eq!(source.secret("trunk", &none, file).unwrap().expose(), "from the file");
        let both = source.secret("trunk", &set, file).unwrap_err().to_string();
        assert!(both.ends_with("edge.toml:2:15: [trunk] sets both secret and secret_file; keep one of them"), "{both}");
        let missing = source.secret("trunk", &none, Some(Path::new("none"))).unwrap_err().to_string();
        assert!(
            missing.starts_with(&format!("cannot read {}: ", directory.path().join("none").display())),
            "{missing}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Source::read(Path::new("/nonexistent/edge.toml")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nonexistent/edge.toml: "), "{error}");
    }
}
