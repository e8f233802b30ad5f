//! What is measured: every figure's name, unit and meaning, and the values that the repeats gave.
//!
//! A full name is `PHASE.FIGURE`, or `floor.PHASE.FIGURE` for the same on the floor. The unit stands in the name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::profile::Kind;

/// Which way a figure gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The lower the better.
    Lower,
    /// The higher the better.
    Higher,
}

/// What there is to know of a figure besides its values.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name, behind that of the phase.
    pub name: &'static str,
    /// What it is, for who reads a report.
    pub meaning: &'static str,
    /// Unit, as it is shown; a plain count has none.
    pub unit: &'static str,
    /// Which way it gets better.
    pub better: Better,
    /// The kinds of phase that measure it.
    kinds: &'static [Kind],
    /// Whether the floor has it too.
    on_floor: bool,
}

const fn low(
    name: &'static str,
    unit: &'static str,
    on_floor: bool,
    kinds: &'static [Kind],
    meaning: &'static str,
) -> Figure {
    Figure { name, meaning, unit, better: Better::Lower, kinds, on_floor }
}

const fn high(
    name: &'static str,
    unit: &'static str,
    on_floor: bool,
    kinds: &'static [Kind],
    meaning: &'static str,
) -> Figure {
    Figure { name, meaning, unit, better: Better::Higher, kinds, on_floor }
}

use Kind::{Backlog, Broadcast, Churn, Connect, Idle, Push, Slow, Soak, Storm};

/// Whoever publishes.
const SPEAKING: &[Kind] = &[Broadcast, Backlog, Push, Churn, Slow, Storm, Soak];

/// Whoever publishes while the edge listens, so that delays mean something.
const TIMED: &[Kind] = &[Broadcast, Push, Churn, Slow, Storm, Soak];

/// Whoever sees clients come in.
const BUILDING: &[Kind] = &[Connect, Churn, Storm];

const EVERY: &[Kind] = &[Connect, Idle, Broadcast, Backlog, Push, Churn, Slow, Storm, Soak];

/// All figures, in the order in which they are shown.
pub const CATALOGUE: &[Figure] = &[
    low("cpu_us", "µs", true, &[Connect], "CPU of the edge per client that connected, authenticated and joined"),
    low("tier_cpu_us", "µs", false, &[Connect], "CPU of the logic tier per client that joined"),
    high("per_second", "/s", true, &[Connect], "Clients that joined per second"),
    low("join_p99_ms", "ms", false, &[Connect], "From the connect to the grant, 99 of 100 clients"),
    low("not_joined", "", false, BUILDING, "Clients that should be in and are not"),
    high("returns", "clients", false, &[Churn, Storm], "Times that a client left and was let in again"),
    low("recovered_seconds", "s", false, &[Storm], "Until everybody was back"),
    low("bytes_per_connection", "B", true, &[Idle], "Memory of the edge (RSS) per idle joined connection"),
    low(
        "kernel_bytes_per_connection",
        "B",
        false,
        &[Idle],
        "Slab of the host's kernel per connection, both ends when the clients are on this host",
    ),
    low("cpu_share", "of a core", false, &[Idle, Soak], "CPU of the edge while nobody publishes, heartbeats included"),
    low("cpu_us_per_message", "µs", true, SPEAKING, "CPU of the edge per message that a client received"),
    low("tier_cpu_us_per_publish", "µs", false, SPEAKING, "CPU of the logic tier per published message"),
    high("delivered_per_second", "/s", true, SPEAKING, "Messages that clients received per second"),
    high("messages_per_write", "packets", true, SPEAKING, "Packets that went to a client in one send"),
    high("writes_per_second_per_core", "/s", true, SPEAKING, "Sends by the edge's CPU time"),
    low("delay_p50_ms", "ms", true, TIMED, "From the publisher's request to a client, half of the messages"),
    low("delay_p99_ms", "ms", true, TIMED, "From the publisher's request to a client, 99 of 100 messages"),
    low("last_receiver_p50_ms", "ms", true, TIMED, "From a publish to its last receiver, half of the publishes"),
    low("last_receiver_p99_ms", "ms", true, TIMED, "From a publish to its last receiver, 99 of 100 publishes"),
    low(
        "others_p99_growth",
        "×",
        false,
        &[Slow],
        "Delay (p99) of those who read while some do not, against the same messages before",
    ),
    low("owed_mb", "MB", false, &[Slow], "Most that the edge held for clients who do not read"),
    low("stuck", "", false, &[Slow], "Clients that stopped reading and that the edge had not closed in the end"),
    low("uncounted", "", false, &[Slow], "Clients that the edge closed and did not count"),
    low("missing", "", false, SPEAKING, "Messages that a client was due and never received, the stuck ones' apart"),
    low("faults", "", false, SPEAKING, "Messages doubled, out of order, or in another room"),
    low("refused", "", false, SPEAKING, "Publishes refused, without an answer, or not sent in time"),
    low("closed", "", false, EVERY, "Clients closed that nobody asked to go"),
    low("heartbeats_missing", "", false, &[Idle, Soak], "Heartbeats without an answer, beyond those under way"),
    low("rss_mb", "MB", false, EVERY, "Memory of the edge (RSS) at the end"),
    low("rss_growth_mb", "MB", false, &[Soak], "Memory of the edge (RSS) at the end against the beginning"),
];

