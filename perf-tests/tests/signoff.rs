//! `perf-tests signoff` and `compare` as they are called, against the real daemons: every kind of phase, short, with few
//! clients.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use perf_tests::signoff::figures::{figures_of, floor_figures_of};
use perf_tests::signoff::judge::Outcome;
use perf_tests::signoff::report::Report;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PROFILE: &str = r#"
name = "every kind"
about = "Every kind of phase, to see that the sign-off itself works."
repeats = 2
clients = { count = 120, heartbeat_seconds = 1.0 }
floor.paths = ["send"]
daemons.push_daemon.shard.send = "plain"
# Short, so that who stops reading is closed soon.
daemons.push_daemon.limits = { debt_bytes = 65536, debt_age_ms = 5000 }

[[phase]]
name = "connect"
kind = "connect"
floor = true
[[phase]]
name = "idle"
kind = "idle"
seconds = 1.5
[[phase]]
name = "one_by_one"
kind = "broadcast"
per_second = 10.0
messages = 10
floor = true
[[phase]]
name = "flat_out"
kind = "broadcast"
per_second = 0.0
messages = 100
repeats = 1
[[phase]]
name = "backlog"
kind = "backlog"
messages = 100
repeats = 1
[[phase]]
name = "mids"
kind = "push"
by = "mid"
per_second = 100.0
messages = 120
repeats = 1
[[phase]]
name = "keys"
kind = "push"
by = "key"
per_second = 100.0
messages = 120
repeats = 1
[[phase]]
name = "window"
kind = "broadcast"
per_second = 50.0
messages = 50
merge_ms = 400
repeats = 1
[[phase]]
name = "rooms"
kind = "broadcast"
rooms = 12
per_second = 120.0
messages = 120
transport = "websocket"
repeats = 1
[[phase]]
name = "churn"
kind = "churn"
share = 0.1
per_second = 10.0
messages = 15
repeats = 1
[[phase]]
name = "storm"
kind = "storm"
share = 0.5
per_second = 10.0
messages = 15
repeats = 1
[[phase]]
name = "soak"
kind = "soak"
seconds = 3.0
per_second = 1.0
repeats = 1
[[phase]]
name = "slow"
kind = "slow"
clients = 50
share = 0.04
per_second = 100.0
messages = 220
message_bytes = 60000
repeats = 1

[budget]
connect.not_joined = { max = 0 }
connect.cpu_us = { max = 10000, of = "floor.connect.cpu_us" }
idle.closed = { max = 0 }
idle.heartbeats_missing = { max = 0 }
one_by_one.missing = { max = 0 }
one_by_one.faults = { max = 0 }
flat_out.missing = { max = 0 }
backlog.missing = { max = 0 }
backlog.messages_per_write = { min = 2 }
mids.missing = { max = 0 }
keys.missing = { max = 0 }
window.missing = { max = 0 }
window.messages_per_write = { min = 4 }
rooms.missing = { max = 0 }
churn.missing = { max = 0 }
churn.returns = { min = 3 }
storm.missing = { max = 0 }
storm.not_joined = { max = 0 }
storm.returns = { min = 60 }
soak.missing = { max = 0 }
slow.missing = { max = 0 }
slow.uncounted = { max = 0 }
"#;

/// A command in a directory of its own, with its temporary files there too.
fn perf_tests(directory: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf-tests"));
    command.args(arguments.split(' ')).current_dir(directory).env("TMPDIR", directory.join("tmp"));
    command
}

fn directory(profile: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join("tmp")).unwrap();
    std::fs::write(directory.path().join("profile.toml"), profile).unwrap();
    directory
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream)).concat()
}

