//! Changes of one thing in the rule set in force: a rule, the limits, an ISP, a switch.
//!
//! Each holds the lock of the pin root, so that no transaction copies a set while it changes. While a set is on trial, what the
//! logic tier bans goes into both sets, so that a roll-back does not forgive; what an operator does goes with the trial.

use std::{net::IpAddr, time::Duration};

use abi::{
    isps::{Isp, MAX_ISPS},
    settings::{PASS_EVERYTHING, Settings},
};
use ipnet::IpNet;

use super::{
    Guard, Tables, comments,
    generations::{Contents, is_host, other},
    get,
    isp::{self, IspSpec},
    limit::SourceLimits,
    rule::{Action, Added, NewRule, Origin, Rule, boot_clock_ns, check_host_bits},
};
use crate::kernel::{error::KernelError, pin::Lock, shape};

impl Tables {
    /// Writes a rule; one for the same prefix is replaced in place and keeps its counts.
    ///
    /// A deny at or inside a management prefix is refused. A deny around one is allowed, and says what it spares.
    pub fn add(&mut self, rule: &NewRule) -> Result<Added, KernelError> {
        let _lock = self.lock()?;
        let added = self.check(rule)?;
        let now = self.generations.in_force()?;
        self.put(rule, now.generation)?;
        if rule.origin == Origin::Tier && now.trial.is_some() {
            self.put(rule, other(now.generation))?;
        }
        Ok(added)
    }

    fn put(&mut self, rule: &NewRule, generation: u32) -> Result<(), KernelError> {
        let in_trie = !is_host(&rule.prefix);
        if in_trie {
            self.generations.make_way(generation, rule.prefix)?;
        }
        let mut set = self.set_of(generation)?;
        let before = get(&set, rule.prefix)?.unwrap_or_default();
        let mut value = rule.to_kernel(self.comments.number_of(&rule.comment)?, boot_clock_ns());
        (value.hits, value.bytes) = (before.hits, before.bytes);
        let outers = self.generations.outers();
        let made = match rule.prefix.addr() {
            IpAddr::V4(address) => set.v4.put(&self.pins, outers, address, &value)?,
            IpAddr::V6(address) => set.v6.put(&self.pins, outers, address, &value)?,
        };
        drop(set);
        if made {
            self.generations.note_change(generation)?;
        }
        if in_trie { self.generations.begin_edition() } else { Ok(()) }
    }

    /// What `add` would answer, without writing.
    pub fn check(&self, rule: &NewRule) -> Result<Added, KernelError> {
        check_host_bits(rule.prefix)?;
        comments::check(&rule.comment)?;
        let management = self.management()?;
        refuse_management(rule, &management, self.guard)?;
        self.refuse_lock_out(rule)?;
        let before = get(&*self.set()?, rule.prefix)?;
        let replaced = before.map(|before| self.told(rule.prefix, &before)).transpose()?;
        let spared = match rule.action {
            Action::Deny => management.into_iter().filter(|management| rule.prefix.contains(management)).collect(),
            Action::Allow => Vec::new(),
        };
        Ok(Added { replaced, spared })
    }

    /// A deny that would decide about the operator's own address.
    fn refuse_lock_out(&self, rule: &NewRule) -> Result<(), KernelError> {
        let Some(operator) = self.guard.operator.filter(|operator| rule.prefix.contains(operator)) else {
            return Ok(());
        };
        let is_outdone = |other: &Rule| other.prefix.prefix_len() > rule.prefix.prefix_len();
        let passes = rule.action == Action::Allow
            || self.management_of(operator)?.is_some()
            || self.deciding(&*self.set()?, operator)?.is_some_and(|other| is_outdone(&other));
        if passes { Ok(()) } else { Err(KernelError::LockOut { operator, prefix: rule.prefix }) }
    }

