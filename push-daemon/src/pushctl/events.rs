//! `pushctl events`: drops as they happen.

use std::{
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use super::{Answer, Failure};
use crate::kernel::{Drop, Listener, Tables};

/// A line per drop that the kernel tells of; with `json`, a JSON value per line.
pub(super) fn run(count: Option<u64>, time: Option<Duration>, json: bool, pin_root: &Path) -> Result<Answer, Failure> {
    let mut listener = Listener::begin(&Tables::open(pin_root)?)?;
    let ends = time.map(|time| Instant::now() + time);
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 && ends.is_none_or(|ends| Instant::now() < ends) {
        let patience = ends.map_or(Duration::MAX, |ends| ends.saturating_duration_since(Instant::now()));
        let mut out = io::stdout().lock();
        for drop in listener.wait(patience)?.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            match json {
                true => writeln!(out, "{}", serde_json::to_string(drop)?)?,
                false => writeln!(out, "{}", told(drop))?,
            }
        }
        out.flush()?;
    }
    Ok(Answer::already_given())
}

fn told(drop: &Drop) -> String {
    let end = |address: Option<std::net::IpAddr>, port: u16| match address {
        Some(address) => std::net::SocketAddr::new(address, port).to_string(),
        None => "?".into(),
    };
    let reason = drop.reason.map_or("?", |reason| reason.name());
    let observed = if drop.observed { " (passed: only observing)" } else { "" };
    let untold = if drop.untold > 0 { format!(" (+{} untold)", drop.untold) } else { String::new() };
    format!(
        "{reason:<17} {} > {} {} bytes{}{observed}{untold}",
        end(drop.source, drop.source_port),
        end(drop.destination, drop.port),
        drop.bytes,
        flags(drop.tcp_flags)
    )
}

/// As tcpdump prints them.
fn flags(flags: u8) -> String {
    let letters = [(0x02, 'S'), (0x01, 'F'), (0x04, 'R'), (0x08, 'P'), (0x10, '.'), (0x20, 'U')];
    let set: String = letters.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| *letter).collect();
    if set.is_empty() { String::new() } else { format!(" [{set}]") }
}
