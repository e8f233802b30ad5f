//! How things are printed for people: columns, durations, byte counts.

use std::{fmt::Display, time::Duration};

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
