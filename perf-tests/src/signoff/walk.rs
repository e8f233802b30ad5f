//! The repeats of a sign-off, and in each the phases in order, beside the floor.
//!
//! Phases that follow one another with the same clients in the same rooms share them. A phase that leaves them in disorder is
//! the last of its group; one that measures how they come in, or what they cost idle, is the first of one, on fresh daemons.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::figures::Figures;
use super::judge::judge;
use super::phases::{FloorStage, PhaseError, SetUp, Stage};
use super::profile::{Kind, Phase, Profile};
use super::recorder::Recorder;
use super::report::{Report, SCHEMA};
use super::rigs::Rigs;
use super::site::{Site, SiteError};
use crate::floor::SendPath;
use crate::load::engine::xdp::error::XdpError;
use crate::meter::Machine;

/// Up to so many clients the floor is measured while the daemons' clients stay; with more, the memory of both at once
/// might be too much, and the floors of a group are measured before its clients come.
const FLOOR_BESIDE_CLIENTS: u64 = 50_000;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum SignOffError {
    /// Nothing could be begun.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// There is no place for clients made of XDP.
    #[error(transparent)]
    Rig(#[from] XdpError),
}

/// Walks through the profile until it is done or `stop` is set, and judges what was found.
///
/// # Errors
/// [`SignOffError`] when there are no daemons to begin with. Whatever goes wrong later is in the report.
pub fn run(profile: Profile, stop: &AtomicBool) -> Result<Report, SignOffError> {
    match Rigs::of(&profile)? {
        // The daemons answer in there, and publishers and samplers are threads of ours.
        Some(rigs) => rigs.edge.in_server(|| walk(profile, stop, Some(&rigs)))?,
        None => walk(profile, stop, None),
    }
}

fn walk(profile: Profile, stop: &AtomicBool, rigs: Option<&Rigs>) -> Result<Report, SignOffError> {
    let began_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let recorder = Recorder::new(planned(&profile));
    let rig = rigs.map(|rigs| &rigs.edge);
    let site = Site::open(&profile, rig)?;
    let versions = site.versions();
    let mut walk = Walk {
        profile: &profile,
        stop,
        rigs,
        recorder,
        figures: Figures::default(),
        path: send_path(&site)?,
        site: None,
    };
    walk.turn_to(site);
    for repeat in 1..=profile.repeats.get() {
        for group in groups(&profile, repeat) {
            if walk.stopped() {
                break;
            }
            walk.group(&group, repeat);
        }
    }
    walk.site = None;
    let (record, interrupted) = (walk.recorder.finish(), walk.stopped());
    let (figures, send_path) = (std::mem::take(&mut walk.figures), walk.path.to_string());
    let mut report = Report {
        schema: SCHEMA,
        passed: false,
        interrupted,
        began_unix_s,
        seconds: record.seconds,
        machine: Machine::read(),
        versions,
        send_path,
        verdicts: judge(&profile, &figures),
        figures,
        phases: record.phases,
        samples: record.points,
        troubles: record.troubles,
        profile,
    };
    report.passed = report.passes();
    Ok(report)
}

/// Phases, with those of the floor, over all repeats.
fn planned(profile: &Profile) -> usize {
    let floors = |phase: &Phase| if phase.floor { profile.floor.paths.len() } else { 0 };
    profile.phases.iter().map(|phase| phase.repeats(profile) as usize * (1 + floors(phase))).sum()
}

/// How the edge sends: that decides which floor is its own.
fn send_path(site: &Site) -> Result<SendPath, SiteError> {
    let ring = site.edge.read()?.get("push_io_uring").is_some_and(|shards| *shards > 0.0);
    Ok(if ring { SendPath::Ring } else { SendPath::Send })
}

/// Phases that share their clients.
struct Group<'p> {
    set_up: SetUp,
    phases: Vec<&'p Phase>,
}

impl Group<'_> {
    fn names(&self) -> String {
        let names: Vec<&str> = self.phases.iter().map(|phase| phase.name.as_str()).collect();
        names.join(", ")
    }

    fn wants_fresh_daemons(&self) -> bool {
        self.phases.iter().any(|phase| matches!(phase.kind, Kind::Connect | Kind::Idle))
    }
}

fn groups(profile: &Profile, repeat: u64) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for phase in profile.phases.iter().filter(|phase| repeat <= phase.repeats(profile)) {
        let set_up = SetUp::of(profile, phase);
        let joins = |group: &Group<'_>| {
            let leaves_disorder = |phase: &&Phase| matches!(phase.kind, Kind::Churn | Kind::Slow | Kind::Storm);
            group.set_up == set_up && phase.kind != Kind::Connect && !group.phases.last().is_some_and(leaves_disorder)
        };
        match groups.last_mut() {
            Some(group) if joins(group) => group.phases.push(phase),
            _ => groups.push(Group { set_up, phases: vec![phase] }),
        }
    }
    groups
}

