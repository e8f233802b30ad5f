//! `pushctl apply`, `diff`, `confirm`, `rollback`, `export`: whole tables at once.

use std::path::Path;

use serde_json::json;

use super::{Answer, Failure, arguments::Transact, lockout, text};
use crate::kernel::{
    Action, Applied, Diff, NewRule, Tables,
    file::{self, quantity},
};

/// Lines of a difference that are printed. `--json` has them all.
const MOST_LINES: usize = 50;

pub(super) fn apply(file: &Path, how: &Transact, pin_root: &Path) -> Result<Answer, Failure> {
    let wanted = file::read(file)?;
    let mut tables = Tables::open(pin_root)?;
    if how.dry_run {
        return would(tables.compare(&wanted)?);
    }
    tables.set_guard(lockout::guard(how.force));
    done(tables.apply(&wanted, how.confirm_within)?)
}

pub(super) fn import(tables: &mut Tables, rules: &[NewRule], how: &Transact) -> Result<Answer, Failure> {
    if how.dry_run {
        return would(tables.compare_import(rules)?);
    }
    tables.set_guard(lockout::guard(how.force));
    done(tables.import(rules, how.confirm_within)?)
}

pub(super) fn diff(file: &Path, pin_root: &Path) -> Result<Answer, Failure> {
    would(Tables::open(pin_root)?.compare(&file::read(file)?)?)
}

pub(super) fn confirm(pin_root: &Path) -> Result<Answer, Failure> {
    Tables::open(pin_root)?.confirm()?;
    Answer::new("confirmed: the tables in force stay, those before are gone\n".into(), json!({ "confirmed": true }))
}

pub(super) fn rollback(pin_root: &Path) -> Result<Answer, Failure> {
    Tables::open(pin_root)?.rollback()?;
    Answer::new("rolled back: the tables before are in force again\n".into(), json!({ "rolled_back": true }))
}

pub(super) fn export(pin_root: &Path) -> Result<Answer, Failure> {
    let tables = Tables::open(pin_root)?;
    let (rules, limits, isps, prefixes) = (tables.list()?, tables.limits()?, tables.isps()?, tables.isp_prefixes()?);
    let text = file::write(&rules, limits, &isps, &prefixes)?;
    Answer::new(text, json!({ "rules": rules, "limits": limits, "isps": isps, "isp_prefixes": prefixes }))
}

fn would(diff: Diff) -> Result<Answer, Failure> {
    let said =
        if diff.is_empty() { "nothing would change\n".into() } else { format!("would change:\n{}", told(&diff)) };
    Answer::new(said, json!({ "diff": diff, "dry_run": true }))
}

fn done(applied: Applied) -> Result<Answer, Failure> {
    let mut said = if applied.diff.is_empty() { "nothing changed\n".into() } else { told(&applied.diff) };
    match applied.confirm_within_s {
        Some(seconds) => said.push_str(&format!(
            "in force for {seconds} s: `pushctl confirm` keeps it, else what was before comes back by itself\n"
        )),
        None => said.push_str("in force; `pushctl rollback` undoes it, `pushctl confirm` forgets what was before\n"),
    }
    Answer::new(said, json!({ "applied": applied, "dry_run": false }))
}

/// A line for each change: `+` comes, `-` goes, `~` becomes another.
fn told(diff: &Diff) -> String {
    let mut lines = Vec::new();
    if let Some((before, after)) = &diff.limits {
        lines.push(text::changed(&format!("~ limits: {} -> {}", text::limits(before), text::limits(after))));
    }
    lines.extend(diff.isps_added.iter().map(|name| text::good(&format!("+ ISP {name}"))));
    lines.extend(diff.isps_removed.iter().map(|name| text::bad(&format!("- ISP {name}"))));
    lines.extend(diff.isps_changed.iter().map(|name| text::changed(&format!("~ rates of ISP {name}"))));
    if diff.isp_prefixes > 0 {
        lines.push(text::changed(&format!("~ {} prefixes of ISPs", diff.isp_prefixes)));
    }
    for change in &diff.rules {
        lines.push(match (change.before, change.after) {
            (None, Some(after)) => text::good(&format!("+ {} {}", after.name(), change.prefix)),
            (Some(before), None) => text::bad(&format!("- {} {}", before.name(), change.prefix)),
            (before, after) if before == after => {
                let action = after.map_or("", Action::name);
                text::changed(&format!("~ {action} {} (time or comment)", change.prefix))
            }
            (before, after) => {
                let [before, after] = [before, after].map(|action| action.map_or("none", Action::name));
                text::changed(&format!("~ {before} -> {after} {}", change.prefix))
            }
        });
    }
    let left_out = lines.len().saturating_sub(MOST_LINES);
    lines.truncate(MOST_LINES);
    if left_out > 0 {
        lines.push(format!("... and {left_out} more (--json has them all)"));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A rate with its burst.
pub(super) fn rate(rate: crate::kernel::IspRate) -> String {
    match rate.bytes_per_s {
        0 => "none".into(),
        bytes_per_s => format!("{} (burst {})", quantity::rate(bytes_per_s), quantity::size(rate.burst_bytes)),
    }
}