fn leftovers(directory: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path().join("tmp")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_kind_of_phase_is_measured_judged_shown_and_compared() {
    let directory = directory(PROFILE);
    let output =
        perf_tests(directory.path(), "signoff --profile profile.toml --json a.json --html a.html").output().unwrap();
    let report = Report::load(&directory.path().join("a.json")).unwrap();
    assert_eq!(report.troubles, Vec::<String>::new());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(report.passed && report.verdicts.iter().all(|verdict| verdict.outcome == Outcome::Passed));
    assert_eq!(leftovers(&directory), Vec::<String>::new());

    for phase in &report.profile.phases {
        let repeats = phase.repeats(&report.profile) as usize;
        let own = figures_of(phase.kind).into_iter().map(|figure| format!("{}.{figure}", phase.name));
        let floors = floor_figures_of(phase.kind).into_iter().filter(|_| phase.floor);
        let floors = floors.map(|figure| format!("floor.{}.{figure}", phase.name));
        for name in own.chain(floors) {
            let values = report.figures.get(&name).unwrap_or_else(|| panic!("{name} was not measured"));
            assert_eq!(values.values.len(), repeats, "{name}");
        }
        assert_eq!(report.phases.iter().filter(|run| run.name == phase.name).count(), repeats, "{}", phase.name);
    }
    assert_eq!(report.send_path, "send");
    assert!(["perf-tests", "push-daemon", "logic-tier"].iter().all(|name| report.versions.contains_key(*name)));
    let processes = |name: &str| report.samples.iter().filter(|point| point.rss_mb.contains_key(name)).count();
    assert!(["push-daemon", "logic-tier", "clients", "floor"].iter().all(|name| processes(name) > 0));
    let page = std::fs::read_to_string(directory.path().join("a.html")).unwrap();
    assert!(page.contains("<strong>Signed off</strong>") && page.contains("<svg"));

    // The same again, but worse in what its budget counts.
    let mut worse: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(directory.path().join("a.json")).unwrap()).unwrap();
    worse["figures"]["mids.missing"] = serde_json::json!({ "median": 3.0, "min": 3.0, "max": 3.0, "values": [3.0] });
    std::fs::write(directory.path().join("b.json"), worse.to_string()).unwrap();
    for (arguments, code, words) in [
        ("compare a.json a.json", 0, "moved within the noise"),
        ("compare a.json b.json", 1, "WORSE   mids.missing"),
        ("compare a.json b.json --json", 1, "\"moved\": \"worse\""),
        ("compare b.json a.json", 0, "better  mids.missing"),
        ("compare a.json profile.toml", 2, "profile.toml is no report of a sign-off"),
        ("table a.json", 0, "us over the floor, send()"),
        ("table b.json", 1, "NO: send(): mids.missing is 3 over 1 repeats"),
        ("table a.json b.json", 2, "give one for each send path"),
        ("table profile.toml", 2, "profile.toml is no report of a sign-off"),
    ] {
        let output = perf_tests(directory.path(), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", said(&output));
        assert!(said(&output).contains(words), "{arguments}: {}", said(&output));
    }
}

#[test]
fn an_interrupt_leaves_a_report_and_nothing_else() {
    let profile = "name = \"long\"\nclients.count = 20\n[[phase]]\nname = \"connect\"\nkind = \"connect\"\n\
                   [[phase]]\nname = \"soak\"\nkind = \"soak\"\nseconds = 6000.0\nper_second = 10.0\n\
                   [budget]\nconnect.not_joined = { max = 0 }\nsoak.missing = { max = 0 }\n";
    let directory = directory(profile);
    let mut child = perf_tests(directory.path(), "signoff --profile profile.toml")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    // Some way into it: the first line after a while says how far it is, between two messages or in one.
    let tells_how_far = |line: String| line.contains("listening") || line.contains("settling");
    assert!(lines.any(tells_how_far), "it never got that far");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report = Report::load(&directory.path().join("signoff-long.json")).unwrap();
    assert!(report.interrupted && !report.passed);
    assert!(report.verdicts.iter().all(|verdict| verdict.outcome == Outcome::Passed), "{:?}", report.verdicts);
    let page = std::fs::read_to_string(directory.path().join("signoff-long.html")).unwrap();
    assert!(page.contains("<strong>Interrupted</strong>"));
    assert_eq!(leftovers(&directory), Vec::<String>::new());
}

#[test]
fn what_cannot_be_begun_is_said_with_its_place() {
    let short = "name = \"short\"\nclients.count = 3\n[[phase]]\nname = \"connect\"\nkind = \"connect\"\n";
    let rows = [
        (
            "a typing error",
            short.replace("kind", "knd"),
            "",
            "profile.toml:5:1: unknown key `knd`: did you mean `kind`?",
        ),
        ("a place that is not there", short.to_owned(), " --json none/a.json", "cannot write none/a.json"),
        (
            "a daemon that does not start",
            format!("{short}[daemons.push_daemon.shard]\nsned = \"plain\"\n"),
            "",
            "unknown key `sned`: did you mean `send`?",
        ),
        (
            "a setting for daemons that run already",
            format!(
                "{short}[target]\ntcp = \"127.0.0.1:1\"\nwebsocket = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\n\
                 http = \"127.0.0.1:4\"\nedge_pid = 1\n"
            ),
            " --send ring",
            "running ones have theirs",
        ),
    ];
    for (name, profile, more, words) in rows {
        let directory = directory(&profile);
        let output = perf_tests(directory.path(), &format!("signoff --profile profile.toml{more}")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {}", said(&output));
        assert!(said(&output).contains(words), "{name}: {}", said(&output));
    }
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let directory = directory(PROFILE);
    for (more, words) in
        [("", "22 rows in the budget"), ("", "120 clients, 2 repeats"), (" --repeats 1", "120 clients, 1 repeats")]
    {
        let line = format!("signoff --profile profile.toml --dry-run{more}");
        let output = perf_tests(directory.path(), &line).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {}", said(&output));
        assert!(said(&output).contains(words), "{line}: {}", said(&output));
    }
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        2,
        "the profile and the place for temporary files"
    );
}
