//! Numbers, times and names as people read them.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::load::scenario::Transport;
use crate::signoff::judge::Outcome;
use crate::signoff::plot::short;
use crate::signoff::report::Report;

/// A text between tags or within quotes.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // What no XML may hold, and no reader wants.
                c if c.is_control() && c != '\n' && c != '\t' => f.write_str("\u{fffd}")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// A full name, which may be broken into lines behind its dots.
pub(super) struct Name<'a>(pub(super) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.split('.').enumerate() {
            f.write_str(if index > 0 { ".<wbr/>" } else { "" })?;
            write!(f, "{}", Escaped(part))?;
        }
        Ok(())
    }
}

/// The whole report in two or three words.
pub(super) fn verdict(report: &Report) -> &'static str {
    match () {
        () if report.interrupted => "Interrupted",
        () if report.verdicts.is_empty() => "Measured, no budget",
        () if report.passed => "Signed off",
        () => "Not signed off",
    }
}

pub(super) fn outcome(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Passed => ("passed", "passed"),
        Outcome::Failed => ("failed", "failed"),
        Outcome::NotMeasured => ("not_measured", "not measured"),
    }
}

pub(super) fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Websocket => "WebSocket",
    }
}

/// A value with its unit.
pub(super) fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "" => short(value),
        "/s" | "×" => format!("{}{unit}", short(value)),
        "of a core" => format!("{} % of a core", short(value * 100.0)),
        _ => format!("{} {unit}", short(value)),
    }
}

/// 1000000 as 1,000,000.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A date and time, in Greenwich.
pub(super) fn date(unix_s: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s))
}

pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// What is signed off first, then what it needs, then what measures.
pub(super) fn rank_of_process(name: &str) -> usize {
    ["push-daemon", "logic-tier", "clients", "floor"].iter().position(|known| *known == name).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (found, expected) in [
            (Escaped("a<b> & \"c\"\u{1}").to_string(), "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}"),
            (Name("floor.a.b_us").to_string(), "floor.<wbr/>a.<wbr/>b_us"),
            (grouped(1_000_000), "1,000,000"),
            (grouped(999), "999"),
            (with_unit(0.0123, "of a core"), "1.23 % of a core"),
            (with_unit(12_500.0, "/s"), "12.5k/s"),
            (with_unit(3.5, "µs"), "3.5 µs"),
            (duration(59.4), "59 s"),
            (duration(725.0), "12 min 5 s"),
            (date(0), "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(found, expected);
        }
    }
}
