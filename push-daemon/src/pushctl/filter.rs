//! `pushctl filter`: the rules.

use std::{net::IpAddr, path::Path, time::Duration};

use abi::verdict::{Reason, Verdict};
use ipnet::IpNet;
use serde_json::json;

use super::{Answer, Failure, arguments::FilterVerb, text};
use crate::kernel::{Action, NewRule, Rule, Tables};

pub(super) fn run(verb: FilterVerb, pin_root: &Path) -> Result<Answer, Failure> {
    let mut tables = Tables::open(pin_root)?;
    match verb {
        FilterVerb::Add { prefix, allow, deny: _, ttl, dry_run } => {
            add(&mut tables, prefix, if allow { Action::Allow } else { Action::Deny }, ttl, dry_run)
        }
        FilterVerb::Del { prefix, dry_run } => del(&mut tables, prefix, dry_run),
        FilterVerb::List => list(&tables),
        FilterVerb::Test { address } => test(&tables, address),
        FilterVerb::Off => switch(&mut tables, true),
        FilterVerb::On => switch(&mut tables, false),
    }
}

fn add(
    tables: &mut Tables,
    prefix: IpNet,
    action: Action,
    ttl: Option<Duration>,
    dry_run: bool,
) -> Result<Answer, Failure> {
    let rule = NewRule::new(prefix, action).standing(ttl);
    let added = if dry_run { tables.check(&rule)? } else { tables.add(&rule)? };
    let does = if dry_run { "would " } else { "" };
    let standing = ttl.map_or_else(String::new, |ttl| format!(" for {}", text::duration(ttl)));
    let replacing = match &added.replaced {
        Some(rule) => format!(" (in place of {}{})", rule.action.name(), expiry(rule)),
        None => String::new(),
    };
    let mut said = format!("{does}{} {prefix}{standing}{replacing}\n", action.name());
    if !added.spared.is_empty() {
        said.push_str(&format!("management still passes: {}\n", text::list(&added.spared)));
    }
    let seconds = ttl.map(|ttl| ttl.as_secs());
    Answer::new(
        said,
        json!({ "prefix": prefix, "action": action, "ttl_s": seconds, "dry_run": dry_run,
                "replaced": added.replaced, "spared_management": added.spared }),
    )
}

fn del(tables: &mut Tables, prefix: IpNet, dry_run: bool) -> Result<Answer, Failure> {
    let rule = if dry_run { tables.find(prefix)? } else { tables.remove(prefix)? };
    let does = if dry_run { "would remove" } else { "removed" };
    let said = format!("{does} {} {prefix}, which decided {} packets\n", rule.action.name(), rule.hits);
    Answer::new(said, json!({ "removed": rule, "dry_run": dry_run }))
}

fn list(tables: &Tables) -> Result<Answer, Failure> {
    let rules = tables.list()?;
    if rules.is_empty() {
        return Answer::new("no rules: everybody may reach the protected ports\n".into(), rules);
    }
    let rows = rules
        .iter()
        .map(|rule| {
            let expires = match rule.expires_in {
                None => "never".into(),
                Some(Duration::ZERO) => "expired".into(),
                Some(time) => format!("in {}", text::duration(time)),
            };
            [rule.prefix.to_string(), rule.action.name().into(), rule.hits.to_string(), rule.bytes.to_string(), expires]
        })
        .collect::<Vec<_>>();
    Answer::new(text::table(["PREFIX", "ACTION", "HITS", "BYTES", "EXPIRES"], &rows), rules)
}

fn test(tables: &Tables, address: IpAddr) -> Result<Answer, Failure> {
    let found = tables.test(address)?;
    let verdict = match found.verdict() {
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    };
    let mut because = match (found.reason, &found.rule, &found.management) {
        (Reason::KillSwitch, ..) => "the filter is switched off".into(),
        (Reason::Management, _, Some(prefix)) => format!("management prefix {prefix}"),
        (_, Some(rule), _) => format!("{} {}{}", rule.action.name(), rule.prefix, expiry(rule)),
        _ => "no rule".into(),
    };
    if found.observed {
        because.push_str(", but the filter only observes");
    }
    let mut value = serde_json::to_value(&found)?;
    value["verdict"] = verdict.into();
    Answer::new(format!("{address}: {verdict} ({because})\n"), value)
}

fn switch(tables: &mut Tables, off: bool) -> Result<Answer, Failure> {
    tables.set_kill_switch(off)?;
    let said = if off { "the filter is off: everything passes\n" } else { "the filter is on\n" };
    Answer::new(said.into(), json!({ "kill_switch": off }))
}

fn expiry(rule: &Rule) -> String {
    rule.expires_in.map_or_else(String::new, |time| format!(", {} left", text::duration(time)))
}
