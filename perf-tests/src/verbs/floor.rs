//! `perf-tests floor`: from the command line to measurements, and from their medians to the screen.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};
use perf_tests::floor::table::Table;
use perf_tests::floor::{Floor, FloorError, FloorFigures, FloorOptions, FloorSummary, Pattern, SendPath};
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::engine::xdp::program::{MAX_BROADCASTS, Program};
use perf_tests::load::engine::xdp::rig::{Rig, ServerEnd, addresses};
use perf_tests::load::watch::Display;
use perf_tests::meter::Machine;
use perf_tests::signoff::profile::EngineKind;
use serde::Serialize;

use super::process::{raise_descriptor_limit, stop_on_signals};

const EXAMPLES: &str = "\
Examples:
  10,000 clients, all patterns, both paths, medians of three:
    perf-tests floor --clients 10000
  Longer and by io_uring alone, as JSON with every repeat in it:
    perf-tests floor --clients 10000 --seconds 20 --repeats 5 --path ring --json
  Only the peak, with smaller sends:
    perf-tests floor --pattern flat-out --packets-per-send 64
  With clients that take nothing of the server's CPUs (needs root):
    perf-tests floor --engine xdp

Exit code 0: measured, and every client heard every message. 1: messages are missing. 2: it could not be measured.";

/// The raw loop that a daemon is judged by: what `send` and io_uring alone cost on this machine.
///
/// A server that does nothing but loop over its sockets runs as a process of its own; its CPU time, memory and context
/// switches are what is shown. Its clients are those of `perf-tests clients`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Clients, each with a connection
    #[arg(long, short = 'n', default_value_t = 10_000)]
    clients: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Measurements of each pattern and path, of which the median is shown
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// The server's way to the kernel
    #[arg(long, value_enum, default_value_t = Paths::Both)]
    path: Paths,
    /// Patterns to measure; several with commas between them [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pattern: Vec<PatternName>,
    /// Messages in one send when flat out
    #[arg(long, default_value_t = 256)]
    packets_per_send: u32,
    /// Threads of the server, each with a descriptor table of its own [default: the CPUs, or as many as the clients need]
    #[arg(long)]
    server_threads: Option<usize>,
    /// Threads of the clients, likewise
    #[arg(long)]
    client_threads: Option<usize>,
    /// What holds the clients
    #[arg(long, value_enum, default_value_t = EngineKind::Socket)]
    engine: EngineKind,
    /// Print machine, medians and every measurement as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Paths {
    /// A system call for each send
    Send,
    /// io_uring
    Ring,
    /// One after the other
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PatternName {
    /// Clients connect and say nothing
    Accept,
    /// One message a second
    OneASecond,
    /// 40 messages a second, each sent when it comes
    AsTheyCome,
    /// 40 messages a second, sent once a second
    Merged,
    /// One send after another
    FlatOut,
}

/// The JSON form.
#[derive(Debug, Serialize)]
struct Output<'a> {
    machine: Machine,
    summaries: &'a [FloorSummary],
    measurements: &'a [FloorFigures],
    /// Paths that could not be measured, and why.
    skipped: &'a [String],
}

/// Whether everybody heard everything.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    raise_descriptor_limit();
    let stop = stop_on_signals()?;
    let duration = Duration::try_from_secs_f64(arguments.seconds)
        .map_err(|error| format!("--seconds {}: {error}", arguments.seconds))?;
    if arguments.repeats == 0 {
        return Err("--repeats must be at least 1".into());
    }
    let (mut measurements, mut skipped) = (Vec::new(), Vec::new());
    let rig = rig(arguments)?;
    // Repeats outside, so that a machine whose speed drifts does so in all rows alike.
    for repeat in 0..arguments.repeats {
        for path in arguments.path.list() {
            match measure(arguments, rig.as_ref(), path, duration, &stop, repeat, &mut measurements) {
                Err(FloorError::NoRing(_)) if arguments.path == Paths::Both && repeat > 0 => {}
                Err(error @ FloorError::NoRing(_)) if arguments.path == Paths::Both => {
                    eprintln!("skipped: path ring: {error}");
                    skipped.push(format!("path ring: {error}"));
                }
                other => other?,
            }
        }
    }
    let summaries = summarize(arguments, &measurements);
    if arguments.json {
        let (summaries, measurements, skipped) = (&summaries, &measurements, &skipped);
        let output = Output { machine: Machine::read(), summaries, measurements, skipped };
        println!("{}", serde_json::to_string_pretty(&output)?);
    } else {
        print!("{}", Table(&summaries));
    }
    let missing: u64 = measurements.iter().map(|figures| figures.due - figures.received.min(figures.due)).sum();
    if missing > 0 {
        eprintln!("{missing} messages were not heard: these figures are no floor");
    }
    Ok(missing == 0)
}

