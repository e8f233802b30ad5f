//! The tables as a file: one TOML text with the limits, the ISPs and the rules; and lists of prefixes, a line each.
//!
//! A text is read whole before anything is changed, and what is wrong is said with its line. What is written out is read back as
//! the same. It does not touch the kernel.
//!
//! Layout: `quantity` rates, sizes and times · `list` lines of prefixes · here: the TOML text.

mod list;
pub mod quantity;

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use self::list::{Line, parse_list, read_list};
use super::tables::{Action, IspEntry, IspRate, IspSpec, NewRule, Origin, Rule, SourceLimits, WholeSet};

/// Why a file could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {what}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        what: String,
    },
}

/// The text as it is laid out.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Text {
    limits: SourceLimits,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    isp: Vec<IspText>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rule: Vec<RuleText>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct IspText {
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prefixes: Vec<Prefix>,
    /// More prefixes, in a file beside this one.
    #[serde(default, skip_serializing)]
    prefix_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ingress: Option<RateText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ingress_burst: Option<SizeText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress: Option<RateText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress_burst: Option<SizeText>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    prefix: Prefix,
    #[serde(default = "deny")]
    action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<TimeText>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    comment: String,
}

fn deny() -> Action {
    Action::Deny
}

/// A prefix, or an address as the prefix that holds only it.
///
/// # Errors
/// Says what would have been right.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => {
            text.parse().map_err(|_| "neither an address nor a prefix such as 203.0.113.0/24 or 2001:db8::/32".into())
        }
    }
}

/// A value that a text spells in its own way.
macro_rules! spelt {
    ($name:ident, $value:ty, $parse:expr, $print:expr) => {
        #[derive(Clone, Copy, Debug)]
        struct $name($value);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                $parse(&text).map(Self).map_err(|right| D::Error::custom(format!("{text:?} is not right: {right}")))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&$print(self.0))
            }
        }
    };
}

spelt!(Prefix, IpNet, parse_prefix, |prefix: IpNet| prefix.to_string());
spelt!(RateText, u64, quantity::parse_rate, quantity::rate);
spelt!(SizeText, u64, quantity::parse_size, quantity::size);
spelt!(TimeText, Duration, quantity::parse_time, quantity::time);

/// Reads the file at `path`, and the prefix files that it names.
///
/// # Errors
/// A file that cannot be read, or one that says something that cannot be, with its line.
pub fn read(path: &Path) -> Result<WholeSet, FileError> {
    let text = read_text(path)?;
    parse(&text, path)
}

fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|source| FileError::Read { path: path.into(), source })
}