impl Figure {
    /// A count of things that went wrong: exact, and no noise makes one.
    #[must_use]
    pub fn is_count(&self) -> bool {
        self.unit.is_empty()
    }
}

/// What a phase of this kind measures.
#[must_use]
pub fn figures_of(kind: Kind) -> Vec<&'static str> {
    CATALOGUE.iter().filter(|figure| figure.kinds.contains(&kind)).map(|figure| figure.name).collect()
}

/// What the floor measures where it does the same.
#[must_use]
pub fn floor_figures_of(kind: Kind) -> Vec<&'static str> {
    let on_floor = |figure: &&Figure| figure.on_floor && figure.kinds.contains(&kind);
    CATALOGUE.iter().filter(on_floor).map(|figure| figure.name).collect()
}

/// What is known of the figure behind a full name.
#[must_use]
pub fn describe(name: &str) -> Option<&'static Figure> {
    let figure = name.rsplit('.').next().unwrap_or(name);
    CATALOGUE.iter().find(|known| known.name == figure)
}

/// A figure as the repeats gave it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// The middle one, which is judged.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// One per repeat, in order.
    pub values: Vec<f64>,
}

impl Values {
    /// `None` without a value.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (half, odd) = (sorted.len() / 2, sorted.len() % 2 == 1);
        let median = if odd { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        let values = values.iter().copied().filter(|value| value.is_finite()).collect();
        Some(Self { median, min, max, values })
    }

    /// Each of these by that of `other` in the same repeat, where both have as many: what the machine did to one in that
    /// repeat it did to the other. Else the medians.
    #[must_use]
    pub fn ratio(&self, other: &Self) -> Option<Self> {
        if self.values.len() == other.values.len() {
            let pairs = self.values.iter().zip(&other.values);
            let ratios: Vec<f64> = pairs.map(|(value, of)| value / of).collect();
            return Self::of(&ratios);
        }
        Self::of(&[self.median / other.median])
    }
}

/// All figures of a sign-off, by full name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, Values>);

impl Figures {
    /// One more repeat's value. What is no number is not recorded: it was not measured.
    pub fn record(&mut self, phase: &str, figure: &str, value: f64) {
        if !value.is_finite() {
            return;
        }
        debug_assert!(describe(figure).is_some(), "{figure} is not in the catalogue");
        let values = self.0.entry(format!("{phase}.{figure}")).or_default();
        values.values.push(value);
        if let Some(all) = Values::of(&values.values) {
            *values = all;
        }
    }

    /// The values behind a full name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Values> {
        self.0.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Values)> {
        self.0.iter().map(|(name, values)| (name.as_str(), values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_judged_and_the_spread_is_kept() {
        for (values, expected) in [
            (&[3.0][..], Some((3.0, 3.0, 3.0))),
            (&[3.0, 1.0, 9.0], Some((3.0, 1.0, 9.0))),
            (&[4.0, 1.0, 9.0, 2.0], Some((3.0, 1.0, 9.0))),
            (&[f64::NAN, 2.0], Some((2.0, 2.0, 2.0))),
            (&[f64::NAN], None),
            (&[], None),
        ] {
            let found = Values::of(values).map(|values| (values.median, values.min, values.max));
            assert_eq!(found, expected, "{values:?}");
        }
    }

    #[test]
    fn ratios_are_taken_repeat_by_repeat() {
        let (figure, floor) = (Values::of(&[2.0, 6.0, 10.0]).unwrap(), Values::of(&[1.0, 3.0, 10.0]).unwrap());
        assert_eq!(figure.ratio(&floor).unwrap().values, [2.0, 2.0, 1.0]);
        let once = Values::of(&[3.0]).unwrap();
        assert_eq!(figure.ratio(&once).unwrap().values, [2.0]);
        let nothing = Values::of(&[0.0]).unwrap();
        assert_eq!(once.ratio(&nothing), None, "a multiple of nothing is no number");
    }

    #[test]
    fn a_name_means_one_thing_and_every_kind_has_figures() {
        let mut names: Vec<&str> = CATALOGUE.iter().map(|figure| figure.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        for kind in EVERY.iter().copied() {
            assert!(!figures_of(kind).is_empty(), "{kind:?}");
        }
        assert_eq!(describe("floor.broadcast_1.cpu_us_per_message").unwrap().unit, "µs");
    }
}
