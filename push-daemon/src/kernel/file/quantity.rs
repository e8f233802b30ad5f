//! Rates, sizes and times as people write them: `50 Mbit/s`, `64 KiB`, `10m`.
//!
//! Rates are in bits, as links are sold; sizes in bytes, as buffers are. A unit is always said: a bare number is taken by half its
//! readers for the other.

use std::time::Duration;

/// What was wrong with a quantity: what would have been right.
pub type Wrong = String;

const BITS: [(&str, u64); 4] = [("bit/s", 1), ("kbit/s", 1_000), ("mbit/s", 1_000_000), ("gbit/s", 1_000_000_000)];
const BYTES: [(&str, u64); 6] =
    [("b", 1), ("kb", 1_000), ("mb", 1_000_000), ("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30)];
const SECONDS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// A rate such as `50 Mbit/s`, in bytes per second; `none` is 0.
pub fn parse_rate(text: &str) -> Result<u64, Wrong> {
    let wrong = || "a rate such as `50 Mbit/s` or `1.5gbit`, or `none`".to_owned();
    if text.trim() == "none" {
        return Ok(0);
    }
    let (number, unit) = split(text);
    let unit = if unit.ends_with("/s") { unit } else { format!("{unit}/s") };
    let bits = scaled(number, factor(&BITS, &unit).ok_or_else(wrong)?).ok_or_else(wrong)?;
    if bits < 8 { Err(wrong()) } else { Ok(bits / 8) }
}

/// A size such as `64 KiB`, in bytes.
pub fn parse_size(text: &str) -> Result<u64, Wrong> {
    let wrong = || "a size such as `64 KiB` or `1 MB`".to_owned();
    let (number, unit) = split(text);
    let bytes = scaled(number, factor(&BYTES, &unit).ok_or_else(wrong)?).ok_or_else(wrong)?;
    if bytes == 0 { Err(wrong()) } else { Ok(bytes) }
}

/// A time such as `90s`, `10m`, `2h` or `7d`: a whole number and a unit.
pub fn parse_time(text: &str) -> Result<Duration, Wrong> {
    let wrong = || "a whole number and s, m, h or d, such as 10m".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = factor(&SECONDS, unit.encode_utf8(&mut [0; 4])).ok_or_else(wrong)?;
    let number: u32 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    if number == 0 {
        return Err("more than no time at all".into());
    }
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// As [`parse_rate`] takes it, without loss.
#[must_use]
pub fn rate(bytes_per_s: u64) -> String {
    if bytes_per_s == 0 {
        "none".into()
    } else {
        in_units(u128::from(bytes_per_s) * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"], 1_000)
    }
}

/// As [`parse_size`] takes it, without loss.
#[must_use]
pub fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1024) {
        in_units(u128::from(bytes), ["B", "KiB", "MiB", "GiB"], 1024)
    } else {
        in_units(u128::from(bytes), ["B", "kB", "MB", "MB"], 1_000)
    }
}

/// As [`parse_time`] takes it: the rest of a second counts as a whole one.
#[must_use]
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let unit = SECONDS.iter().rev().find(|(_, unit)| seconds.is_multiple_of(*unit) && seconds >= *unit);
    match unit {
        Some((name, unit)) => format!("{}{name}", seconds / unit),
        None => format!("{}s", seconds.max(1)),
    }
}

/// The largest unit that divides the value.
fn in_units(value: u128, units: [&str; 4], step: u128) -> String {
    let (mut value, mut at) = (value, 0);
    while at + 1 < units.len() && units[at + 1] != units[at] && value >= step && value.is_multiple_of(step) {
        value /= step;
        at += 1;
    }
    format!("{value} {}", units[at])
}

/// The number, and the unit in lower case without blanks.
fn split(text: &str) -> (&str, String) {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim().to_ascii_lowercase())
}

fn factor(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

/// `number` times `factor`, exactly where the number is whole.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let scaled = number.parse::<f64>().ok()? * factor as f64;
    (scaled.is_finite() && scaled < 1e18).then_some(scaled.round() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_in_bits_and_its_unit_is_said() {
        assert_eq!(parse_rate("50 Mbit/s"), Ok(6_250_000));
        assert_eq!(parse_rate("1.5gbit"), Ok(187_500_000));
        assert_eq!(parse_rate("none"), Ok(0));
        for wrong in ["", "50", "50 M", "50 mbps", "-1 kbit/s", "0 bit/s", "7 bit/s", "999999999999 gbit/s", "1e3 kbit"]
        {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_is_in_bytes() {
        assert_eq!(parse_size("64 KiB"), Ok(65_536));
        assert_eq!(parse_size("1MB"), Ok(1_000_000));
        for wrong in ["", "64", "0 B", "1 kbit", "1 pb"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_time("4294967295d").map(|time| time.as_secs()), Ok(4_294_967_295 * 86_400));
        for wrong in ["", "s", "10", "m10", "-5m", "1.5h", "4294967296s", "0s", "5µ"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(rate_bytes in 1u64..1 << 40, bytes in 1u64..1 << 50, seconds in 1u64..1 << 31) {
            prop_assert_eq!(parse_rate(&rate(rate_bytes)), Ok(rate_bytes));
            prop_assert_eq!(parse_size(&size(bytes)), Ok(bytes));
            prop_assert_eq!(parse_time(&time(Duration::from_secs(seconds))), Ok(Duration::from_secs(seconds)));
        }

        #[test]
        fn any_text_is_a_quantity_or_wrong(text in ".{0,20}") {
            let _ = (parse_rate(&text), parse_size(&text), parse_time(&text));
        }
    }
}