    /// Removes the rule for exactly this prefix and hands it back.
    pub fn remove(&mut self, prefix: IpNet) -> Result<Rule, KernelError> {
        let _lock = self.lock()?;
        let rule = self.find(prefix)?;
        let now = self.generations.in_force()?;
        if !self.remove_from(prefix, now.generation)? {
            return Err(KernelError::NoRule { prefix });
        }
        if rule.origin == Origin::Tier && now.trial.is_some() {
            self.remove_from(prefix, other(now.generation))?;
        }
        // Behind it there may be a shorter one that the walk did not come to, for it gives up after so many expired ones.
        if !is_host(&prefix) {
            self.generations.begin_edition()?;
        }
        Ok(rule)
    }

    fn remove_from(&self, prefix: IpNet, generation: u32) -> Result<bool, KernelError> {
        let mut set = self.set_of(generation)?;
        match prefix.addr() {
            IpAddr::V4(address) => set.v4.remove(address, prefix.prefix_len()),
            IpAddr::V6(address) => set.v6.remove(address, prefix.prefix_len()),
        }
    }

    /// Removes the rules whose time is over, and says how many. The kernel ignores them either way; this frees their places, and
    /// those of comments that no rule has any more.
    pub fn sweep_expired(&mut self) -> Result<usize, KernelError> {
        let _lock = self.lock()?;
        let now_ns = boot_clock_ns();
        let mut set = self.set()?;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, rule) in set.rules()? {
            if rule.expires_ns != 0 && rule.expires_ns <= now_ns {
                match prefix.addr() {
                    IpAddr::V4(address) => v4.push((address, prefix.prefix_len())),
                    IpAddr::V6(address) => v6.push((address, prefix.prefix_len())),
                }
            }
        }
        if v4.is_empty() && v6.is_empty() {
            return Ok(0);
        }
        set.v4.remove_all(&v4)?;
        set.v6.remove_all(&v6)?;
        drop(set);
        // As in `remove`.
        self.generations.begin_edition()?;
        self.sweep_comments()?;
        Ok(v4.len() + v6.len())
    }

    /// Sets what one source may do. A source of another width starts afresh.
    pub fn set_limits(&mut self, limits: &SourceLimits) -> Result<(), KernelError> {
        limits.validate()?;
        let _lock = self.lock()?;
        let generation = self.generations.in_force()?.generation;
        let before = SourceLimits::from_kernel(&self.generations.limits_of(generation)?);
        let longest = self.set()?.longest()?;
        self.generations.set_limits(generation, limits.to_kernel(), longest)?;
        if (before.ipv4_bits, before.ipv6_bits) != (limits.ipv4_bits, limits.ipv6_bits) {
            // What was known of a narrower source is not true of the wider one that begins with the same address.
            self.generations.begin_edition()?;
            self.forget_sources()?;
        }
        Ok(())
    }

    /// Sets the rates of the ISP of this name, and adds to his prefixes; one that is not there is made. A prefix of another ISP
    /// becomes his. Hands his number back.
    pub fn set_isp(&mut self, spec: &IspSpec) -> Result<u32, KernelError> {
        let kernel = spec.to_kernel()?;
        for prefix in &spec.prefixes {
            check_host_bits(*prefix)?;
        }
        let _lock = self.lock()?;
        let generation = self.generations.in_force()?.generation;
        let (isps, also) = (self.generations.isps_of(generation)?, self.generations.isps_of(other(generation))?);
        // Counters and policers of a number outlive a set, so a new ISP gets one that neither set uses.
        let is_free = |number: &u32| isp::is_free(&isps, *number) && isp::is_free(&also, *number);
        let number = isp::number_of(&isps, &spec.name)
            .or_else(|| isp::number_of(&also, &spec.name).filter(|number| isp::is_free(&isps, *number)))
            .or_else(|| (1..MAX_ISPS).find(is_free))
            .ok_or(KernelError::TooManyIsps)?;
        self.generations.set_isp(generation, number, kernel)?;
        for prefix in &spec.prefixes {
            self.generations.make_way(generation, *prefix)?;
        }
        if !spec.prefixes.is_empty() {
            let mut set = self.set()?;
            let outers = self.generations.outers();
            for prefix in &spec.prefixes {
                // The note below tells of a table that this makes, too.
                let _made = match prefix.addr() {
                    IpAddr::V4(address) => set.v4.put_isp(&self.pins, outers, address, prefix.prefix_len(), number)?,
                    IpAddr::V6(address) => set.v6.put_isp(&self.pins, outers, address, prefix.prefix_len(), number)?,
                };
            }
        }
        self.generations.begin_edition()?;
        self.generations.note_change(generation)?;
        shape::follow(self)?;
        Ok(number)
    }

    /// Removes the ISP of this name with his prefixes, and says how many those were.
    pub fn remove_isp(&mut self, name: &str) -> Result<usize, KernelError> {
        let _lock = self.lock()?;
        let generation = self.generations.in_force()?.generation;
        let isps = self.generations.isps_of(generation)?;
        let number = isp::number_of(&isps, name).ok_or_else(|| KernelError::NoIsp { name: name.into() })?;
        let mut set = self.set()?;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, _) in set.isp_prefixes()?.into_iter().filter(|(_, of)| *of == number) {
            match prefix.addr() {
                IpAddr::V4(address) => v4.push((address, prefix.prefix_len())),
                IpAddr::V6(address) => v6.push((address, prefix.prefix_len())),
            }
        }
        set.v4.remove_isps(&v4)?;
        set.v6.remove_isps(&v6)?;
        drop(set);
        self.generations.begin_edition()?;
        self.generations.set_isp(generation, number, Isp::default())?;
        self.generations.note_change(generation)?;
        shape::follow(self)?;
        Ok(v4.len() + v6.len())
    }

    /// Switches the filter off (everything passes) or on again.
    pub fn set_kill_switch(&mut self, on: bool) -> Result<(), KernelError> {
        let _lock = self.lock()?;
        let settings = self.settings()?;
        self.set_settings(Settings { kill_switch: if on { PASS_EVERYTHING } else { 0 }, ..settings })
    }

    /// The lock under which tables change, once a trial that is over has been brought to its end.
    pub(super) fn lock(&mut self) -> Result<Lock, KernelError> {
        let lock = self.pins.lock()?;
        self.settle_lapsed_trial()?;
        Ok(lock)
    }

    /// Under the lock, before anything else: ends a trial that is over, and notes that the set in force is whole.
    pub(in crate::kernel) fn settle(&mut self) -> Result<(), KernelError> {
        self.settle_lapsed_trial()?;
        self.generations.note_whole()
    }

    /// Under the lock: makes `contents` all that the set in force holds, for good.
    pub(in crate::kernel) fn fill(&mut self, contents: &Contents) -> Result<(), KernelError> {
        let (generation, bounds) = (self.generations.in_force()?.generation, self.wanted_bounds()?);
        self.generations.build(&self.pins, generation, bounds, contents)
    }

    /// Says that a trial was lost, which the packet path saw by itself.
    fn settle_lapsed_trial(&mut self) -> Result<(), KernelError> {
        let now = self.generations.in_force()?;
        if now.has_lapsed {
            self.generations.put_in_force(now.generation, None)?;
            let bounds = self.wanted_bounds()?;
            self.generations.forget(&self.pins, other(now.generation), bounds)?;
        }
        Ok(())
    }

    pub(super) fn sweep_comments(&self) -> Result<(), KernelError> {
        let mut used = std::collections::HashSet::new();
        for generation in [0, 1] {
            let rules = self.set_of(generation)?.rules()?;
            used.extend(rules.into_iter().map(|(_, rule)| rule.comment));
        }
        self.comments.keep_only(&used)
    }
}

/// Management always passes, so a deny at or inside one of its prefixes would only look like one.
pub(super) fn refuse_management(rule: &NewRule, management: &[IpNet], guard: Guard) -> Result<(), KernelError> {
    if !guard.management {
        return Ok(());
    }
    match management.iter().find(|management| management.contains(&rule.prefix)) {
        Some(management) if rule.action == Action::Deny => {
            Err(KernelError::ManagementPrefix { prefix: rule.prefix, management: *management })
        }
        _ => Ok(()),
    }
}

/// How long a set may be on trial.
pub(super) const LONGEST_TRIAL: Duration = Duration::from_secs(7 * 86_400);
