//! How things are printed for people: columns, durations, byte counts.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal as _},
    time::Duration,
};

use anstyle::{AnsiColor, Style};

use crate::kernel::SourceLimits;

/// What comes, or is well. Colours only on a terminal, and not where `NO_COLOR` is set.
pub(super) fn good(text: &str) -> String {
    painted(text, AnsiColor::Green)
}

/// What goes, or is lost.
pub(super) fn bad(text: &str) -> String {
    painted(text, AnsiColor::Red)
}

/// What becomes another.
pub(super) fn changed(text: &str) -> String {
    painted(text, AnsiColor::Yellow)
}

fn painted(text: &str, colour: AnsiColor) -> String {
    if !io::stdout().is_terminal() || env::var_os("NO_COLOR").is_some() {
        return text.into();
    }
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

/// The limits of a source in one line.
pub(super) fn limits(limits: &SourceLimits) -> String {
    let burst = |burst: u32| if burst == 0 { String::new() } else { format!(" (burst {burst})") };
    let mut parts = Vec::new();
    if limits.packets_per_s > 0 {
        parts.push(format!("{} packets/s{}", limits.packets_per_s, burst(limits.packet_burst)));
    }
    if limits.connects_per_s > 0 {
        parts.push(format!("{} connections/s{}", limits.connects_per_s, burst(limits.connect_burst)));
    }
    if limits.open_connections > 0 {
        parts.push(format!("{} open connections", limits.open_connections));
    }
    if parts.is_empty() {
        parts.push("none".into());
    }
    format!("{}, per /{} and /{}", parts.join(", "), limits.ipv4_bits, limits.ipv6_bits)
}

/// As much of the beginning of `text` as fits in `bytes`, in whole characters.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().filter(|letter| !letter.is_control()).collect()
}

/// Rows under a heading, each column as wide as its widest cell.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(heading);
    for row in rows {
        text.push_str(&line(std::array::from_fn(|at| row[at].as_str())));
    }
    text
}

/// In the largest unit that keeps it readable, rounded: `95 s`, `10 min`, `26 h`, `7 d`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = (time + Duration::from_millis(500)).as_secs();
    let whole = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", whole(60)),
        7_200..172_800 => format!("{} h", whole(3_600)),
        _ => format!("{} d", whole(86_400)),
    }
}

/// `a, b, c`, or `none`.
pub(super) fn list<T: Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".into();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table(["PREFIX", "HITS"], &[["10.0.0.0/8".into(), "5".into()], ["::/0".into(), "123456".into()]]);
        assert_eq!(text, "PREFIX      HITS\n10.0.0.0/8  5\n::/0        123456\n");
    }

    #[test]
    fn a_duration_is_short() {
        let say = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(duration(Duration::from_millis(599_990)), "10 min");
        assert_eq!([say(0), say(119), say(600), say(7_200), say(604_800)], ["0 s", "119 s", "10 min", "2 h", "7 d"]);
    }
}
