//! A phase on the floor: the raw loop does the same for the same number of clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{FLOOR, PhaseError, SetUp};
use crate::floor::{Floor, FloorFigures, FloorOptions, Pattern, SendPath};
use crate::load::engine::xdp::rig::Rig;
use crate::probe::daemons::binary;
use crate::signoff::figures::Figures;
use crate::signoff::profile::{Kind, Phase, Profile, floor_prefix};
use crate::signoff::recorder::Recorder;

/// How long the floor sends without a pause.
const FLAT_OUT: Duration = Duration::from_secs(3);

/// Where the floor is measured.
pub(in crate::signoff) struct FloorStage<'a> {
    pub(in crate::signoff) profile: &'a Profile,
    pub(in crate::signoff) stop: &'a AtomicBool,
    /// Holds clients made of XDP; `None` when they are sockets.
    pub(in crate::signoff) rig: Option<&'a Arc<Rig>>,
    pub(in crate::signoff) recorder: Recorder,
    /// The edge's own path.
    pub(in crate::signoff) own: SendPath,
    pub(in crate::signoff) repeat: u64,
    pub(in crate::signoff) set_up: &'a SetUp,
}

impl FloorStage<'_> {
    /// Does the phase on every path of the floor, when it asks for that. A path that cannot be had leaves its figures out, and
    /// says why.
    pub(in crate::signoff) fn measure(&mut self, phase: &Phase, figures: &mut Figures) {
        if !phase.floor {
            return;
        }
        for path in &self.profile.floor.paths {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let prefix = floor_prefix(*path);
            self.recorder.begin(&format!("{prefix}.{}", phase.name), self.repeat);
            let measured = self.one(phase, *path);
            self.recorder.floor(None);
            self.recorder.end();
            match measured {
                Ok(found) => {
                    let mut prefixes = vec![prefix];
                    if *path == self.own {
                        prefixes.push(FLOOR);
                    }
                    for prefix in prefixes {
                        record(&format!("{prefix}.{}", phase.name), phase.kind, &found, figures);
                    }
                }
                Err(_) if self.stop.load(Ordering::Acquire) => return,
                Err(error) => {
                    self.recorder.trouble(format!("{prefix}.{}, repeat {}: {error}", phase.name, self.repeat))
                }
            }
        }
    }

    fn one(&self, phase: &Phase, path: SendPath) -> Result<FloorFigures, PhaseError> {
        let mut options = FloorOptions::new(binary("perf-tests")?, path, self.set_up.clients);
        if self.profile.floor.threads > 0 {
            options.server_threads = self.profile.floor.threads;
        }
        options.body_bytes = phase.message_bytes.unwrap_or(self.profile.clients.message_bytes).count();
        let mut floor = match self.rig {
            Some(rig) => Floor::start_on(Arc::clone(rig), options)?,
            None => Floor::start(options)?,
        };
        self.recorder.floor(Some(floor.pid()));
        let (pattern, duration) = pattern(phase);
        Ok(floor.measure(pattern, duration, self.stop, &mut self.recorder.clone())?)
    }
}

/// What the floor has to send so that a client hears the same. It sends what a merge window would have collected at once.
fn pattern(phase: &Phase) -> (Pattern, Duration) {
    let (all_rooms, rooms) = (phase.per_second.unwrap_or(0.0), phase.rooms.get() as f64);
    let per_second = all_rooms / rooms;
    match phase.kind {
        Kind::Connect | Kind::Idle => (Pattern::Accept, Duration::ZERO),
        // Also where an edge has a backlog: it too has always more to send.
        _ if per_second == 0.0 => (Pattern::FLAT_OUT, FLAT_OUT),
        _ => {
            let merged = (per_second * phase.merge_ms.get() as f64 / 1000.0).floor().max(1.0);
            let pattern = Pattern::Paced { messages_per_second: per_second, packets_per_send: merged as u32 };
            (pattern, Duration::from_secs_f64(phase.message_count() as f64 / all_rooms))
        }
    }
}

fn record(phase: &str, kind: Kind, found: &FloorFigures, figures: &mut Figures) {
    if kind == Kind::Connect {
        figures.record(phase, "cpu_us", found.connect_cpu_us);
        figures.record(phase, "per_second", found.connects_per_second);
        return;
    }
    if kind == Kind::Idle {
        return figures.record(phase, "bytes_per_connection", found.rss_bytes_per_client);
    }
    for (figure, value) in [
        ("cpu_us_per_message", found.cpu_us_per_delivered),
        ("delivered_per_second", found.delivered_per_second),
        ("messages_per_write", found.messages_per_write),
        ("writes_per_second_per_core", found.writes_per_cpu_second),
    ] {
        figures.record(phase, figure, value);
    }
    if kind == Kind::Backlog {
        return;
    }
    for (middle, high, times) in [
        ("delay_p50_ms", "delay_p99_ms", &found.delay_us),
        ("last_receiver_p50_ms", "last_receiver_p99_ms", &found.last_receiver_us),
    ] {
        if let Some(times) = times {
            figures.record(phase, middle, times.p50 as f64 / 1000.0);
            figures.record(phase, high, times.p99 as f64 / 1000.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::Source;

    #[test]
    fn the_floor_does_what_the_phase_does() {
        let rows = [
            ("kind = \"connect\"", Pattern::Accept, 0.0),
            ("kind = \"idle\"\nseconds = 1", Pattern::Accept, 0.0),
            ("kind = \"broadcast\"\nper_second = 1\nmessages = 5", Pattern::ONE_A_SECOND, 5.0),
            ("kind = \"broadcast\"\nper_second = 40\nmessages = 80", Pattern::FORTY_AS_THEY_COME, 2.0),
            ("kind = \"broadcast\"\nper_second = 40\nmessages = 80\nmerge_ms = 1000", Pattern::FORTY_MERGED, 2.0),
            (
                "kind = \"broadcast\"\nper_second = 40\nmessages = 80\nmerge_ms = 200",
                Pattern::Paced { messages_per_second: 40.0, packets_per_send: 8 },
                2.0,
            ),
            ("kind = \"broadcast\"\nper_second = 80\nmessages = 80\nrooms = 2", Pattern::FORTY_AS_THEY_COME, 1.0),
            ("kind = \"broadcast\"\nper_second = 0\nmessages = 80", Pattern::FLAT_OUT, 3.0),
            ("kind = \"backlog\"\nmessages = 80", Pattern::FLAT_OUT, 3.0),
        ];
        for (text, expected, seconds) in rows {
            let text = format!("name = \"x\"\nclients.count = 10\n[[phase]]\nname = \"a\"\n{text}\n");
            let profile = Profile::parse(&Source::new("x", text.as_str())).unwrap();
            assert_eq!(pattern(&profile.phases[0]), (expected, Duration::from_secs_f64(seconds)), "{text}");
        }
    }
}
