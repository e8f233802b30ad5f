//! What serde says of a key or a value that it does not know, in the words of the person who edits the file.
//!
//! It knows no key by itself: what is valid comes out of serde's message.

/// How much of a name may differ for it to be taken as a misspelling: 0 nothing alike, 1 the same.
const LIKENESS: f64 = 0.5;

/// A name that is not valid where it stands, and those that are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown<'a> {
    /// `key` or `value`.
    kind: &'a str,
    name: &'a str,
    pub(crate) valid: Vec<&'a str>,
}

impl<'a> Unknown<'a> {
    /// serde says "unknown field `a`, expected one of `b`, `c`", and "unknown variant" alike: names in backticks, the
    /// wrong one first. `None`: the message is about something else.
    pub(crate) fn find(message: &'a str) -> Option<Self> {
        let kind = match message {
            _ if message.starts_with("unknown field ") => "key",
            _ if message.starts_with("unknown variant ") => "value",
            _ => return None,
        };
        let mut names = message.split('`').skip(1).step_by(2);
        let name = names.next()?;
        Some(Self { kind, name, valid: names.collect() })
    }

    fn nearest(&self) -> Option<&'a str> {
        let likeness = |valid: &'a str| (strsim::normalized_damerau_levenshtein(self.name, valid), valid);
        let alike = self.valid.iter().map(|valid| likeness(valid)).filter(|(likeness, _)| *likeness >= LIKENESS);
        alike.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, valid)| valid)
    }
}

/// `message` as it is shown.
pub(crate) fn explain(message: &str) -> String {
    match Unknown::find(message) {
        Some(Unknown { kind, name, valid }) => unknown(kind, name, &valid),
        None => message.trim_end().to_owned(),
    }
}

/// What is said of a `name` that is none of the `valid` ones, for names that the file's types do not know. `kind` is what
/// the names are: `key`, `phase`.
#[must_use]
pub fn unknown(kind: &str, name: &str, valid: &[&str]) -> String {
    let unknown = Unknown { kind, name, valid: valid.to_vec() };
    match unknown.nearest() {
        Some(nearest) => format!("unknown {kind} `{name}`: did you mean `{nearest}`?"),
        None if valid.is_empty() => format!("unknown {kind} `{name}`: there is none here"),
        None => format!("unknown {kind} `{name}`: valid here: {}", valid.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_a_question_and_a_far_one_gets_the_list() {
        for (message, expected) in [
            ("unknown field `lissten`, expected `listen` or `secret`", "unknown key `lissten`: did you mean `listen`?"),
            ("unknown field `zzz`, expected `listen` or `secret`", "unknown key `zzz`: valid here: listen, secret"),
            ("unknown field `zzz`, there are no fields", "unknown key `zzz`: there is none here"),
            ("unknown variant `tokn`, expected `open` or `token`", "unknown value `tokn`: did you mean `token`?"),
            ("missing field `mode`\n", "missing field `mode`"),
        ] {
            assert_eq!(explain(message), expected);
        }
    }
}
