//! The daemons that are signed off: started for it, or found running.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use toml::{Table, Value};
use ureq::Agent;

use super::profile::{Profile, room_type};
use crate::load::engine::xdp::rig::{Rig, addresses};
use crate::load::scenario::Transport;
use crate::probe::daemons::{DaemonError, Stack, StackOptions, binary};

/// How long the edge may take to say its figures.
const FIGURES_WITHIN: Duration = Duration::from_secs(10);

/// Connections that an edge is told to expect beyond those of the profile: probes, and old ones that it has not closed yet.
const SPARE_CONNECTIONS: u64 = 1000;

/// What the process of the edge is called in samples.
pub(super) const EDGE: &str = "push-daemon";

/// What the process of the tier is called in samples.
pub(super) const TIER: &str = "logic-tier";

/// Why the daemons cannot be signed off.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// They did not start.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A daemon does not say its figures.
    #[error("cannot read a daemon's figures from {url}: {source}")]
    Figures {
        /// What was asked.
        url: String,
        /// What came of it.
        source: Box<ureq::Error>,
    },
    /// The profile's settings for the daemons are none.
    #[error("cannot write settings for {name}: {source}")]
    Settings {
        /// The daemon.
        name: &'static str,
        /// What is wrong.
        source: toml::ser::Error,
    },
}

/// Where a daemon says its figures.
#[derive(Clone)]
pub(super) struct DaemonFigures {
    at: SocketAddr,
    agent: Agent,
}

impl DaemonFigures {
    fn of(at: SocketAddr) -> Self {
        Self { at, agent: Agent::config_builder().timeout_global(Some(FIGURES_WITHIN)).build().into() }
    }

    /// Its counters and gauges, each summed over shards and reasons.
    pub(super) fn read(&self) -> Result<BTreeMap<String, f64>, SiteError> {
        Ok(summed(&self.get("metrics")?))
    }

    fn get(&self, path: &str) -> Result<String, SiteError> {
        let url = format!("http://{}/{path}", self.at);
        let answer = self.agent.get(&url).call().and_then(|answer| answer.into_body().read_to_string());
        answer.map_err(|source| SiteError::Figures { url, source: Box::new(source) })
    }
}

/// A running edge and its tier.
pub(super) struct Site {
    /// `None`: they are not ours.
    stack: Option<Stack>,
    tcp: SocketAddr,
    websocket: SocketAddr,
    pub(super) edge: DaemonFigures,
    pub(super) tier: DaemonFigures,
    pub(super) http: SocketAddr,
    /// Processes by name, as a meter wants them.
    pub(super) processes: BTreeMap<String, u32>,
    pub(super) api_key: String,
    pub(super) token: String,
    /// Whether no client has been there yet.
    pub(super) fresh: bool,
}

impl Site {
    /// Starts the daemons, in the server's namespace of `rig` if there is one, or turns to those that run.
    pub(super) fn open(profile: &Profile, rig: Option<&Rig>) -> Result<Self, SiteError> {
        if let Some(target) = &profile.target {
            let mut processes = BTreeMap::from([(EDGE.to_owned(), target.edge_pid.get_u32())]);
            processes.extend(target.tier_pid.map(|pid| (TIER.to_owned(), pid.get_u32())));
            return Ok(Self {
                stack: None,
                tcp: target.tcp,
                websocket: target.websocket,
                edge: DaemonFigures::of(target.admin),
                tier: DaemonFigures::of(target.http),
                http: target.http,
                processes,
                api_key: target.api_key.clone(),
                token: target.token.clone(),
                fresh: false,
            });
        }
        let options = StackOptions {
            push_daemon_toml: edge_settings(profile)?,
            logic_tier_toml: settings(TIER, &profile.daemons.logic_tier)?,
            namespace: rig.map(Rig::server_path),
            ..StackOptions::default()
        };
        let mut stack = match rig {
            Some(_) => Stack::start_on(addresses(), &options)?,
            None => Stack::start_with(&options)?,
        };
        let addresses = *stack.addresses();
        let pid =
            |daemon: &crate::probe::daemons::Daemon| daemon.pid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        let pids = [(EDGE, pid(stack.edge())), (TIER, pid(stack.tier()))];
        Ok(Self {
            tcp: addresses.tcp,
            websocket: addresses.websocket,
            edge: DaemonFigures::of(addresses.admin),
            tier: DaemonFigures::of(addresses.http),
            http: addresses.http,
            processes: pids.into_iter().filter_map(|(name, pid)| Some((name.to_owned(), pid?))).collect(),
            stack: Some(stack),
            api_key: String::new(),
            token: String::new(),
            fresh: true,
        })
    }