/// Reads `text`. `path` names it in errors, and its directory holds the prefix files.
fn parse(text: &str, path: &Path) -> Result<WholeSet, FileError> {
    let wrong = |what: String| FileError::Wrong { path: path.into(), what };
    let text: Text = toml::from_str(text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    let isps = text.isp.into_iter().map(|isp| isp.into_spec(path)).collect::<Result<_, _>>()?;
    let rules = text.rule.into_iter().map(|rule| NewRule {
        prefix: rule.prefix.0,
        action: rule.action,
        ttl: rule.ttl.map(|ttl| ttl.0),
        comment: rule.comment,
        origin: Origin::Operator,
    });
    Ok(WholeSet { rules: rules.collect(), limits: text.limits, isps })
}

impl IspText {
    fn into_spec(self, path: &Path) -> Result<IspSpec, FileError> {
        let rate = |rate: Option<RateText>, burst: Option<SizeText>| IspRate {
            bytes_per_s: rate.map_or(0, |rate| rate.0),
            burst_bytes: burst.map_or(0, |burst| burst.0),
        };
        let mut prefixes: Vec<_> = self.prefixes.into_iter().map(|prefix| prefix.0).collect();
        if let Some(file) = &self.prefix_file {
            let file = path.parent().unwrap_or(Path::new(".")).join(file);
            prefixes.extend(read_list(&file)?.into_iter().map(|line| line.prefix));
        }
        Ok(IspSpec {
            name: self.name,
            prefixes,
            ingress: rate(self.ingress, self.ingress_burst),
            egress: rate(self.egress, self.egress_burst),
        })
    }
}

/// The tables as a text that [`read`] takes. Bans of the logic tier and expired rules are left out: they are not the file's.
///
/// # Errors
/// A value that TOML cannot spell; none of ours is.
pub fn write(
    rules: &[Rule],
    limits: SourceLimits,
    isps: &[IspEntry],
    isp_prefixes: &[(IpNet, u32)],
) -> Result<String, toml::ser::Error> {
    let rate = |rate: IspRate| match rate.bytes_per_s {
        0 => (None, None),
        bytes_per_s => (Some(RateText(bytes_per_s)), Some(SizeText(rate.burst_bytes))),
    };
    let isp = isps.iter().map(|isp| {
        let (ingress, ingress_burst) = rate(isp.ingress);
        let (egress, egress_burst) = rate(isp.egress);
        let prefixes = isp_prefixes.iter().filter(|(_, number)| *number == isp.number);
        let prefixes = prefixes.map(|(prefix, _)| Prefix(*prefix)).collect();
        IspText { name: isp.name.clone(), prefixes, prefix_file: None, ingress, ingress_burst, egress, egress_burst }
    });
    let rule = rules.iter().filter(|rule| rule.origin == Origin::Operator && !rule.is_expired()).map(|rule| RuleText {
        prefix: Prefix(rule.prefix),
        action: rule.action,
        ttl: rule.expires_in.map(TimeText),
        comment: rule.comment.clone(),
    });
    toml::to_string(&Text { limits, isp: isp.collect(), rule: rule.collect() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<WholeSet, String> {
        parse(text, Path::new("tables.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_says_limits_isps_and_rules() {
        let set = parsed(
            r#"
            [limits]
            connects_per_s = 20
            open_connections = 200

            [[isp]]
            name = "north"
            prefixes = ["198.51.100.0/24", "2001:db8:1::/48"]
            egress = "50 Mbit/s"
            egress_burst = "64 KiB"

            [[rule]]
            prefix = "203.0.113.0/24"
            ttl = "10m"
            comment = "scanners"

            [[rule]]
            prefix = "203.0.113.9"
            action = "allow"
            "#,
        )
        .unwrap();
        assert_eq!((set.limits.connects_per_s, set.limits.open_connections, set.limits.ipv6_bits), (20, 200, 64));
        assert_eq!(set.isps[0].egress, IspRate { bytes_per_s: 6_250_000, burst_bytes: 65_536 });
        assert_eq!((set.isps[0].prefixes.len(), set.isps[0].ingress), (2, IspRate::default()));
        assert_eq!((set.rules[0].action, set.rules[0].ttl), (Action::Deny, Some(Duration::from_secs(600))));
        assert_eq!((set.rules[0].comment.as_str(), set.rules[1].action), ("scanners", Action::Allow));
        assert_eq!(set.rules[1].prefix.to_string(), "203.0.113.9/32");
    }

    proptest! {
        #[test]
        fn any_text_is_a_set_or_named_as_wrong(text in "(\\[\\[?(rule|isp|limits)\\]?\\]|[a-z_]{1,8} = .{0,12}|.{0,12}|\n){0,8}") {
            if let Err(error) = parsed(&text) {
                prop_assert!(error.starts_with("tables.toml: ") || error.starts_with("cannot read "), "{error}");
            }
        }

        #[test]
        fn what_is_written_is_read_as_the_same(
            (packets_per_s, open_connections, rate) in (any::<u32>(), any::<u32>(), 1_000u64..1 << 40),
            rules in proptest::collection::btree_map(any::<u32>(), (any::<bool>(), "[a-z]{0,20}"), 0..20),
        ) {
            let limits = SourceLimits { packets_per_s, open_connections, ..SourceLimits::default() };
            let rate = IspRate { bytes_per_s: rate, burst_bytes: rate };
            let isp = IspEntry { number: 3, name: "north".into(), ingress: rate, egress: rate, prefixes: 1 };
            let prefixes = [("10.0.0.0/8".parse().unwrap(), 3), ("11.0.0.0/8".parse().unwrap(), 4)];
            let rules: Vec<_> = rules.into_iter().map(|(address, (deny, comment))| Rule {
                prefix: IpAddr::from(address.to_be_bytes()).into(),
                action: if deny { Action::Deny } else { Action::Allow },
                hits: 5,
                bytes: 6,
                expires_in: None,
                comment,
                origin: Origin::Operator,
            }).collect();
            let set = parsed(&write(&rules, limits, &[isp], &prefixes).unwrap()).unwrap();
            prop_assert_eq!(set.limits, limits);
            prop_assert_eq!((set.isps[0].ingress, set.isps[0].egress, set.isps[0].prefixes.len()), (rate, rate, 1));
            let read: Vec<_> = set.rules.iter().map(|rule| (rule.prefix, rule.action, rule.comment.clone())).collect();
            let written: Vec<_> = rules.iter().map(|rule| (rule.prefix, rule.action, rule.comment.clone())).collect();
            prop_assert_eq!(read, written);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line, word) in [
            ("[limits]\npackets_per_s = -1", "line 2", "packets_per_s"),
            ("[limits]\npacket_per_s = 1", "line 2", "unknown field"),
            ("[[rule]]\nprefix = \"10.0.0.0/33\"", "line 2", "neither an address nor a prefix"),
            ("[[rule]]\nprefix = \"10.0.0.0/8\"\nttl = \"soon\"", "line 3", "a whole number"),
            ("[[isp]]\nname = \"north\"\negress = \"50\"", "line 3", "a rate such as"),
            ("[[rule]]\naction = \"deny\"", "line 1", "prefix"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(line) && error.contains(word) && error.starts_with("tables.toml: "), "{error}");
        }
    }
}
