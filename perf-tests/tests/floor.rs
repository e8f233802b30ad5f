//! The floor: every client hears everything on either path, its figures are figures, and its server never outlives it.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod no_io_uring;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::{fs, thread};

use no_io_uring::forbid_io_uring;
use perf_tests::floor::{Floor, FloorError, FloorFigures, FloorOptions, Pattern, SendPath};
use perf_tests::load::watch::{Step, Unwatched, View, Watch};
use rustix::process::{Pid, Signal, kill_process};

const CLIENTS: u32 = 300;
const BOTH: [SendPath; 2] = [SendPath::Send, SendPath::Ring];

fn options(path: SendPath, clients: u32) -> FloorOptions {
    FloorOptions::new(PathBuf::from(env!("CARGO_BIN_EXE_perf-tests")), path, clients)
}

/// `None` when this machine has no io_uring, which is said.
fn start(path: SendPath, clients: u32) -> Option<Floor> {
    match Floor::start(options(path, clients)) {
        Err(error @ FloorError::NoRing(_)) => {
            println!("skipped: the floor by io_uring: {error}");
            None
        }
        floor => Some(floor.unwrap()),
    }
}

fn measure(floor: &mut Floor, pattern: Pattern) -> Result<FloorFigures, FloorError> {
    floor.measure(pattern, Duration::from_millis(500), &AtomicBool::new(false), &mut Unwatched)
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// What every measurement with messages has to show.
fn assert_complete(figures: &FloorFigures) {
    assert_eq!(figures.completeness, Some(1.0), "{figures:?}");
    assert_eq!(figures.received, figures.due, "{figures:?}");
    assert_eq!(figures.due, figures.messages * u64::from(figures.clients), "{figures:?}");
    let (delay, last) = (figures.delay_us.unwrap(), figures.last_receiver_us.unwrap());
    assert_eq!((delay.count, last.count), (figures.due, figures.messages));
    assert!(last.p50 >= delay.p50 && last.max == delay.max, "the last of all is no earlier: {figures:?}");
    for (name, figure) in [
        ("connect", figures.connect_cpu_us),
        ("connects", figures.connects_per_second),
        ("seconds", figures.seconds),
        ("delivered", figures.delivered_per_second),
        ("CPU", figures.cpu_us_per_delivered),
        ("clients' CPU", figures.clients_cpu_us_per_delivered),
        ("writes", figures.writes_per_cpu_second),
        ("messages per write", figures.messages_per_write),
    ] {
        assert!(figure.is_finite() && figure > 0.0, "{name}: {figures:?}");
    }
}

#[test]
fn everybody_hears_everything_on_either_path() {
    for path in BOTH {
        let Some(mut floor) = start(path, CLIENTS) else { continue };
        let pid = floor.pid();
        let paced = |messages_per_second, packets_per_send| Pattern::Paced { messages_per_second, packets_per_send };
        for (pattern, messages) in
            [(paced(2.0, 1), Some(1)), (paced(40.0, 1), Some(20)), (paced(40.0, 10), Some(20)), (FLAT_OUT, None)]
        {
            let figures = measure(&mut floor, pattern).unwrap();
            assert_complete(&figures);
            assert_eq!((figures.path, figures.pattern, figures.clients), (path, pattern, CLIENTS));
            assert!(messages.is_none_or(|messages| messages == figures.messages), "{figures:?}");
            let rounds = figures.messages / u64::from(pattern.packets_per_send());
            assert!(figures.writes >= rounds * u64::from(CLIENTS), "{figures:?}");
            // Flat out, sockets may be full, and are brought what they are owed one by one.
            let saves_calls = figures.system_calls < figures.writes / 10;
            assert!(pattern == FLAT_OUT || saves_calls == (path == SendPath::Ring), "{figures:?}");
        }
        assert!(is_there(pid));
        drop(floor);
        assert!(!is_there(pid), "the server outlives its floor");
    }
}

const FLAT_OUT: Pattern = Pattern::FlatOut { packets_per_send: 16 };

#[test]
fn clients_that_only_connect_are_accepted() {
    for path in BOTH {
        let Some(mut floor) = start(path, CLIENTS) else { continue };
        for _ in 0..2 {
            let figures = measure(&mut floor, Pattern::Accept).unwrap();
            assert!(figures.connect_cpu_us > 0.0 && figures.connects_per_second > 0.0, "{figures:?}");
            assert_eq!((figures.messages, figures.due, figures.completeness), (0, 0, None));
        }
        // The same server still grants to those who say something.
        assert_complete(&measure(&mut floor, Pattern::ONE_A_SECOND).unwrap());
    }
}

#[test]
fn what_a_socket_does_not_take_at_once_is_made_good() {
    for path in BOTH {
        let Some(mut floor) = start(path, 4) else { continue };
        // 6 MiB in one send: more than a socket takes.
        let figures = measure(&mut floor, Pattern::FlatOut { packets_per_send: 1 << 17 }).unwrap();
        assert_complete(&figures);
        assert!(figures.short_writes > 0, "{figures:?}");
    }
}

/// Kills the server when the measurement has come as far as its step.
struct Killer {
    pid: u32,
    at: Step,
}

impl Watch for Killer {
    fn look(&mut self, view: &View) {
        if view.step == self.at {
            // It may be dead from the last look.
            let _ = kill_process(Pid::from_raw(self.pid as i32).unwrap(), Signal::KILL);
        }
    }
}

#[test]
fn a_server_that_dies_is_no_figure() {
    for at in [Step::Build, Step::Listen] {
        let mut floor = start(SendPath::Send, 50).unwrap();
        let mut killer = Killer { pid: floor.pid(), at };
        let result =
            floor.measure(Pattern::ONE_A_SECOND, Duration::from_secs(600), &AtomicBool::new(false), &mut killer);
        let error = result.unwrap_err();
        let words = error.to_string();
        assert!(matches!(error, FloorError::Died { .. }) && words.contains("signal: 9"), "{at:?}: {words}");
        let again = measure(&mut floor, Pattern::ONE_A_SECOND).unwrap_err().to_string();
        assert!(again.contains("start another"), "{again}");
    }
}

/// Sets the flag when messages go out.
struct Stopper<'a>(&'a AtomicBool);

