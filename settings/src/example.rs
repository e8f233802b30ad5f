//! What a file that explains the settings has to say, for the tests of the daemons that ship one.
//!
//! Such a file has every key. Behind a `#` at once (`#backlog = 4096`) stands the default; behind a `#` and a blank
//! (`# secret_file = "trunk.secret"`) an example of what has no default; without `#` what the package sets otherwise.
//! Each key stands once. Programs that run need nothing of this.

use serde::de::DeserializeOwned;
use toml::Table;

use crate::explain::Unknown;

/// A key that no settings have.
const NOBODYS_KEY: &str = "qqqq";

/// The file as it would be with the defaults alone: what is set in it is left out, and each `#key = value` is set.
#[must_use]
pub fn defaults(text: &str) -> String {
    lines(text, |line| match line.strip_prefix('#') {
        Some(value) if is_setting(value) => Some(value),
        _ if is_setting(line) && !line.starts_with('[') => None,
        _ => Some(line),
    })
}

/// The file with everything set that it has behind a `#`.
#[must_use]
pub fn everything(text: &str) -> String {
    lines(text, |line| match line.strip_prefix('#') {
        Some(value) if is_setting(value.trim_start()) => Some(value.trim_start()),
        _ => Some(line),
    })
}

/// The keys of a `T` that the file has nowhere, neither set nor behind a `#`. None means that it explains everything.
///
/// # Errors
/// The text with everything set is no TOML.
pub fn missing_keys<T: DeserializeOwned>(text: &str) -> Result<Vec<String>, toml::de::Error> {
    let file: Table = toml::from_str(&everything(text))?;
    let mut missing = Vec::new();
    collect_missing::<T>(&file, "", &mut missing);
    Ok(missing)
}

fn collect_missing<T: DeserializeOwned>(file: &Table, table: &str, missing: &mut Vec<String>) {
    for key in valid_keys::<T>(table) {
        let path = if table.is_empty() { key.clone() } else { format!("{table}.{key}") };
        match file.get(&key) {
            Some(toml::Value::Table(inner)) => collect_missing::<T>(inner, &path, missing),
            Some(_) => {}
            None => missing.push(path),
        }
    }
}

/// What serde names when it meets a key that it does not know in `table`.
fn valid_keys<T: DeserializeOwned>(table: &str) -> Vec<String> {
    let head = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let Err(error) = toml::from_str::<T>(&format!("{head}{NOBODYS_KEY} = 1\n")) else { return Vec::new() };
    let unknown = Unknown::find(error.message());
    unknown.map_or_else(Vec::new, |unknown| unknown.valid.iter().map(|key| (*key).to_owned()).collect())
}

/// A table's head or `key = value`, and no prose.
fn is_setting(line: &str) -> bool {
    let is_key =
        |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'));
    match line.strip_prefix('[') {
        Some(head) => head.split_once(']').is_some_and(|(name, _)| is_key(name)),
        None => line.split_once(" = ").is_some_and(|(key, _)| is_key(key)),
    }
}

fn lines<'a>(text: &'a str, change: impl Fn(&'a str) -> Option<&'a str>) -> String {
    text.lines().filter_map(change).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        trunk: Trunk,
        extra: Option<Extra>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Trunk {
        pending: u32,
        queue: u32,
        secret: String,
        secret_file: Option<String>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Extra {
        name: String,
        depth: u8,
    }

    impl Default for Trunk {
        fn default() -> Self {
            Self { pending: 9, queue: 5, secret: String::new(), secret_file: None }
        }
    }

    const FILE: &str = "# The trunk. Its secret = what the tier knows.\n[trunk]\npending = 70  # more\n#queue = 5\n\
        #secret = \"\"\n# secret_file = \"f\"\n# [extra]\n# name = \"x\"\n";

    #[test]
    fn defaults_are_what_stands_at_once_behind_the_sign() {
        let read = |text: &str| toml::from_str::<Sample>(text).unwrap();
        assert_eq!(read(FILE).trunk.pending, 70);
        assert_eq!(read(&defaults(FILE)), Sample::default());
        assert_eq!(read(&defaults(&FILE.replace("#queue = 5", "#queue = 6"))).trunk.queue, 6);
    }

    #[test]
    fn keys_that_the_file_does_not_have_are_found_in_every_table() {
        assert_eq!(missing_keys::<Sample>(FILE).unwrap(), ["extra.depth"]);
        let few = "[trunk]\npending = 1\n#queue = 1\n";
        assert_eq!(missing_keys::<Sample>(few).unwrap(), ["trunk.secret", "trunk.secret_file", "extra"]);
    }
}