/// Where clients made of XDP are.
fn rig(arguments: &Arguments) -> Result<Option<Arc<Rig>>, XdpError> {
    match arguments.engine {
        EngineKind::Socket => Ok(None),
        EngineKind::Xdp => {
            let guarded = ServerEnd::Filter(vec![addresses().tcp.port()]);
            Ok(Some(Arc::new(Rig::build(Program::load(arguments.clients, MAX_BROADCASTS)?, &guarded)?)))
        }
    }
}

/// All patterns on one path, once.
fn measure(
    arguments: &Arguments,
    rig: Option<&Arc<Rig>>,
    path: SendPath,
    duration: Duration,
    stop: &AtomicBool,
    repeat: usize,
    measurements: &mut Vec<FloorFigures>,
) -> Result<(), FloorError> {
    let binary =
        std::env::current_exe().map_err(|source| FloorError::Start { binary: "perf-tests".to_owned(), source })?;
    let mut options = FloorOptions::new(binary, path, arguments.clients);
    options.server_threads = arguments.server_threads.unwrap_or(options.server_threads);
    options.client_threads = arguments.client_threads.unwrap_or(options.client_threads);
    for pattern in arguments.patterns() {
        eprintln!("{pattern}, path {path}, {} of {}", repeat + 1, arguments.repeats);
        let mut display = Display::default();
        // A new server each time: what one pattern leaves behind in memory is not in the next one's figures.
        let mut floor = match rig {
            Some(rig) => Floor::start_on(Arc::clone(rig), options.clone())?,
            None => Floor::start(options.clone())?,
        };
        let figures = floor.measure(pattern, duration, stop, &mut display)?;
        measurements.push(figures);
    }
    Ok(())
}

fn summarize(arguments: &Arguments, measurements: &[FloorFigures]) -> Vec<FloorSummary> {
    let mut summaries = Vec::new();
    for pattern in arguments.patterns() {
        for path in arguments.path.list() {
            let same = measurements.iter().filter(|figures| figures.pattern == pattern && figures.path == path);
            let same: Vec<FloorFigures> = same.cloned().collect();
            summaries.extend(FloorSummary::of(&same));
        }
    }
    summaries
}

impl Arguments {
    fn patterns(&self) -> Vec<Pattern> {
        let all = PatternName::value_variants();
        let names = if self.pattern.is_empty() { all } else { &self.pattern };
        let pattern = |name: &PatternName| match name {
            PatternName::Accept => Pattern::Accept,
            PatternName::OneASecond => Pattern::ONE_A_SECOND,
            PatternName::AsTheyCome => Pattern::FORTY_AS_THEY_COME,
            PatternName::Merged => Pattern::FORTY_MERGED,
            PatternName::FlatOut => Pattern::FlatOut { packets_per_send: self.packets_per_send },
        };
        names.iter().map(pattern).collect()
    }
}

impl Paths {
    fn list(self) -> Vec<SendPath> {
        match self {
            Self::Send => vec![SendPath::Send],
            Self::Ring => vec![SendPath::Ring],
            Self::Both => vec![SendPath::Send, SendPath::Ring],
        }
    }
}
