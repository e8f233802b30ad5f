//! What the tier counts, as Prometheus text.
//!
//! Labels come from closed lists in this file: nothing that a peer chooses becomes a label.

use std::fmt::Write;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// An enum whose variants are values of a label, each with its text.
macro_rules! label_values {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$what:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$what])* $variant,)* }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                encoder.write_str(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

label_values! {
    /// Whom a push was for.
    pub enum Kind {
        /// `/goim/push/keys`
        Keys = "keys",
        /// `/goim/push/mids`
        Mids = "mids",
        /// `/goim/push/room`
        Room = "room",
        /// `/goim/push/all`
        All = "all",
    }
}

label_values! {
    /// What became of a push.
    pub enum PushResult {
        /// The bus has it.
        Accepted = "accepted",
        /// It was not what the API asks for.
        Refused = "refused",
        /// The bus was busy or failed.
        Failed = "failed",
    }
}

/// Labels of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PushLabels {
    /// Whom it was for.
    pub kind: Kind,
    /// What became of it.
    pub result: PushResult,
}

label_values! {
    /// Why an HTTP request was refused.
    pub enum RequestRefusal {
        /// No key, or a wrong one.
        ApiKey = "api_key",
        /// A parameter is missing or wrong.
        Parameter = "parameter",
        /// The operation belongs to the protocol.
        Operation = "operation",
        /// The message is too long.
        TooLarge = "too_large",
        /// The message did not arrive whole, or not in time.
        Incomplete = "incomplete",
        /// Too much waits for the disk.
        Busy = "busy",
        /// The bus failed or is closed.
        Bus = "bus",
    }
}

label_values! {
    /// Why a line was refused or closed.
    pub enum LineEnd {
        /// The edge closed it.
        Closed = "closed",
        /// No `Hello` in time.
        NoHello = "no_hello",
        /// A `Hello` that is not welcome.
        Refused = "refused",
        /// It said nothing for too long.
        Silent = "silent",
        /// It took nothing for too long.
        Stuck = "stuck",
        /// It sent what cannot be read.
        Malformed = "malformed",
        /// The socket failed.
        Socket = "socket",
        /// A newer run of the edge came.
        Replaced = "replaced",
        /// Too many lines.
        TooMany = "too_many",
        /// The tier stops.
        Stopping = "stopping",
    }
}

label_values! {
    /// What became of a client that wants in, or of its message.
    pub enum Outcome {
        /// Granted, or in the bus.
        Ok = "ok",
        /// The token is missing.
        TokenMissing = "token_missing",
        /// The token has expired.
        TokenExpired = "token_expired",
        /// The token is not ours, or damaged.
        TokenInvalid = "token_invalid",
        /// The token is for another user.
        OtherMid = "other_mid",
        /// The token does not allow the room.
        OtherRoom = "other_room",
        /// The room's name cannot be used.
        BadRoom = "bad_room",
        /// The key or the list of operations is too long.
        BadRequest = "bad_request",
        /// The message is too long.
        TooLarge = "too_large",
        /// The bus did not take it.
        Bus = "bus",
    }
}

label_values! {
    /// Why a session event was not taken.
    pub enum SessionRefusal {
        /// Its place is not the 32 digits of a key.
        Place = "place",
        /// It is about a place that has no session.
        Unknown = "unknown",
        /// There are as many sessions as the config allows.
        Full = "full",
        /// The room's name cannot be used.
        Room = "room",
        /// A later line of the edge has begun a full picture.
        Superseded = "superseded",
        /// The key is too long.
        Key = "key",
    }
}

/// Label of a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabel {
    /// From a closed list.
    pub reason: RequestRefusal,
}

/// Label of a line that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LineLabel {
    /// From a closed list.
    pub reason: LineEnd,
}

/// Label of a session event that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SessionLabel {
    /// From a closed list.
    pub reason: SessionRefusal,
}

