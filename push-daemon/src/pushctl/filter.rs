//! `pushctl filter`: the rules.

use std::{net::IpAddr, path::Path, time::Duration};

use abi::verdict::{Reason, Verdict};
use ipnet::IpNet;
use serde_json::json;

use super::{
    Answer, Failure,
    arguments::{FilterVerb, RuleKind},
    lockout, text, transaction,
};
use crate::kernel::{Action, MAX_COMMENT_BYTES, NewRule, Origin, Rule, Tables, file::read_list};

pub(super) fn run(verb: FilterVerb, pin_root: &Path) -> Result<Answer, Failure> {
    let mut tables = Tables::open(pin_root)?;
    match verb {
        FilterVerb::Add { prefix, kind, dry_run, force } => {
            tables.set_guard(lockout::guard(force));
            add(&mut tables, &rule(prefix, &kind, ""), dry_run)
        }
        FilterVerb::Del { prefix, dry_run } => del(&mut tables, prefix, dry_run),
        FilterVerb::List => list(&tables),
        FilterVerb::Test { address } => test(&tables, address),
        FilterVerb::Import { file, kind, how } => {
            let lines = read_list(&file)?;
            let rules: Vec<_> = lines.iter().map(|line| rule(line.prefix, &kind, &line.comment)).collect();
            transaction::import(&mut tables, &rules, &how)
        }
        FilterVerb::Export { allow } => export(&tables, if allow { Action::Allow } else { Action::Deny }),
    }
}

/// The rule that the options ask for. What a list says of a line stands in for a comment, cut to fit.
fn rule(prefix: IpNet, kind: &RuleKind, said: &str) -> NewRule {
    let comment = kind.comment.clone().unwrap_or_else(|| text::cut(said, MAX_COMMENT_BYTES));
    let action = if kind.allow { Action::Allow } else { Action::Deny };
    NewRule::new(prefix, action).standing(kind.ttl).because(comment)
}

fn add(tables: &mut Tables, rule: &NewRule, dry_run: bool) -> Result<Answer, Failure> {
    let added = if dry_run { tables.check(rule)? } else { tables.add(rule)? };
    let does = if dry_run { "would " } else { "" };
    let standing = rule.ttl.map_or_else(String::new, |ttl| format!(" for {}", text::duration(ttl)));
    let replacing = match &added.replaced {
        Some(rule) => format!(" (in place of {}{})", rule.action.name(), expiry(rule)),
        None => String::new(),
    };
    let mut said = format!("{does}{} {}{standing}{replacing}\n", rule.action.name(), rule.prefix);
    if !added.spared.is_empty() {
        said.push_str(&format!("management still passes: {}\n", text::list(&added.spared)));
    }
    let seconds = rule.ttl.map(|ttl| ttl.as_secs());
    Answer::new(
        said,
        json!({ "prefix": rule.prefix, "action": rule.action, "ttl_s": seconds, "comment": rule.comment, "dry_run": dry_run,
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
            let by = if rule.origin == Origin::Tier { "tier" } else { "" };
            [
                rule.prefix.to_string(),
                rule.action.name().into(),
                rule.hits.to_string(),
                rule.bytes.to_string(),
                expires,
                by.into(),
                rule.comment.clone(),
            ]
        })
        .collect::<Vec<_>>();
    Answer::new(text::table(["PREFIX", "ACTION", "HITS", "BYTES", "EXPIRES", "BY", "COMMENT"], &rows), rules)
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
    if let Some(isp) = &found.isp {
        because.push_str(&format!(", ISP {isp}"));
    }
    if found.observed {
        because.push_str(", but the filter only observes");
    }
    let mut value = serde_json::to_value(&found)?;
    value["verdict"] = verdict.into();
    Answer::new(format!("{address}: {verdict} ({because})\n"), value)
}

/// A line each: what `import` takes. Times are not in a list; `pushctl export` has them.
fn export(tables: &Tables, action: Action) -> Result<Answer, Failure> {
    let rules: Vec<_> = tables.list()?.into_iter().filter(|rule| rule.action == action && !rule.is_expired()).collect();
    let lines = rules.iter().map(|rule| match rule.comment.as_str() {
        "" => format!("{}\n", rule.prefix),
        comment => format!("{} # {comment}\n", rule.prefix),
    });
    Answer::new(lines.collect(), &rules)
}

fn expiry(rule: &Rule) -> String {
    rule.expires_in.map_or_else(String::new, |time| format!(", {} left", text::duration(time)))
}
