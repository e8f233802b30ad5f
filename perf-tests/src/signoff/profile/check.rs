//! What the values of a profile must be to each other.

use std::collections::BTreeSet;

use settings::{SettingsError, Source, unknown};

use super::{Daemons, EngineKind, Kind, Phase, Profile, floor_prefix};
use crate::signoff::figures::{figures_of, floor_figures_of};

impl Kind {
    /// Keys of a phase that mean something to this kind, beyond those of every phase; the first ones, up to the count, must
    /// be there.
    fn keys(self) -> (usize, &'static [&'static str]) {
        match self {
            Self::Connect => (0, &["floor"]),
            Self::Idle => (1, &["seconds", "floor"]),
            Self::Broadcast => (2, &["messages", "per_second", "merge_ms", "floor", "message_bytes", "abreast"]),
            Self::Backlog => (1, &["messages", "floor", "message_bytes"]),
            Self::Push => (3, &["by", "messages", "per_second", "message_bytes"]),
            Self::Churn | Self::Slow | Self::Storm => (3, &["share", "messages", "per_second", "message_bytes"]),
            Self::Soak => (2, &["seconds", "per_second", "message_bytes"]),
        }
    }
}

impl Phase {
    fn given(&self) -> [(&'static str, bool); 9] {
        [
            ("messages", self.messages.is_some()),
            ("per_second", self.per_second.is_some()),
            ("seconds", self.seconds.is_some()),
            ("message_bytes", self.message_bytes.is_some()),
            ("share", self.share.is_some()),
            ("by", self.by.is_some()),
            ("merge_ms", self.merge_ms.get() > 0),
            ("abreast", self.abreast.get() > 1),
            ("floor", self.floor),
        ]
    }
}

impl Profile {
    /// Finds what no single value tells.
    pub(super) fn check(&self, source: &Source) -> Result<(), SettingsError> {
        self.check_values(source)?;
        self.check_phases(source)?;
        self.check_budget(source)
    }

    fn check_values(&self, source: &Source) -> Result<(), SettingsError> {
        let not_negative = |value: f64| value >= 0.0 && value.is_finite();
        let rows = [
            ("name", !self.name.is_empty(), "a profile needs a name"),
            ("phase", !self.phases.is_empty(), "a profile needs a phase"),
            ("clients.connects_per_second", not_negative(self.clients.connects_per_second), "is no rate"),
            ("clients.ack_loss", (0.0..=1.0).contains(&self.clients.ack_loss), "is no share, from 0 to 1"),
            (
                "clients.engine",
                self.clients.engine == EngineKind::Xdp
                    || (self.clients.ack_loss == 0.0 && self.clients.ack_delay_ms.get() == 0),
                "for clients with sockets the kernel acknowledges: leave out ack_loss and ack_delay_ms, or use xdp",
            ),
            ("clients.heartbeat_seconds", not_negative(self.clients.heartbeat_seconds), "is no time"),
            (
                "target",
                self.target.is_none() || self.daemons == Daemons::default(),
                "running daemons have their settings: leave out [daemons] or [target]",
            ),
            (
                "target",
                self.target.is_none() || self.clients.engine == EngineKind::Socket,
                "clients made of XDP live in a namespace with daemons of their own: leave out [target]",
            ),
            (
                "target",
                self.target.is_none() || self.phases.iter().all(|phase| phase.kind != Kind::Backlog),
                "a phase of kind backlog stops the edge for a moment, which is not done to one that runs for others",
            ),
        ];
        match rows.into_iter().find(|(_, holds, _)| !holds) {
            Some((key, _, what)) => Err(source.wrong(key, what)),
            None => Ok(()),
        }
    }

