//! A whole rule set at once: built where no packet sees it, put in force by one store, and taken back by another.
//!
//! A trial that nobody confirms ends by itself: the word that puts the set in force carries its end, and the packet path
//! compares the clock. So a roll-back needs neither the one who began it nor the daemon.

use std::{collections::HashMap, time::Duration};

use abi::{
    isps::MAX_ISPS,
    rules::{BY_TIER, DENY, RuleValue},
};
use ipnet::IpNet;
use serde::Serialize;

use super::{
    Guard, Tables,
    diff::Diff,
    edit::{LONGEST_TRIAL, refuse_management},
    generations::{Contents, other},
    isp::{self, IspSpec},
    limit::SourceLimits,
    rule::{NewRule, boot_clock_ns, check_host_bits},
};
use crate::kernel::{error::KernelError, shape};

/// Everything that a file says: it replaces all that operators said before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeSet {
    /// The rules.
    pub rules: Vec<NewRule>,
    /// What one source may do.
    pub limits: SourceLimits,
    /// The ISPs.
    pub isps: Vec<IspSpec>,
}

/// What a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// What changes.
    pub diff: Diff,
    /// Until when it has to be confirmed, in seconds from now.
    pub confirm_within_s: Option<u64>,
}

/// Where things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Transaction {
    /// The set in force is on trial for so many seconds more.
    pub trial_s: Option<u64>,
    /// There is a set to go back to.
    pub can_roll_back: bool,
}

impl Tables {
    /// What [`Self::apply`] would change.
    pub fn compare(&self, wanted: &WholeSet) -> Result<Diff, KernelError> {
        let before = self.contents_in_force()?;
        let after = self.contents_of(wanted, &before, &mut Names::looked_up(self))?;
        self.diff(&before, &after)
    }

    /// Makes `wanted` the rule set in force, in one step for the packet path. What the logic tier banned stays.
    ///
    /// With `trial`, the set before comes back when [`Self::confirm`] is not called in time. Without, it can be had back by
    /// [`Self::rollback`] until the next transaction.
    ///
    /// # Errors
    /// A rule, a limit or an ISP that cannot be; no room; another set that is on trial. Then nothing has changed.
    pub fn apply(&mut self, wanted: &WholeSet, trial: Option<Duration>) -> Result<Applied, KernelError> {
        self.transact(trial, |tables, before| tables.contents_of(wanted, before, &mut Names::noted(tables)))
    }