    /// Whether it may be started anew.
    pub(super) fn is_ours(&self) -> bool {
        self.stack.is_some()
    }

    /// Where clients connect.
    pub(super) fn clients_at(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Tcp => self.tcp,
            Transport::Websocket => self.websocket,
        }
    }

    /// The edge's version, as it says itself, and that of the tier that we started.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        let stats = self.edge.get("stats").ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let edge = stats.and_then(|stats| Some(stats["version"].as_str()?.to_owned()));
        let tier = self.stack.as_ref().and_then(|_| {
            let output = Command::new(binary(TIER).ok()?).arg("--version").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("logic-tier ").to_owned())
        });
        let mut versions = BTreeMap::from([("perf-tests".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        versions.extend(edge.map(|version| (EDGE.to_owned(), version)));
        versions.extend(tier.map(|version| (TIER.to_owned(), version)));
        versions
    }
}

/// The profile's settings of the edge, with room for its clients and the merge windows that its phases ask for.
fn edge_settings(profile: &Profile) -> Result<String, SiteError> {
    let mut edge = profile.daemons.push_daemon.clone();
    let shard = edge.entry("shard").or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(shard) = shard {
        let most = profile.phases.iter().map(|phase| phase.clients.unwrap_or(profile.clients.count).get()).max();
        let room = i64::try_from(most.unwrap_or(0) + SPARE_CONNECTIONS).unwrap_or(i64::MAX);
        shard.entry("max_connections").or_insert(Value::Integer(room));
        let windows = shard.entry("merge_ms_by_type").or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(windows) = windows {
            for merge_ms in profile.phases.iter().map(|phase| phase.merge_ms.get()).filter(|merge_ms| *merge_ms > 0) {
                windows.insert(room_type(merge_ms), Value::Integer(merge_ms as i64));
            }
        }
    }
    settings(EDGE, &edge)
}

fn settings(name: &'static str, table: &Table) -> Result<String, SiteError> {
    toml::to_string(table).map_err(|source| SiteError::Settings { name, source })
}

/// Prometheus' text, each name's values added up.
fn summed(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let name = name.split('{').next().unwrap_or(name);
        if let Ok(value) = value.parse::<f64>() {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::Source;

    #[test]
    fn figures_are_summed_over_their_labels() {
        let text =
            "# HELP push_sends Sends\npush_sends_total{shard=\"0\"} 3\npush_sends_total{shard=\"1\"} 4\nup 1\n# EOF\n";
        assert_eq!(summed(text), BTreeMap::from([("push_sends_total".to_owned(), 7.0), ("up".to_owned(), 1.0)]));
    }

    #[test]
    fn an_edge_is_given_room_and_windows_unless_the_profile_says_so() {
        let phase = |name: &str, more: &str| {
            format!("[[phase]]\nname = \"{name}\"\nkind = \"broadcast\"\nmessages = 1\nper_second = 1\n{more}\n")
        };
        let phases = phase("a", "merge_ms = 200") + &phase("b", "clients = 900");
        let settings = |head: &str| {
            let profile =
                Profile::parse(&Source::new("x", format!("name = \"x\"\nclients.count = 10\n{head}\n{phases}")));
            edge_settings(&profile.unwrap()).unwrap().parse::<Table>().unwrap()
        };
        let plain: Table = "[shard]\nmax_connections = 1900\nmerge_ms_by_type = { merge200 = 200 }".parse().unwrap();
        assert_eq!(settings(""), plain);
        let own = settings("daemons.push_daemon.shard = { max_connections = 7, count = 3 }");
        let expected: Table =
            "[shard]\nmax_connections = 7\ncount = 3\nmerge_ms_by_type = { merge200 = 200 }".parse().unwrap();
        assert_eq!(own, expected);
    }
}