impl Watch for Stopper<'_> {
    fn look(&mut self, view: &View) {
        if view.step == Step::Listen {
            self.0.store(true, std::sync::atomic::Ordering::Release);
        }
    }
}

#[test]
fn a_measurement_can_be_stopped() {
    let mut floor = start(SendPath::Send, 50).unwrap();
    let (pid, stop) = (floor.pid(), AtomicBool::new(false));
    let error = floor.measure(FLAT_OUT, Duration::from_secs(600), &stop, &mut Stopper(&stop)).unwrap_err();
    assert!(matches!(error, FloorError::Interrupted), "{error}");
    drop(floor);
    assert!(!is_there(pid));
}

#[test]
fn a_program_that_is_no_server_is_said_to_be_none() {
    for (binary, words) in [("/nonexistent/perf-tests", "cannot start /nonexistent/perf-tests"), ("/bin/true", "died")]
    {
        let error = Floor::start(FloorOptions { binary: binary.into(), ..options(SendPath::Send, 1) }).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_sandbox_without_io_uring_leaves_the_other_path() {
    let in_sandbox = || {
        forbid_io_uring();
        let error = Floor::start(options(SendPath::Ring, 20)).unwrap_err();
        assert!(matches!(error, FloorError::NoRing(_)) && error.to_string().contains("io_uring"), "{error}");
        let mut floor = Floor::start(options(SendPath::Send, 20)).unwrap();
        assert_complete(&measure(&mut floor, Pattern::ONE_A_SECOND).unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_perf-tests"));
        command.args(["floor", "-n", "20", "--pattern", "one-a-second", "--seconds", "0.2", "--repeats", "2"]);
        (command.output().unwrap(), command.args(["--path", "ring"]).output().unwrap())
    };
    // The filter stays with the thread.
    let (both, ring) = thread::spawn(in_sandbox).join().unwrap();
    let (shown, said) = (String::from_utf8_lossy(&both.stdout), String::from_utf8_lossy(&both.stderr));
    assert_eq!(both.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("skipped: path ring").count(), 1, "{said}");
    assert!(shown.contains(" send ") && shown.contains("100.0000 %") && !shown.contains(" ring "), "{shown}");
    let said = String::from_utf8_lossy(&ring.stderr);
    assert_eq!(ring.status.code(), Some(2), "asked for by name it is no path to skip: {said}");
    assert!(said.contains("cannot set up io_uring"), "{said}");
}

/// A child is collected by its parent; an orphan by init, which may take a moment.
fn await_end(pid: u32) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while is_running(pid) {
        assert!(std::time::Instant::now() < deadline, "process {pid} goes on and on");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A zombie has ended.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn the_server_ends_with_an_instrument_that_is_killed() {
    let mut instrument = Command::new(env!("CARGO_BIN_EXE_perf-tests"))
        .args(["floor", "-n", "20", "--pattern", "one-a-second", "--seconds", "600", "--path", "send"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = instrument.id();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let server: u32 = loop {
        let listed = fs::read_to_string(&children).unwrap_or_default();
        if let Some(server) = listed.split_whitespace().next() {
            break server.parse().unwrap();
        }
        assert!(std::time::Instant::now() < deadline, "it starts no server");
        thread::sleep(Duration::from_millis(10));
    };
    instrument.kill().unwrap();
    instrument.wait().unwrap();
    await_end(server);
}