struct Walk<'a> {
    profile: &'a Profile,
    stop: &'a AtomicBool,
    /// Of clients made of XDP.
    rigs: Option<&'a Rigs>,
    recorder: Recorder,
    figures: Figures,
    path: SendPath,
    /// `None` while it is being started anew, and after that failed.
    site: Option<Site>,
}

impl Walk<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn turn_to(&mut self, site: Site) {
        self.recorder.turn_to(&site);
        self.site = Some(site);
    }

    fn group(&mut self, group: &Group<'_>, repeat: u64) {
        if let Err(error) = self.try_group(group, repeat) {
            // An interrupt breaks what is under way, and that is no news.
            if !self.stopped() {
                self.recorder.trouble(format!("{}, repeat {repeat}: {error}", group.names()));
            }
            self.recorder.end();
            // Whatever state the daemons are in, the next group begins with others.
            if self.site.as_ref().is_some_and(Site::is_ours) {
                self.site = None;
            }
        }
    }

    fn try_group(&mut self, group: &Group<'_>, repeat: u64) -> Result<(), PhaseError> {
        let stale = |site: &Site| group.wants_fresh_daemons() && site.is_ours() && !site.fresh;
        if self.site.as_ref().is_none_or(stale) {
            // The old ones give their memory back before the new ones begin.
            self.site = None;
            let site = Site::open(self.profile, self.rigs.map(|rigs| &rigs.edge))?;
            self.turn_to(site);
        }
        let Some(site) = &mut self.site else { return Ok(()) };
        let mut floor = FloorStage {
            profile: self.profile,
            stop: self.stop,
            rig: self.rigs.map(|rigs| &rigs.floor),
            recorder: self.recorder.clone(),
            own: self.path,
            repeat,
            set_up: &group.set_up,
        };
        let beside = u64::from(group.set_up.clients) <= FLOOR_BESIDE_CLIENTS;
        for phase in if beside { &group.phases[..1] } else { &group.phases[..] } {
            floor.measure(phase, &mut self.figures);
        }
        let mut watch = self.recorder.clone();
        let mut stage = Stage {
            profile: self.profile,
            stop: self.stop,
            rig: self.rigs.map(|rigs| &rigs.edge),
            recorder: self.recorder.clone(),
            site,
            set_up: &group.set_up,
            figures: &mut self.figures,
        };
        let connects = group.phases[0].kind == Kind::Connect;
        if connects {
            self.recorder.begin(&group.phases[0].name, repeat);
        } else {
            self.recorder.begin_joining();
        }
        let mut crowd = stage.assemble(group.wants_fresh_daemons(), &mut watch)?;
        if !connects {
            stage.tell_who_is_missing(&group.names(), &crowd);
        }
        self.recorder.end();
        for (index, phase) in group.phases.iter().enumerate() {
            if beside && index > 0 {
                floor.measure(phase, stage.figures);
            }
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            if phase.kind != Kind::Connect {
                self.recorder.begin(&phase.name, repeat);
            }
            stage.run(phase, &mut crowd)?;
            self.recorder.end();
        }
        if !self.stop.load(Ordering::Acquire) {
            // The next ones are to find the edge empty.
            crowd.disperse()?;
            stage.await_empty()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::Source;

    #[test]
    fn phases_share_clients_until_something_spoils_them() {
        let rows = [
            ("connect", "connect", ""),
            ("idle", "idle", "seconds = 1"),
            ("one", "broadcast", "per_second = 1\nmessages = 1"),
            ("window", "broadcast", "per_second = 1\nmessages = 1\nmerge_ms = 200"),
            ("slow", "slow", "per_second = 1\nmessages = 1\nshare = 0.1"),
            ("storm", "storm", "per_second = 1\nmessages = 1\nshare = 0.5"),
            ("once", "broadcast", "per_second = 1\nmessages = 1\nrepeats = 1"),
        ];
        let phases: String = rows
            .map(|(name, kind, more)| format!("[[phase]]\nname = \"{name}\"\nkind = \"{kind}\"\n{more}\n"))
            .concat();
        let text = format!("name = \"x\"\nrepeats = 2\nclients.count = 10\n{phases}");
        let profile = Profile::parse(&Source::new("x", text)).unwrap();
        let names = |repeat| -> Vec<Vec<String>> {
            let groups = groups(&profile, repeat).into_iter();
            groups.map(|group| group.phases.iter().map(|phase| phase.name.clone()).collect()).collect()
        };
        let expected = [vec!["connect", "idle", "one"], vec!["window"], vec!["slow"], vec!["storm"], vec!["once"]];
        assert_eq!(names(1), expected);
        assert_eq!(names(2), expected[..4]);
        assert_eq!(planned(&profile), 13);
    }
}