    /// Adds many rules in one step for the packet path, each in the place of one for the same prefix.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub fn import(&mut self, rules: &[NewRule], trial: Option<Duration>) -> Result<Applied, KernelError> {
        self.transact(trial, |tables, before| tables.merged(before, rules, &mut Names::noted(tables)))
    }

    /// What [`Self::import`] would change.
    pub fn compare_import(&self, rules: &[NewRule]) -> Result<Diff, KernelError> {
        let before = self.contents_in_force()?;
        let after = self.merged(&before, rules, &mut Names::looked_up(self))?;
        self.diff(&before, &after)
    }

    /// Keeps the set in force for good and lets the one before go.
    ///
    /// # Errors
    /// There is nothing to confirm: no trial, or one that is over.
    pub fn confirm(&mut self) -> Result<(), KernelError> {
        let _lock = self.lock()?;
        let now = self.generations.in_force()?;
        let previous = other(now.generation);
        if now.trial.is_none() && !self.generations.is_whole(previous)? {
            return Err(KernelError::NothingToConfirm);
        }
        self.generations.put_in_force(now.generation, None)?;
        let bounds = self.wanted_bounds()?;
        self.generations.forget(&self.pins, previous, bounds)?;
        self.sweep_comments()
    }

    /// Puts the set before in force again.
    ///
    /// # Errors
    /// There is none: nothing was applied since, or it was confirmed.
    pub fn rollback(&mut self) -> Result<(), KernelError> {
        let _lock = self.lock()?;
        let now = self.generations.in_force()?;
        let previous = other(now.generation);
        if !self.generations.is_whole(previous)? {
            return Err(KernelError::NothingToRollBack);
        }
        self.generations.put_in_force(previous, None)?;
        let bounds = self.wanted_bounds()?;
        self.generations.forget(&self.pins, now.generation, bounds)?;
        self.sweep_comments()?;
        shape::follow(self)
    }

    /// Where things stand.
    pub fn transaction(&self) -> Result<Transaction, KernelError> {
        let now = self.generations.in_force()?;
        // A trial that is over has been rolled back; what it leaves behind is nothing to go to.
        let can_roll_back = !now.has_lapsed && self.generations.is_whole(other(now.generation))?;
        Ok(Transaction { trial_s: now.trial.map(|left| left.as_secs_f64().ceil() as u64), can_roll_back })
    }

    fn transact(
        &mut self,
        trial: Option<Duration>,
        change: impl FnOnce(&Self, &Contents) -> Result<Contents, KernelError>,
    ) -> Result<Applied, KernelError> {
        if let Some(trial) = trial
            && (trial < Duration::from_secs(1) || trial > LONGEST_TRIAL)
        {
            return Err(KernelError::Trial { seconds: trial.as_secs() });
        }
        let _lock = self.lock()?;
        let now = self.generations.in_force()?;
        if let Some(left) = now.trial {
            return Err(KernelError::OnTrial { seconds: left.as_secs() });
        }
        let before = self.contents_in_force()?;
        let after = change(self, &before)?;
        self.refuse_lock_out_by(&after)?;
        let diff = self.diff(&before, &after)?;
        let (next, bounds) = (other(now.generation), self.wanted_bounds()?);
        self.generations.build(&self.pins, next, bounds, &after)?;
        self.generations.put_in_force(next, trial)?;
        if (before.limits.v4_bits, before.limits.v6_bits) != (after.limits.v4_bits, after.limits.v6_bits) {
            self.forget_sources()?;
        }
        shape::follow(self)?;
        Ok(Applied { diff, confirm_within_s: trial.map(|trial| trial.as_secs()) })
    }

    /// A set that denies the operator's own address.
    fn refuse_lock_out_by(&self, contents: &Contents) -> Result<(), KernelError> {
        let Some(operator) = self.guard.operator else { return Ok(()) };
        let now_ns = boot_clock_ns();
        let lives = |rule: &RuleValue| rule.expires_ns == 0 || now_ns < rule.expires_ns;
        let holding = contents.rules.iter().filter(|(prefix, rule)| prefix.contains(&operator) && lives(rule));
        match holding.max_by_key(|(prefix, _)| prefix.prefix_len()) {
            Some((prefix, rule)) if rule.action == DENY && self.management_of(operator)?.is_none() => {
                Err(KernelError::LockOut { operator, prefix: *prefix })
            }
            _ => Ok(()),
        }
    }

    /// `before` with `rules`, each in the place of one for the same prefix, whose counts it takes over.
    fn merged(&self, before: &Contents, rules: &[NewRule], names: &mut Names<'_>) -> Result<Contents, KernelError> {
        let (management, now_ns) = (self.management()?, boot_clock_ns());
        let mut after = before.clone();
        let mut places: HashMap<IpNet, usize> =
            after.rules.iter().enumerate().map(|(at, (prefix, _))| (*prefix, at)).collect();
        for rule in rules {
            let value = value_of(rule, &management, self.guard, names, now_ns)?;
            match places.get(&rule.prefix) {
                Some(at) => {
                    let (_, before) = &mut after.rules[*at];
                    *before = RuleValue { hits: before.hits, bytes: before.bytes, ..value };
                }
                None => {
                    places.insert(rule.prefix, after.rules.len());
                    after.rules.push((rule.prefix, value));
                }
            }
        }
        Ok(after)
    }

    /// What `wanted` makes of `before`: rules keep their counts, ISPs their numbers, the tier its bans.
    fn contents_of(
        &self,
        wanted: &WholeSet,
        before: &Contents,
        names: &mut Names<'_>,
    ) -> Result<Contents, KernelError> {
        wanted.limits.validate()?;
        let (management, now_ns) = (self.management()?, boot_clock_ns());
        let counted: HashMap<IpNet, &RuleValue> = before.rules.iter().map(|(prefix, rule)| (*prefix, rule)).collect();
        let mut rules = HashMap::with_capacity(wanted.rules.len());
        for rule in &wanted.rules {
            let mut value = value_of(rule, &management, self.guard, names, now_ns)?;
            if let Some(before) = counted.get(&rule.prefix) {
                (value.hits, value.bytes) = (before.hits, before.bytes);
            }
            if rules.insert(rule.prefix, value).is_some() {
                return Err(KernelError::Twice { prefix: rule.prefix });
            }
        }
        rules.extend(before.rules.iter().filter(|(_, rule)| rule.origin == BY_TIER).copied());

        let also = self.generations.isps_of(other(self.generations.in_force()?.generation))?;
        let mut after = Contents { rules: rules.into_iter().collect(), ..Contents::default() };
        after.limits = wanted.limits.to_kernel();
        let mut owners: HashMap<IpNet, u32> = HashMap::new();
        for spec in &wanted.isps {
            let is_free = |number: &u32| isp::is_free(&before.isps, *number) && isp::is_free(&after.isps, *number);
            let number = isp::number_of(&before.isps, &spec.name)
                .or_else(|| isp::number_of(&also, &spec.name).filter(is_free))
                .or_else(|| (1..MAX_ISPS).find(is_free))
                // All numbers are taken by ISPs that go now.
                .or_else(|| (1..MAX_ISPS).find(|number| isp::is_free(&after.isps, *number)))
                .ok_or(KernelError::TooManyIsps)?;
            if isp::number_of(&after.isps, &spec.name).is_some() {
                return Err(KernelError::Isp { name: spec.name.clone(), what: "he is there twice".into() });
            }
            after.isps[number as usize] = spec.to_kernel()?;
            for prefix in &spec.prefixes {
                check_host_bits(*prefix)?;
                if owners.insert(*prefix, number).is_some_and(|owner| owner != number) {
                    return Err(KernelError::Twice { prefix: *prefix });
                }
            }
        }
        after.isp_prefixes = owners.into_iter().collect();
        Ok(after)
    }

    fn diff(&self, before: &Contents, after: &Contents) -> Result<Diff, KernelError> {
        Ok(Diff::between(before, after, boot_clock_ns()))
    }
}

/// Numbers of comments: asked for once per text.
struct Names<'a> {
    tables: &'a Tables,
    known: HashMap<String, u32>,
    /// New texts are noted in the kernel; else they get a number that no text has.
    note: bool,
}

impl<'a> Names<'a> {
    fn noted(tables: &'a Tables) -> Self {
        Self { tables, known: HashMap::new(), note: true }
    }

    fn looked_up(tables: &'a Tables) -> Self {
        Self { note: false, ..Self::noted(tables) }
    }

    fn number_of(&mut self, comment: &str) -> Result<u32, KernelError> {
        if let Some(number) = self.known.get(comment) {
            return Ok(*number);
        }
        let comments = &self.tables.comments;
        let number = if self.note { comments.number_of(comment)? } else { comments.find(comment)? };
        self.known.insert(comment.into(), number);
        Ok(number)
    }
}

fn value_of(
    rule: &NewRule,
    management: &[IpNet],
    guard: Guard,
    names: &mut Names<'_>,
    now_ns: u64,
) -> Result<RuleValue, KernelError> {
    check_host_bits(rule.prefix)?;
    refuse_management(rule, management, guard)?;
    Ok(rule.to_kernel(names.number_of(&rule.comment)?, now_ns))
}
