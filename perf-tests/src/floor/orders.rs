//! What instrument and server say to each other: one JSON value a line, orders on the server's stdin, answers on its
//! stdout. Every order has one answer.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::options::{Pattern, SendPath};

/// To the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(super) enum Order {
    /// Start the threads and listen. The first order, and only that.
    Open {
        /// Where to listen; on port 0 where one is free.
        address: SocketAddr,
        /// Threads, each with a listener and a descriptor table of its own.
        threads: usize,
        /// The way to the kernel.
        path: SendPath,
        /// Length of the messages' bodies.
        body_bytes: usize,
    },
    /// From now on accept and grant auth, or accept only.
    Admit {
        /// Whether auth is read and granted.
        grant: bool,
    },
    /// Say who is there.
    Count,
    /// Everybody is there: make ready to send.
    Prepare,
    /// Send.
    Send {
        /// What.
        pattern: Pattern,
        /// For how long.
        seconds: f64,
        /// The run in the stamps.
        run: u32,
    },
    /// Close all connections.
    Disband,
}

/// From the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer {
    /// Opened.
    Listening {
        /// Where.
        address: SocketAddr,
    },
    /// io_uring was asked for and there is none.
    NoRing {
        /// What the system said.
        words: String,
    },
    /// The order could not be carried out, nor can any later one.
    Failed {
        /// Why.
        words: String,
    },
    /// What was asked for is done.
    Done,
    /// Who is there.
    Counted {
        /// Connections.
        accepted: u64,
    },
    /// Everything was handed to the kernel.
    Sent(Sent),
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Messages, each to everybody.
    pub(super) messages: u32,
    /// When the first round began, on the clock of the stamps. Messages that are merged were stamped before it.
    pub(super) began_ns: u64,
    /// Writes to sockets.
    pub(super) writes: u64,
    /// System calls that they took.
    pub(super) system_calls: u64,
    /// Writes of which the socket did not take all.
    pub(super) short_writes: u64,
    /// Connections that were found broken, once per write.
    pub(super) broken: u64,
}

impl Sent {
    /// Adds what another thread wrote.
    pub(super) fn add_writes_of(&mut self, other: &Self) {
        self.writes += other.writes;
        self.system_calls += other.system_calls;
        self.short_writes += other.short_writes;
        self.broken += other.broken;
    }
}
