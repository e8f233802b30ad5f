//! The floor: what the kernel alone asks for the work that an edge does.
//!
//! A server that is nothing but loops over sockets accepts clients, grants their auth, and sends them stamped messages,
//! round after round, by plain `send` or by io_uring. A daemon is judged by how near it comes to that, against the same
//! clients in the same run. The server is a process of its own, so that its CPU time and memory are those of the loop
//! and never the clients'; the clients are threads of ours, or made of XDP, by the engines of [`crate::load`].
//!
//! It is no server for anything else: it believes its clients, keeps no rooms, and a slow client holds up its thread.
//!
//! ```no_run
//! use std::{env, sync::atomic::AtomicBool, time::Duration};
//! use perf_tests::floor::{Floor, FloorOptions, Pattern, SendPath};
//! use perf_tests::load::watch::Unwatched;
//!
//! let mut floor = Floor::start(FloorOptions::new(env::current_exe()?, SendPath::Ring, 10_000))?;
//! let figures = floor.measure(Pattern::ONE_A_SECOND, Duration::from_secs(10), &AtomicBool::new(false), &mut Unwatched)?;
//! println!("{:.1} us a message", figures.cpu_us_per_delivered);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Layout: `options` what to measure · `figures` what came of it, and medians of repeats · `measure` one measurement ·
//! `connector` clients that only connect · `child` the server's process, from outside · `orders` what the two say to each
//! other · [`server`] the server, from inside · [`table`] for people

mod child;
mod connector;
mod figures;
mod measure;
mod options;
mod orders;
pub mod server;
pub mod table;

pub use figures::{FloorFigures, FloorSummary, Spread};
pub use measure::Floor;
pub use options::{FloorOptions, Pattern, SendPath};

use crate::load::engine::EngineError;
use crate::meter::MeterError;

/// Why the floor was not measured.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// A number that cannot be.
    #[error("{0}")]
    Options(String),
    /// The server's threads cannot hold the clients.
    #[error(
        "{clients} clients on {threads} threads are {each} descriptors a thread, but RLIMIT_NOFILE is {limit}: use {enough} threads"
    )]
    Descriptors {
        /// Clients wanted.
        clients: u32,
        /// Threads wanted, of the server or of the clients.
        threads: usize,
        /// Descriptors that each needs.
        each: u64,
        /// Descriptors that each may have.
        limit: u64,
        /// Threads that would do.
        enough: u64,
    },
    /// There is no io_uring here; the other path can still be measured.
    #[error(
        "cannot set up io_uring: {0} (kernel.io_uring_disabled, a sandbox, or Linux before 6.1); the path by send() can still be measured"
    )]
    NoRing(String),
    /// The server could not be started.
    #[error("cannot start {binary} as the floor's server: {source}")]
    Start {
        /// What was to be run.
        binary: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server said why it cannot go on.
    #[error("the floor's server cannot go on: {0}")]
    Server(String),
    /// The server is gone.
    #[error("the floor's server died while it was to {doing} ({how}); its last words are above, if it had any")]
    Died {
        /// What it had been told.
        doing: &'static str,
        /// Exit status, as far as known.
        how: String,
    },
    /// The server is there but says nothing.
    #[error(
        "the floor's server did not {doing} within {seconds} s: the machine is overloaded, or fewer clients are needed"
    )]
    Silent {
        /// What it had been told.
        doing: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Not everybody came in.
    #[error("{joined} of {wanted} clients joined the floor's server: {reasons}")]
    NotJoined {
        /// Clients that did.
        joined: u64,
        /// Clients wanted.
        wanted: u64,
        /// Why the others did not.
        reasons: String,
    },
    /// A client that only connects could not.
    #[error("cannot connect client {client} to the floor's server: {source}")]
    Connect {
        /// Which one.
        client: u32,
        /// What the system said.
        source: std::io::Error,
    },
    /// The clients' side broke.
    #[error(transparent)]
    Clients(#[from] EngineError),
    /// What was used could not be read.
    #[error(transparent)]
    Meter(#[from] MeterError),
    /// Somebody ended it.
    #[error("interrupted")]
    Interrupted,
}
