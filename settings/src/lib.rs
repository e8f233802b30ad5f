//! Settings from a TOML file, with errors that name the file, the line and the nearest valid key.
//!
//! Both daemons read their configuration through this, so that a typo reads the same everywhere:
//!
//! ```text
//! push-daemon.toml:3:1: unknown key `lissten`: did you mean `listen`?
//! ```
//!
//! It does not know any setting: the daemons' own types say which keys there are, and check what a
//! single value cannot tell.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// How much of a key may differ for it to be taken as a misspelling: 0 nothing alike, 1 the same.
const LIKENESS: f64 = 0.5;

/// Why a file of settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings in {}: {error}", path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Something in the file is not as it should be.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Wrong {
        /// As given.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong, and the nearest valid key if a key is.
        what: String,
    },
}

/// Reads `path` as a `T`, which should carry `#[serde(deny_unknown_fields)]`.
///
/// # Errors
/// [`SettingsError`], ready to be shown.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, SettingsError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| SettingsError::Read { path: path.to_path_buf(), error })?;
    parse(&text, path)
}

/// Reads `text` as a `T`; `path` is what errors call it.
///
/// # Errors
/// [`SettingsError::Wrong`].
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
        SettingsError::Wrong {
            path: path.to_path_buf(),
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
            what: explain(error.message()),
        }
    })
}

/// Turns serde's "unknown field `a`, expected one of `b`, `c`" into words about keys.
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (message.starts_with("unknown field"), quoted.next()) else {
        return message.to_owned();
    };
    let valid: Vec<&str> = quoted.collect();
    let nearest = valid
        .iter()
        .map(|key| (strsim::normalized_damerau_levenshtein(unknown, key), key))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, key)) => format!("unknown key `{unknown}`: did you mean `{key}`?"),
        None if valid.is_empty() => format!("unknown key `{unknown}`: this table has no keys"),
        None => format!("unknown key `{unknown}`: valid keys here are {}", valid.join(", ")),
    }
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

    fn wrong(text: &str) -> String {
        parse::<Sample>(text, Path::new("edge.toml")).map(|sample| sample.limits.debt_bytes).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_file_line_and_the_nearest_key() {
        let rows = [
            (
                "# edge\n[limits]\nhandshake_timeut_ms = 8000\n",
                "edge.toml:3:1: unknown key `handshake_timeut_ms`: did you mean `handshake_timeout_ms`?",
            ),
            ("[limts]\n", "edge.toml:1:2: unknown key `limts`: did you mean `limits`?"),
            (
                "[limits]\nzzz = 1\n",
                "edge.toml:2:1: unknown key `zzz`: valid keys here are handshake_timeout_ms, debt_bytes",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(wrong(text), expected);
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_shown_where_it_stands() {
        let message = wrong("[limits]\ndebt_bytes = \"many\"\n");
        assert!(message.starts_with("edge.toml:2:14: invalid type"), "{message}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load::<Sample>(Path::new("/nonexistent/edge.toml")).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read the settings in /nonexistent/edge.toml"), "{error}");
    }
}