/// One label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// From a closed list.
    pub outcome: Outcome,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Pushes by kind and result.
    pub pushes: Family<PushLabels, Counter>,
    /// Requests that were refused, by reason.
    pub requests_refused: Family<RequestLabel, Counter>,
    /// Records appended to the bus.
    pub bus_appends: Counter,
    /// Transactions of the bus.
    pub bus_commits: Counter,
    /// Seconds that a transaction took, its sync to disk included.
    pub bus_commit_seconds: Histogram,
    /// Records that retention removed.
    pub bus_trimmed: Counter,
    /// Bytes of the records that the bus holds.
    pub bus_retained_bytes: Gauge,
    /// Lines that are up.
    pub lines: Gauge,
    /// Edges with at least one line.
    pub edges: Gauge,
    /// Lines that ended, by reason.
    pub line_ends: Family<LineLabel, Counter>,
    /// Push frames sent, over all lines.
    pub frames_sent: Counter,
    /// Bytes sent, over all lines.
    pub bytes_sent: Counter,
    /// Push frames that were read from the bus for one line.
    pub replays: Counter,
    /// Positions that edges were told are lost.
    pub lost: Counter,
    /// Positions that edges have yet to acknowledge, the furthest behind of them.
    pub ack_lag: Gauge,
    /// Clients that wanted in, by outcome.
    pub auths: Family<OutcomeLabel, Counter>,
    /// Clients' messages by outcome.
    pub chats: Family<OutcomeLabel, Counter>,
    /// Sessions known.
    pub sessions: Gauge,
    /// Rooms with at least one session.
    pub rooms: Gauge,
    /// Distinct addresses of sessions.
    pub addresses: Gauge,
    /// Sessions closed because their key came again.
    pub keys_taken: Counter,
    /// Session events not taken, by reason.
    pub sessions_refused: Family<SessionLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("logic");
        macro_rules! register {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        Self {
            pushes: register!("pushes", "Pushes by kind and result", Family::default()),
            requests_refused: register!("requests_refused", "HTTP requests refused, by reason", Family::default()),
            bus_appends: register!("bus_appends", "Records appended to the bus", Counter::default()),
            bus_commits: register!("bus_commits", "Transactions of the bus", Counter::default()),
            bus_commit_seconds: register!(
                "bus_commit_seconds",
                "Duration of a bus transaction with its sync to disk",
                // 100 us to 6.5 s.
                Histogram::new(exponential_buckets(0.0001, 3.0, 11))
            ),
            bus_trimmed: register!("bus_trimmed", "Records removed by retention", Counter::default()),
            bus_retained_bytes: register!("bus_retained_bytes", "Bytes of the records in the bus", Gauge::default()),
            lines: register!("lines", "Trunk lines that are up", Gauge::default()),
            edges: register!("edges", "Edges with at least one line", Gauge::default()),
            line_ends: register!("line_ends", "Trunk lines that ended, by reason", Family::default()),
            frames_sent: register!("frames_sent", "Push frames sent over all lines", Counter::default()),
            bytes_sent: register!("bytes_sent", "Bytes sent over all lines", Counter::default()),
            replays: register!("replays", "Push frames read from the bus for one line", Counter::default()),
            lost: register!("lost", "Positions that edges were told are lost", Counter::default()),
            ack_lag: register!(
                "ack_lag",
                "Positions not yet acknowledged, of the edge furthest behind",
                Gauge::default()
            ),
            auths: register!("auths", "Clients that wanted in, by outcome", Family::default()),
            chats: register!("chats", "Messages of clients, by outcome", Family::default()),
            sessions: register!("sessions", "Sessions known", Gauge::default()),
            rooms: register!("rooms", "Rooms with at least one session", Gauge::default()),
            addresses: register!("addresses", "Distinct addresses of sessions", Gauge::default()),
            keys_taken: register!("keys_taken", "Sessions closed because their key came again", Counter::default()),
            sessions_refused: register!("sessions_refused", "Session events not taken, by reason", Family::default()),
            registry,
        }
    }
}

impl Metrics {
    /// Counts one of `reason`.
    pub fn refuse(&self, reason: RequestRefusal) {
        self.requests_refused.get_or_create(&RequestLabel { reason }).inc();
    }

    /// Everything, in the text format of Prometheus (OpenMetrics).
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a string does not fail.
            Err(std::fmt::Error) => String::new(),
        }
    }
}
