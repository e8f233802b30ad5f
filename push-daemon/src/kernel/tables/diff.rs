//! What a transaction changes, for a person to read before it does.

use std::collections::HashMap;

use abi::{
    isps::{Isp, MAX_ISPS},
    rules::{DENY, RuleValue},
};
use ipnet::IpNet;
use serde::Serialize;

use super::{generations::Contents, isp::name_of, limit::SourceLimits, rule::Action};

/// A rule that comes, goes or becomes another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The source addresses that it is about.
    pub prefix: IpNet,
    /// What it did with them; `None`: there was no rule.
    pub before: Option<Action>,
    /// What it does now; `None`: there is no rule any more.
    pub after: Option<Action>,
}

/// The difference between two rule sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Rules, sorted by prefix. One whose time or comment alone changes has the same action before and after.
    pub rules: Vec<Change>,
    /// The limits before and after, when they change.
    pub limits: Option<(SourceLimits, SourceLimits)>,
    /// ISPs that come.
    pub isps_added: Vec<String>,
    /// ISPs that go.
    pub isps_removed: Vec<String>,
    /// ISPs whose rates change.
    pub isps_changed: Vec<String>,
    /// Prefixes of ISPs that come, go or change hands.
    pub isp_prefixes: usize,
}

/// Two rules that end within this are taken to end together: a file says how long, not until when.
const SAME_END_NS: u64 = 2_000_000_000;

impl Diff {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn between(before: &Contents, after: &Contents, now_ns: u64) -> Self {
        let limits = [&before.limits, &after.limits].map(SourceLimits::from_kernel);
        let mut diff = Self {
            rules: rules(before, after, now_ns),
            limits: (limits[0] != limits[1]).then_some((limits[0], limits[1])),
            isp_prefixes: isp_prefixes(before, after),
            ..Self::default()
        };
        let (old, new) = (by_name(&before.isps), by_name(&after.isps));
        for (name, isp) in &new {
            match old.get(name) {
                None => diff.isps_added.push(name.clone()),
                Some(before) if before != isp => diff.isps_changed.push(name.clone()),
                Some(_) => {}
            }
        }
        diff.isps_removed.extend(old.keys().filter(|name| !new.contains_key(*name)).cloned());
        for names in [&mut diff.isps_added, &mut diff.isps_changed, &mut diff.isps_removed] {
            names.sort_unstable();
        }
        diff
    }
}

fn rules(before: &Contents, after: &Contents, now_ns: u64) -> Vec<Change> {
    let mut old: HashMap<IpNet, &RuleValue> = before.rules.iter().map(|(prefix, rule)| (*prefix, rule)).collect();
    let mut changes = Vec::new();
    for (prefix, rule) in &after.rules {
        let was = old.remove(prefix);
        if was.is_none_or(|was| !is_same(was, rule, now_ns)) {
            changes.push(Change { prefix: *prefix, before: was.map(action), after: Some(action(rule)) });
        }
    }
    changes.extend(old.into_iter().map(|(prefix, was)| Change { prefix, before: Some(action(was)), after: None }));
    changes.sort_unstable_by_key(|change| change.prefix);
    changes
}

fn is_same(one: &RuleValue, other: &RuleValue, now_ns: u64) -> bool {
    let ends = match (one.expires_ns, other.expires_ns) {
        (0, 0) => true,
        (0, _) | (_, 0) => false,
        (one, other) => one.max(now_ns).abs_diff(other.max(now_ns)) < SAME_END_NS,
    };
    ends && (one.action, one.comment, one.origin) == (other.action, other.comment, other.origin)
}

fn action(rule: &RuleValue) -> Action {
    if rule.action == DENY { Action::Deny } else { Action::Allow }
}

fn by_name(isps: &[Isp]) -> HashMap<String, &Isp> {
    isps.iter().take(MAX_ISPS as usize).filter_map(|isp| Some((name_of(isp)?, isp))).collect()
}

/// By the owner's name: his number may differ from set to set.
fn isp_prefixes(before: &Contents, after: &Contents) -> usize {
    let named = |contents: &Contents| -> HashMap<IpNet, Option<String>> {
        let name = |number: u32| contents.isps.get(number as usize).and_then(name_of);
        contents.isp_prefixes.iter().map(|(prefix, number)| (*prefix, name(*number))).collect()
    };
    let (old, new) = (named(before), named(after));
    let changed = new.iter().filter(|(prefix, owner)| old.get(prefix) != Some(owner)).count();
    changed + old.keys().filter(|prefix| !new.contains_key(prefix)).count()
}
