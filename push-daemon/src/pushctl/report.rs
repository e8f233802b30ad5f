//! `pushctl status` and `pushctl stats`: what is in force, and what it did.

use std::{
    io::{self, Write as _},
    path::Path,
    thread,
    time::Duration,
};

use serde_json::json;

use super::{Answer, Failure, text};
use crate::kernel::{Count, IspCount, Measurement, ShapeCount, Status, Tables, status as kernel_status};

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
    let addresses = status.protected_addresses.as_deref().map_or("all".into(), text::list);
    let fragments = if status.drop_fragments { "drop" } else { "judged by the first" };
    let change = match (status.transaction.trial_s, status.transaction.can_roll_back) {
        (Some(seconds), _) => format!("on trial for {seconds} s more (`pushctl confirm`, `pushctl rollback`)"),
        (None, true) => "the last can be undone (`pushctl rollback`)".into(),
        (None, false) => "none under way".into(),
    };
    let steering = match &status.steering {
        Some(report) if report.in_force => {
            let open = report.shards.iter().filter(|shard| shard.state == "open").count();
            format!("to {open} open shards of {}", report.shards.len())
        }
        Some(_) => "no shard listens".into(),
        None => "none: the kernel's hash picks the shard".into(),
    };
    let uncounted = status.limits.open_connections > 0 && status.measured_one_in.is_none();
    let limits = text::limits(&status.limits);
    let limits =
        if uncounted { format!("{limits} (open connections are not counted: measuring is off)") } else { limits };
    let shaping = status.shaping.map_or("off".into(), |backend| format!("by {backend}"));
    let measuring = match status.measured_one_in {
        None => "off".into(),
        Some(0) => "on, no connection sampled".into(),
        Some(one_in) => format!("on, one connection in {one_in} sampled"),
    };
    format!(
        "filter      {state}\nattached    {attached}\nports       {}\naddresses   {addresses}\nfragments   {fragments}\n\
         management  {}\nlimits      {}\nISPs        {}\nrules       IPv4: {} hosts, {} prefixes; \
         IPv6: {} hosts, {} prefixes\nsteering    {steering}\nshaping     {shaping}\nmeasuring   {measuring}\nchange      {change}\npins        {} (layout {})\n",
        text::list(&status.protected_ports),
        text::list(&status.management),
        limits,
        status.isps,
        rules.hosts_v4,
        rules.prefixes_v4,
        rules.hosts_v6,
        rules.prefixes_v6,
        status.pin_dir.display(),
        status.layout
    )
}

pub(super) fn stats(pin_root: &Path) -> Result<Answer, Failure> {
    let tables = Tables::open(pin_root)?;
    let (counts, isps) = (tables.counters()?, tables.isp_counters()?);
    let (shaped, measured) = (tables.shape_counters()?, tables.measurements()?);
    let said = counted(&counts, &isps, &shaped, &measured);
    Answer::new(said, json!({ "reasons": counts, "isps": isps, "shaped": shaped, "measured": measured }))
}

fn counted(counts: &[Count], isps: &[IspCount], shaped: &[ShapeCount], measured: &[Measurement]) -> String {
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
    let mut said = text::table(["VERDICT", "REASON", "PACKETS", "BYTES", "ONLY OBSERVED"], &rows);
    // Without ISPs the one line for everybody would say what stands above already.
    if isps.len() > 1 {
        let rows = isps
            .iter()
            .map(|isp| {
                let shaped = shaped.iter().find(|shaped| shaped.number == isp.number);
                let measured = measured.iter().find(|measured| measured.number == isp.number);
                let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".into());
                [
                    if isp.number == 0 { "(none)".into() } else { isp.name.clone() },
                    isp.passed_bytes.to_string(),
                    isp.policed_bytes.to_string(),
                    or_none(shaped.map(|shaped| shaped.bytes.to_string())),
                    or_none(shaped.map(|shaped| shaped.delayed_packets.to_string())),
                    or_none(measured.map(|measured| measured.opened.saturating_sub(measured.closed).to_string())),
                    or_none(measured.and_then(Measurement::rtt_us).map(|rtt| format!("{:.1} ms", rtt as f64 / 1e3))),
                    or_none(measured.and_then(Measurement::loss).map(|loss| format!("{:.2} %", loss * 100.0))),
                ]
            })
            .collect::<Vec<_>>();
        let heading = ["ISP", "BYTES IN", "POLICED", "BYTES OUT", "DELAYED", "OPEN", "RTT", "LOSS"];
        said.push('\n');
        said.push_str(&text::table(heading, &rows));
    }
    said
}

/// What came in each second, by reason, as lines or as a JSON value per line, until interrupted.
pub(super) fn watch(json: bool, pin_root: &Path) -> Result<Answer, Failure> {
    let tables = Tables::open(pin_root)?;
    let mut before = tables.counters()?;
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = tables.counters()?;
        let moved = before.iter().zip(&now).map(|(before, now)| now.since(before));
        let moved: Vec<_> = moved.filter(|count| count.packets > 0 || count.observed_packets > 0).collect();
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(&moved)?)?;
        } else {
            let told = |count: &Count| {
                let told = format!("{} {}", count.reason.name(), count.packets + count.observed_packets);
                if count.verdict == "drop" { text::bad(&told) } else { text::good(&told) }
            };
            let told = moved.iter().map(told).collect::<Vec<_>>();
            writeln!(out, "{}", if told.is_empty() { "-".into() } else { told.join("  ") })?;
        }
        out.flush()?;
        before = now;
    }
}

/// `pushctl off` and `pushctl on`.
pub(super) fn switch(off: bool, dry_run: bool, pin_root: &Path) -> Result<Answer, Failure> {
    let mut tables = Tables::open(pin_root)?;
    if !dry_run {
        tables.set_kill_switch(off)?;
    }
    let does = if dry_run { "would be" } else { "is" };
    let state = if off { "off: everything passes" } else { "on" };
    Answer::new(format!("the filter {does} {state}\n"), json!({ "kill_switch": off, "dry_run": dry_run }))
}
