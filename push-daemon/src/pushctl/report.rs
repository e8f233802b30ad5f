//! `pushctl status` and `pushctl stats`: what is in force, and what it did.

use std::path::Path;

use super::{Answer, Failure, text};
use crate::kernel::{Status, Tables, status as kernel_status};

pub(super) fn status(pin_root: &Path) -> Result<Answer, Failure> {
    let status = kernel_status(pin_root)?;
    Answer::new(status_text(&status), status)
}

pub(super) fn status_text(status: &Status) -> String {
    let rules = status.rules;
    let state = match (status.kill_switch, status.observe) {
        (true, _) => "off (everything passes)",
        (false, true) => "observing (drops are counted, and pass)",
        (false, false) => "enforcing",
    };
    let attached = match &status.attached {
        None => "to nothing: only the tables are pinned (`pushctl attach`, or start push-daemon)".into(),
        Some(at) => {
            let mode = at.mode.map_or_else(|| "unknown".to_owned(), |mode| mode.to_string());
            let elsewhere = if at.in_this_namespace { "" } else { ", in another network namespace" };
            format!(
                "to {} (index {}) in {mode} mode, program {}{elsewhere}",
                at.interface, at.interface_index, at.program_id
            )
        }
    };
    format!(
        "filter      {state}\nattached    {attached}\nports       {}\nmanagement  {}\nrules       IPv4: {} hosts, {} prefixes; \
         IPv6: {} hosts, {} prefixes\npins        {} (layout {})\n",
        text::list(&status.protected_ports),
        text::list(&status.management),
        rules.hosts_v4,
        rules.prefixes_v4,
        rules.hosts_v6,
        rules.prefixes_v6,
        status.pin_dir.display(),
        status.layout
    )
}

pub(super) fn stats(pin_root: &Path) -> Result<Answer, Failure> {
    let counts = Tables::open(pin_root)?.counters()?;
    let rows = counts
        .iter()
        .map(|count| {
            [
                count.verdict.into(),
                count.reason.name().into(),
                count.packets.to_string(),
                count.bytes.to_string(),
                count.observed_packets.to_string(),
            ]
        })
        .collect::<Vec<_>>();
    Answer::new(text::table(["VERDICT", "REASON", "PACKETS", "BYTES", "ONLY OBSERVED"], &rows), counts)
}
