//! Lists of prefixes, a line each, as blocklists and registries are published: `203.0.113.0/24 # why`.

use std::path::Path;

use ipnet::IpNet;

use super::{FileError, parse_prefix, read_text};

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The prefix.
    pub prefix: IpNet,
    /// What stands behind it; empty when nothing does.
    pub comment: String,
}

/// Reads the list at `path`.
///
/// # Errors
/// A file that cannot be read, or the first line that is no prefix.
pub fn read_list(path: &Path) -> Result<Vec<Line>, FileError> {
    let text = read_text(path)?;
    parse_list(&text).map_err(|what| FileError::Wrong { path: path.into(), what })
}

/// Reads a list: a prefix or an address a line, then what `#` or `;` introduces. Blank lines and lines of comment are skipped.
///
/// # Errors
/// Names the first line that is no prefix.
pub fn parse_list(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (prefix, comment) = match line.split_once(['#', ';']) {
            Some((prefix, comment)) => (prefix.trim(), comment.trim()),
            None => (line.trim(), ""),
        };
        if !prefix.is_empty() {
            let prefix = parse_prefix(prefix).map_err(|right| format!("line {number}: {prefix:?} is {right}"))?;
            lines.push(Line { prefix, comment: comment.into() });
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_is_prefixes_and_comments() {
        let list = parse_list("# a list\n\n203.0.113.0/24 ; SBL123\n2001:db8::1\n  10.0.0.0/8 # ours  \n").unwrap();
        let told: Vec<_> = list.iter().map(|line| (line.prefix.to_string(), line.comment.as_str())).collect();
        let expected = [("203.0.113.0/24", "SBL123"), ("2001:db8::1/128", ""), ("10.0.0.0/8", "ours")];
        assert_eq!(told, expected.map(|(prefix, comment)| (prefix.to_owned(), comment)));
        assert!(parse_list("10.0.0.0/8\n10.0.0/8\n").unwrap_err().starts_with("line 2: \"10.0.0/8\" is neither"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_names_a_line(text in "(.{0,12}\n){0,6}") {
            if let Err(what) = parse_list(&text) {
                prop_assert!(what.starts_with("line "));
            }
        }
    }
}
