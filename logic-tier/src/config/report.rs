//! What is wrong with a config file, in the words of the person who edits it: file, line, column, the nearest valid key.
//!
//! It does not read files and knows no key by itself: what is valid comes out of serde's message.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// Keys less alike than this are no suggestion (0: nothing in common, 1: equal).
const MIN_LIKENESS: f64 = 0.7;

/// Why the config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or one that it names, cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A place in the file is wrong.
    #[error("{path}:{line}:{column}: {message}")]
    At {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong there and what would be right.
        message: String,
    },
    /// The settings do not go together.
    #[error("{0}")]
    Together(String),
}

/// Turns serde's complaint about `text` into ours.
pub(super) fn located(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let (line, column) = position(text, error.span().unwrap_or(0..0));
    ConfigError::At { path: path.into(), line, column, message: explain(error.message()) }
}

/// An error of ours about the value at `span`.
pub(super) fn at(path: &Path, text: &str, span: Range<usize>, message: String) -> ConfigError {
    let (line, column) = position(text, span);
    ConfigError::At { path: path.into(), line, column, message }
}

fn position(text: &str, span: Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// serde says "unknown field `a`, expected one of `b`, `c`" (and "unknown variant" alike): names in backticks, the
/// wrong one first. The test below holds it to that.
fn explain(message: &str) -> String {
    let kind = match message {
        _ if message.starts_with("unknown field ") => "key",
        _ if message.starts_with("unknown variant ") => "value",
        _ => return message.trim_end().to_owned(),
    };
    let mut names = message.split('`').skip(1).step_by(2);
    let Some(wrong) = names.next() else { return message.to_owned() };
    let valid: Vec<&str> = names.collect();
    let nearest = valid
        .iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, name)) => format!("unknown {kind} `{wrong}`, did you mean `{name}`?"),
        None => format!("unknown {kind} `{wrong}`; valid here: {}", valid.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let text = "a = 1\n\u{e9}\u{e9} = 2\n";
        assert_eq!(position(text, 0..1), (1, 1));
        assert_eq!(position(text, 6..8), (2, 1));
        assert_eq!(position(text, 10..11), (2, 3));
        assert_eq!(position(text, 400..401), (3, 1), "a span behind the end is the end");
    }

    #[test]
    fn a_far_key_gets_the_list_instead_of_a_guess() {
        let message = "unknown field `zzz`, expected `listen` or `secret`";
        assert_eq!(explain(message), "unknown key `zzz`; valid here: listen, secret");
    }
}