    fn check_phases(&self, source: &Source) -> Result<(), SettingsError> {
        let mut names = BTreeSet::new();
        for (index, phase) in self.phases.iter().enumerate() {
            let wrong = |key: &str, what: String| Err(source.wrong(&format!("phase.{index}.{key}"), what));
            let name = phase.name.as_str();
            let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if name.is_empty() || !plain || name.starts_with("floor") {
                let what = "a phase's name is made of a-z, 0-9 and _, and does not begin with floor";
                return wrong("name", what.to_owned());
            }
            if !names.insert(name) {
                return wrong("name", format!("there is another phase `{name}`"));
            }
            let (needed, keys) = phase.kind.keys();
            let given = phase.given();
            let has = |key: &str| given.iter().any(|(name, given)| *name == key && *given);
            if let Some((key, _)) = given.iter().find(|(key, given)| *given && !keys.contains(key)) {
                return wrong(key, format!("a phase of this kind has no `{key}`; it has {}", keys.join(", ")));
            }
            if let Some(key) = keys[..needed].iter().find(|key| !has(key)) {
                return wrong(key, "is missing".to_owned());
            }
            for (key, value) in [("per_second", phase.per_second), ("seconds", phase.seconds)] {
                if value.is_some_and(|value| !(value.is_finite() && value >= 0.0)) {
                    return wrong(key, "must be a number from 0 up".to_owned());
                }
            }
            if phase.share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
                return wrong("share", "must be above 0 and at most 1".to_owned());
            }
            if phase.rooms.get() > phase.clients.unwrap_or(self.clients.count).get() {
                return wrong("rooms", "are more than there are clients".to_owned());
            }
        }
        Ok(())
    }

    fn check_budget(&self, source: &Source) -> Result<(), SettingsError> {
        for (phase, figures) in &self.budget {
            for (figure, limit) in figures {
                let key = format!("budget.{phase}.{figure}");
                self.known(&format!("{phase}.{figure}")).map_err(|what| source.wrong(&key, what))?;
                if limit.max.is_none() && limit.min.is_none() {
                    return Err(source.wrong(&key, "sets neither max nor min"));
                }
                if let Some(of) = &limit.of {
                    self.known(of).map_err(|what| source.wrong(&format!("{key}.of"), what))?;
                }
            }
        }
        Ok(())
    }

