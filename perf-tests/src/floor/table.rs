//! Summaries for people: one row per pattern and path, medians with half the spread behind them.

use std::fmt;

use super::figures::{FloorSummary, Spread};

/// Displays summaries.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a>(pub &'a [FloorSummary]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:<5} {:>13} {:>13} {:>12} {:>16} {:>26} {:>13} {:>8} {:>9} {:>7} {:>8}",
            "pattern",
            "path",
            "CPU/message",
            "delivered/s",
            "complete",
            "delay p50/p99",
            "last of all p50/p99/max",
            "writes/s/core",
            "in one",
            "lost CPU",
            "RSS",
            "connect"
        )?;
        for row in self.0 {
            self.row(f, row)?;
        }
        writeln!(
            f,
            "CPU of the server alone; ± half of the distance from least to greatest of {} repeats; delays in ms; lost CPU: \
             involuntary switches per 100,000 messages; RSS per connection; connect: CPU per connection accepted (and, \
             but for accept only, read and answered)",
            self.0.first().map_or(0, |row| row.repeats)
        )
    }
}

impl Table<'_> {
    fn row(&self, f: &mut fmt::Formatter<'_>, row: &FloorSummary) -> fmt::Result {
        let sent = row.completeness.is_some();
        let only = |text: String| if sent { text } else { "-".to_owned() };
        let noise = |spread: &Spread| format!("±{:.0}%", spread.noise() * 100.0);
        let ms = |spread: &Spread| format!("{:.1}", spread.median / 1000.0);
        writeln!(
            f,
            "{:<24} {:<5} {:>13} {:>13} {:>12} {:>16} {:>26} {:>13} {:>8} {:>9} {:>7} {:>8}",
            row.pattern,
            row.path,
            only(format!("{} us {}", digits(row.cpu_us_per_delivered.median), noise(&row.cpu_us_per_delivered))),
            only(format!("{} {}", count(row.delivered_per_second.median), noise(&row.delivered_per_second))),
            row.completeness.map_or("-".to_owned(), |share| format!("{:.4} %", share * 100.0)),
            only(format!("{}/{}", ms(&row.delay_p50_us), ms(&row.delay_p99_us))),
            only(format!(
                "{}/{}/{}",
                ms(&row.last_receiver_p50_us),
                ms(&row.last_receiver_p99_us),
                ms(&row.last_receiver_max_us)
            )),
            only(count(row.writes_per_cpu_second.median)),
            only(format!("{:.1}", row.messages_per_write.median)),
            only(format!("{:.0}", row.involuntary_switches_per_100k.median)),
            format!("{:.0} B", row.rss_bytes_per_client.median),
            format!("{:.1} us", row.connect_cpu_us.median),
        )
    }
}

/// Three digits that count, whether it is the tenth of a microsecond or tens of them.
fn digits(figure: f64) -> String {
    match figure {
        f if f >= 10.0 => format!("{f:.1}"),
        f if f >= 1.0 => format!("{f:.2}"),
        f if f >= 0.1 => format!("{f:.3}"),
        f => format!("{f:.4}"),
    }
}

fn count(figure: f64) -> String {
    match figure {
        f if f >= 1e6 => format!("{:.2} M", f / 1e6),
        f if f >= 1e4 => format!("{:.0} k", f / 1e3),
        f => format!("{f:.0}"),
    }
}
