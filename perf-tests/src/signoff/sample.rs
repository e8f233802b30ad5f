//! A report for tests of those who read one.

use std::collections::BTreeMap;

use settings::Source;

use super::figures::Figures;
use super::judge::judge;
use super::profile::Profile;
use super::report::{PhaseRun, Report, SCHEMA};
use super::series::Point;
use crate::meter::Machine;

const PROFILE: &str = r#"
name = "sample <&>"
about = "What the tests of the page show."
repeats = 3
clients.count = 10000
floor.paths = ["ring"]
phase = [
    { name = "connect", kind = "connect", floor = true },
    { name = "idle", kind = "idle", seconds = 5 },
    { name = "broadcast_1", kind = "broadcast", messages = 5, per_second = 1, floor = true },
    { name = "slow", kind = "slow", messages = 5, per_second = 1, share = 0.01 },
]
[budget]
connect.cpu_us = { max = 2.5, of = "floor.connect.cpu_us" }
idle.bytes_per_connection = { max = 160 }
idle.cpu_share = { max = 0.05 }
broadcast_1.cpu_us_per_message = { max = 1.15, of = "floor.broadcast_1.cpu_us_per_message" }
broadcast_1.missing = { max = 0 }
slow.others_p99_growth = { max = 1.10 }
"#;

/// Judged, with every outcome in it: one row failed and one was not measured. Figures are `scale` times what they are.
pub(super) fn report(scale: f64) -> Report {
    let profile = Profile::parse(&Source::new("sample.toml", PROFILE)).unwrap();
    let mut figures = Figures::default();
    let rows: [(&str, &str, &[f64]); 9] = [
        ("connect", "cpu_us", &[30.0, 31.0, 35.5]),
        ("floor.connect", "cpu_us", &[17.0, 18.0, 19.0]),
        ("connect", "not_joined", &[0.0, 0.0, 0.0]),
        ("idle", "bytes_per_connection", &[151.2, 151.0, 152.0]),
        ("idle", "cpu_share", &[0.07, 0.08, 0.06]),
        ("broadcast_1", "cpu_us_per_message", &[8.2, 9.1, 8.0]),
        ("floor.broadcast_1", "cpu_us_per_message", &[7.9, 8.4, 7.8]),
        ("broadcast_1", "missing", &[0.0, 0.0, 0.0]),
        ("broadcast_1", "delivered_per_second", &[10_000.0, 9_990.0, 10_010.0]),
    ];
    for (phase, figure, values) in rows {
        let scaled = |value: &f64| if phase.starts_with("floor") { *value } else { value * scale };
        values.iter().for_each(|value| figures.record(phase, figure, scaled(value)));
    }
    let run =
        |name: &str, from_seconds, to_seconds| PhaseRun { name: name.to_owned(), repeat: 1, from_seconds, to_seconds };
    let point = |second: u32| {
        let at_seconds = f64::from(second) / 2.0;
        let busy = if (10..40).contains(&second) { 0.9 } else { 0.1 };
        let of =
            |edge: f64, tier: f64| BTreeMap::from([("push-daemon".to_owned(), edge), ("logic-tier".to_owned(), tier)]);
        Point {
            at_seconds,
            cpu_cores: of(busy, busy / 10.0),
            rss_mb: of(20.0 + at_seconds, 12.0),
            slab_mb: 120.0,
            tcp_memory_mb: 3.0,
            connections: 10_000.0,
            delivered_per_second: busy * 1e5,
            retransmits_per_second: 0.0,
        }
    };
    let mut report = Report {
        schema: SCHEMA,
        passed: false,
        interrupted: false,
        began_unix_s: 1_790_000_000,
        seconds: 61.5,
        machine: Machine::read(),
        versions: BTreeMap::from([("push-daemon".to_owned(), "0.1.0".to_owned())]),
        send_path: "ring".to_owned(),
        verdicts: judge(&profile, &figures),
        profile,
        figures,
        phases: vec![run("connect", 0.0, 5.0), run("idle", 5.0, 12.0), run("broadcast_1", 12.0, 30.0)],
        samples: (0..60).map(point).collect(),
        troubles: vec!["slow, repeat 1: the clients <broke> & \"left\"".to_owned()],
    };
    report.passed = report.passes();
    report
}