    /// Whether some phase measures the figure of this full name.
    fn known(&self, name: &str) -> Result<(), String> {
        let (floor, rest) = match name.split_once('.') {
            Some((prefix, rest)) if prefix.starts_with("floor") => (Some(prefix), rest),
            _ => (None, name),
        };
        let (phase_name, figure) = rest.split_once('.').unwrap_or((rest, ""));
        let Some(phase) = self.phases.iter().find(|phase| phase.name == phase_name) else {
            let names: Vec<&str> = self.phases.iter().map(|phase| phase.name.as_str()).collect();
            return Err(unknown("phase", phase_name, &names));
        };
        let valid = match floor {
            None => figures_of(phase.kind),
            Some(prefix) => {
                let mut prefixes = vec!["floor"];
                prefixes.extend(self.floor.paths.iter().map(|path| floor_prefix(*path)));
                if !prefixes.contains(&prefix) {
                    return Err(unknown("floor", prefix, &prefixes));
                }
                if !phase.floor || self.floor.paths.is_empty() {
                    return Err(format!("`{phase_name}` has no floor: set floor = true in it, and floor.paths"));
                }
                floor_figures_of(phase.kind)
            }
        };
        if valid.contains(&figure) { Ok(()) } else { Err(unknown("figure", figure, &valid)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = \"x\"\nclients.count = 10\nfloor.paths = [\"ring\"]\n";
    const ONE: &str = "[[phase]]\nname = \"one\"\nkind = \"broadcast\"\nmessages = 1\nper_second = 1\nfloor = true\n";

    fn mistake(text: &str) -> String {
        Profile::parse(&Source::new("p.toml", text)).map(|profile| profile.name).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_located_and_explained() {
        let rows = [
            ("nmae = \"x\"\n", "1:1: unknown key `nmae`: did you mean `name`?"),
            ("name = \"\"\nphase = []\nclients.count = 1\n", "1:8: a profile needs a name"),
            ("name = \"x\"\nphase = []\nclients.count = 1\n", "2:9: a profile needs a phase"),
            (
                "name = \"x\"\nphase = []\nclients.count = 0\n",
                "3:17: invalid value: integer `0`, expected a whole number from 1 to 100000000",
            ),
            (
                "name = \"x\"\nphase = []\n[clients]\ncount = 1\nengine = \"sokcet\"\n",
                "5:10: unknown value `sokcet`: did you mean `socket`?",
            ),
            (
                "name = \"x\"\nphase = [{ name = \"a\", kind = \"connect\" }]\n[clients]\ncount = 1\nheartbeat_seconds = -1.0\n",
                "5:21: is no time",
            ),
            (
                "name = \"x\"\nphase = [{ name = \"a\", kind = \"connect\" }]\n[clients]\ncount = 1\nengine = \"xdp\"\nack_loss = 1.5\n",
                "6:12: is no share, from 0 to 1",
            ),
            (
                "name = \"x\"\nphase = [{ name = \"a\", kind = \"connect\" }]\n[clients]\ncount = 1\nengine = \"socket\"\nack_delay_ms = 5\n",
                "5:10: for clients with sockets the kernel acknowledges: leave out ack_loss and ack_delay_ms, or use xdp",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(mistake(text), format!("p.toml:{expected}"));
        }
    }

    #[test]
    fn a_phase_has_what_its_kind_needs_and_nothing_else() {
        let rows = [
            ("name = \"one\"\nkind = \"broadcst\"\n", "6:8: unknown value `broadcst`: did you mean `broadcast`?"),
            ("name = \"one\"\nkind = \"idle\"\nsecond = 3\n", "7:1: unknown key `second`: did you mean `seconds`?"),
            (
                "name = \"a b\"\nkind = \"connect\"\n",
                "5:8: a phase's name is made of a-z, 0-9 and _, and does not begin with floor",
            ),
            (
                "name = \"floors\"\nkind = \"connect\"\n",
                "5:8: a phase's name is made of a-z, 0-9 and _, and does not begin with floor",
            ),
            ("name = \"one\"\nkind = \"idle\"\n", "4:1: phase.0.seconds: is missing"),
            (
                "name = \"one\"\nkind = \"idle\"\nseconds = 3\nshare = 0.5\n",
                "8:9: a phase of this kind has no `share`; it has seconds, floor",
            ),
            (
                "name = \"one\"\nkind = \"storm\"\nmessages = 3\nper_second = 1\nshare = 1.5\n",
                "9:9: must be above 0 and at most 1",
            ),
            (
                "name = \"one\"\nkind = \"broadcast\"\nmessages = 3\nper_second = -1\n",
                "8:14: must be a number from 0 up",
            ),
            (
                "name = \"one\"\nkind = \"broadcast\"\nmessages = 3\nper_second = 1\nrooms = 11\n",
                "9:9: are more than there are clients",
            ),
            (
                "name = \"one\"\nkind = \"connect\"\n[[phase]]\nname = \"one\"\nkind = \"connect\"\n",
                "8:8: there is another phase `one`",
            ),
        ];
        for (phase, expected) in rows {
            assert_eq!(mistake(&format!("{HEAD}[[phase]]\n{phase}")), format!("p.toml:{expected}"), "{phase}");
        }
    }

    #[test]
    fn a_budget_is_for_figures_that_are_measured() {
        let rows = [
            (
                "one.cpu_us_per_mesage = { max = 1 }",
                "11:25: unknown figure `cpu_us_per_mesage`: did you mean `cpu_us_per_message`?",
            ),
            ("on.missing = { max = 1 }", "11:14: unknown phase `on`: did you mean `one`?"),
            ("one.missing = { mx = 1 }", "11:17: unknown key `mx`: did you mean `max`?"),
            ("one.missing = {}", "11:15: sets neither max nor min"),
            ("one.missing = { max = 1, of = \"flor.one.missing\" }", "11:31: unknown phase `flor`: valid here: one"),
            (
                "one.missing = { max = 1, of = \"floor_send.one.missing\" }",
                "11:31: unknown floor `floor_send`: did you mean `floor_ring`?",
            ),
            (
                "one.delay_p50_ms = { max = 1, of = \"floor.one.delay_p50\" }",
                "11:36: unknown figure `delay_p50`: did you mean `delay_p50_ms`?",
            ),
        ];
        for (row, expected) in rows {
            assert_eq!(mistake(&format!("{HEAD}{ONE}[budget]\n{row}")), format!("p.toml:{expected}"), "{row}");
        }
        let without = ONE.replace("floor = true\n", "");
        let said =
            mistake(&format!("{HEAD}{without}[budget]\none.missing = {{ max = 1, of = \"floor.one.missing\" }}"));
        assert_eq!(said, "p.toml:10:31: `one` has no floor: set floor = true in it, and floor.paths");
    }

    #[test]
    fn the_profiles_of_the_repository_are_right() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            names.push(Profile::load(&path).unwrap_or_else(|error| panic!("{error}")).name);
        }
        names.sort();
        assert_eq!(names, ["100k", "10k", "1m", "1m-xdp", "4m-xdp", "bench", "bench-xdp"]);
    }
}
