//! What to measure: how many clients, which way to the kernel, which pattern of messages.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::FloorError;
use crate::load::scenario::{SPARE_DESCRIPTORS, threads_for};
use crate::load::stamp::STAMP_BYTES;

/// The kernel spreads connections over the server's threads by a hash, so some get more than their share.
const UNEVENNESS_PERCENT: u64 = 5;

/// Most packets of one send: 12 MiB of stamps and headers.
const MAX_PACKETS_PER_SEND: u32 = 1 << 18;

/// The server's way to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SendPath {
    /// A system call for each send.
    Send,
    /// io_uring: 256 sends a submission, registered files.
    Ring,
}

impl fmt::Display for SendPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Send => "send",
            Self::Ring => "ring",
        })
    }
}

/// Which messages are sent when.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Clients connect and say nothing; no message is sent.
    Accept,
    /// So many messages a second to every client, at even distances.
    Paced {
        /// Messages per second.
        messages_per_second: f64,
        /// Messages that wait for each other and leave in one send.
        packets_per_send: u32,
    },
    /// One send after another without a pause.
    FlatOut {
        /// Messages of one send.
        packets_per_send: u32,
    },
}

impl Pattern {
    /// One message a second.
    pub const ONE_A_SECOND: Self = Self::Paced { messages_per_second: 1.0, packets_per_send: 1 };
    /// 40 messages a second, each sent when it comes.
    pub const FORTY_AS_THEY_COME: Self = Self::Paced { messages_per_second: 40.0, packets_per_send: 1 };
    /// 40 messages a second, sent once a second.
    pub const FORTY_MERGED: Self = Self::Paced { messages_per_second: 40.0, packets_per_send: 40 };
    /// Without a pause, 256 messages a send.
    pub const FLAT_OUT: Self = Self::FlatOut { packets_per_send: 256 };
    /// The five that a sign-off compares with.
    pub const ALL: [Self; 5] =
        [Self::Accept, Self::ONE_A_SECOND, Self::FORTY_AS_THEY_COME, Self::FORTY_MERGED, Self::FLAT_OUT];

    /// Messages of one send; 0 when there is none.
    #[must_use]
    pub fn packets_per_send(self) -> u32 {
        match self {
            Self::Accept => 0,
            Self::Paced { packets_per_send, .. } | Self::FlatOut { packets_per_send } => packets_per_send,
        }
    }

    fn check(self) -> Result<(), FloorError> {
        if self != Self::Accept && !(1..=MAX_PACKETS_PER_SEND).contains(&self.packets_per_send()) {
            let packets = self.packets_per_send();
            return Err(FloorError::Options(format!("{packets} packets in one send: 1 to {MAX_PACKETS_PER_SEND}")));
        }
        match self {
            Self::Paced { messages_per_second: rate, .. } if !(rate > 0.0 && rate <= 1e6) => {
                Err(FloorError::Options(format!("{rate} messages a second: more than 0, at most a million")))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match *self {
            Self::Accept => "accept only".to_owned(),
            Self::Paced { messages_per_second, packets_per_send: 1 } => format!("{messages_per_second}/s"),
            Self::Paced { messages_per_second, packets_per_send } => {
                format!("{messages_per_second}/s, {packets_per_send} in one")
            }
            Self::FlatOut { packets_per_send } => format!("flat out, {packets_per_send} in one"),
        };
        f.pad(&words)
    }
}

/// A server and its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloorOptions {
    /// The `perf-tests` program, which is started again as the server.
    pub binary: PathBuf,
    /// The server's way to the kernel.
    pub path: SendPath,
    /// Clients in all.
    pub clients: u32,
    /// Threads of the server.
    pub server_threads: usize,
    /// Threads of the clients.
    pub client_threads: usize,
    /// Length of each message's body, the stamp included.
    pub body_bytes: usize,
}

impl FloorOptions {
    /// As many threads on either side as there are CPUs, or as the clients need descriptor tables; bodies that hold
    /// a stamp and nothing else.
    #[must_use]
    pub fn new(binary: PathBuf, path: SendPath, clients: u32) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from).min(clients.max(1) as usize);
        let limit = descriptor_limit();
        Self {
            binary,
            path,
            clients,
            server_threads: cpus.max(server_threads_for(clients, limit) as usize),
            client_threads: cpus.max(threads_for(clients, limit) as usize),
            body_bytes: STAMP_BYTES,
        }
    }

    /// Judges the numbers before anything is opened. Only clients that are sockets need descriptors.
    pub(super) fn check(&self, are_sockets: bool) -> Result<(), FloorError> {
        let counts = [
            ("clients", u64::from(self.clients)),
            ("server threads", self.server_threads as u64),
            ("client threads", self.client_threads as u64),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(FloorError::Options(format!("{name} must be at least 1")));
        }
        if !(STAMP_BYTES..=4096).contains(&self.body_bytes) {
            let bytes = self.body_bytes;
            return Err(FloorError::Options(format!("a body of {bytes} bytes: {STAMP_BYTES} (the stamp) to 4096")));
        }
        let (clients, limit) = (self.clients, descriptor_limit());
        let server = u64::from(clients) * (100 + UNEVENNESS_PERCENT) / 100;
        for (threads, descriptors, enough) in [
            (self.server_threads, server, server_threads_for(clients, limit)),
            (self.client_threads, if are_sockets { u64::from(clients) } else { 0 }, threads_for(clients, limit)),
        ] {
            let each = descriptors.div_ceil(threads as u64) + SPARE_DESCRIPTORS;
            if each > limit {
                return Err(FloorError::Descriptors { clients, threads, each, limit, enough });
            }
        }
        Ok(())
    }

    /// As [`FloorOptions::check`], for one pattern.
    pub(super) fn check_pattern(&self, pattern: Pattern) -> Result<(), FloorError> {
        pattern.check()
    }
}

fn server_threads_for(clients: u32, limit: u64) -> u64 {
    let uneven = u64::from(clients) * (100 + UNEVENNESS_PERCENT) / 100;
    uneven.div_ceil(limit.saturating_sub(SPARE_DESCRIPTORS).max(1))
}

/// Descriptors that one table may hold now.
fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_said_before_anything_is_opened() {
        let good = FloorOptions::new(PathBuf::from("perf-tests"), SendPath::Send, 100);
        good.check(true).unwrap();
        let rows = [
            (FloorOptions { clients: 0, ..good.clone() }, "clients must be at least 1"),
            (FloorOptions { server_threads: 0, ..good.clone() }, "server threads must be at least 1"),
            (FloorOptions { body_bytes: 12, ..good.clone() }, "a body of 12 bytes"),
            (FloorOptions { clients: u32::MAX, ..good.clone() }, "RLIMIT_NOFILE"),
        ];
        for (options, words) in rows {
            let error = options.check(true).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        for pattern in Pattern::ALL {
            good.check_pattern(pattern).unwrap();
        }
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let pattern = Pattern::Paced { messages_per_second: rate, packets_per_send: 1 };
            assert!(good.check_pattern(pattern).is_err(), "{rate}");
        }
        assert!(good.check_pattern(Pattern::FlatOut { packets_per_send: 0 }).is_err());
    }

    #[test]
    fn many_clients_get_threads_enough() {
        for clients in [1, 100, 1_000_000] {
            FloorOptions::new(PathBuf::from("perf-tests"), SendPath::Ring, clients).check(true).unwrap();
        }
    }
}
