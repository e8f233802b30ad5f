//! The result of a run, as it is printed, saved, compared and signed off.
//!
//! The JSON form is an interface: a field is never renamed or given another meaning under the same [`SCHEMA`]; new ones
//! may be added. Times say their unit in their name; counts are exact, never sampled.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::behaviour::Order;
use super::scenario::{Publish, Scenario};

/// Version of the JSON form.
pub const SCHEMA: u32 = 1;

/// All that a run found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of whoever wrote it.
    pub schema: u32,
    /// What held the clients: `socket`.
    pub engine: String,
    /// Where it ran.
    pub host: Host,
    /// What was asked for, without credentials.
    pub scenario: Scenario,
    /// Run number in the messages' stamps; 0 when none was heard or published.
    pub run: u32,
    /// Whether somebody ended it early; the counts are then those up to there.
    pub interrupted: bool,
    /// Connecting and joining.
    pub connections: Connections,
    /// Publishing; `null` when the run only listened.
    pub published: Option<PublishedReport>,
    /// What the clients heard.
    pub messages: Messages,
    /// From the publisher's request to the client's read; `null` when nothing was heard.
    pub delay_us: Option<Percentiles>,
    /// From the publisher's request to the last of a message's receivers, one time per message; `null` when nothing was
    /// heard.
    #[serde(default)]
    pub last_receiver_us: Option<Percentiles>,
    /// Heartbeats.
    pub heartbeats: Heartbeats,
    /// Segments that did not go as they should.
    #[serde(default)]
    pub segments: Segments,
    /// Clients that were told not to read as they should, and what the server did with them.
    #[serde(default)]
    pub astray: AstrayReport,
    /// Clients that went and came back.
    #[serde(default)]
    pub returns: ReturnsReport,
    /// The phases one by one; the fields above are their sums.
    #[serde(default)]
    pub phases: Vec<PhaseReport>,
    /// What is wrong, in words; empty when the run passed.
    pub faults: Vec<String>,
}

/// What one phase found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// As it was named.
    pub name: String,
    /// From its opening to its line.
    pub seconds: f64,
    /// What was asked for; `null` when it only listened.
    pub publish: Option<Publish>,
    /// Orders given to the clients, and how many each told to do so.
    pub orders: Vec<OrderReport>,
    /// Clients that were owed the phase's messages at its opening.
    pub members: u64,
    /// Publishing; `null` when the phase only listened.
    pub published: Option<PublishedReport>,
    /// What the clients heard.
    pub messages: Messages,
    /// From the publisher's request to the client's read; `null` when nothing was heard.
    pub delay_us: Option<Percentiles>,
    /// From the publisher's request to the last of a message's receivers, one time per message; `null` when nothing was
    /// heard.
    #[serde(default)]
    pub last_receiver_us: Option<Percentiles>,
    /// Heartbeats.
    pub heartbeats: Heartbeats,
    /// Segments that did not go as they should.
    #[serde(default)]
    pub segments: Segments,
    /// Clients closed by the server, those told to behave badly left out, by reason.
    pub closed: BTreeMap<String, u64>,
    /// Clients that were told not to read as they should.
    pub astray: AstrayReport,
    /// Clients that went and came back.
    pub returns: ReturnsReport,
}

/// An order that was given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OrderReport {
    /// Since the phase was opened.
    pub at_seconds: f64,
    /// What was ordered.
    pub order: Order,
    /// How many clients that told to do something at once.
    pub clients: u64,
}

/// What became of clients that were told not to read as they should.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FateReport {
    /// Clients told so.
    pub clients: u64,
    /// Of these, closed by the server, by reason.
    pub closed_by_server: BTreeMap<String, u64>,
    /// Of these, still connected in the end.
    pub stuck: u64,
}

/// Clients that were told not to read as they should. They are owed nothing, so nothing that they missed is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AstrayReport {
    /// Those that read nothing, but say that they are alive.
    pub stopped: FateReport,
    /// Those that read a little at a time.
    pub slow: FateReport,
    /// Those that neither read, nor say that they are alive, nor close.
    pub silent: FateReport,
    /// Clients that vanished without a FIN.
    pub vanished: u64,
    /// Different messages that these heard all the same.
    pub received: u64,
    /// Times that one of these heard a later message than the next.
    pub gaps: u64,
}

/// Clients that went of their own will, and came back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReturnsReport {
    /// Goodbyes in order: a close frame, the end of the stream, and reading until the server closes.
    pub left_orderly: u64,
    /// Of these, those that the server had not answered by closing when the client gave up.
    pub unanswered: u64,
    /// Goodbyes by reset.
    pub left_reset: u64,
    /// Times that a client was granted again.
    pub back: u64,
    /// Attempts that failed, by reason. Each was followed by another.
    pub failed: BTreeMap<String, u64>,
    /// Clients still on their way back in the end.
    pub not_back: u64,
    /// From the moment that a client wanted to come back to its grant, failed attempts included; `null` when nobody came.
    pub back_us: Option<Percentiles>,
}

/// Where a run took place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Processors that the generator could use; the daemons may have shared them.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
}

/// Connecting and joining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// Clients asked for.
    pub wanted: u64,
    /// Clients whose auth was granted.
    pub joined: u64,
    /// Clients that never got there, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Clients that joined and were closed before the end, by reason.
    pub closed: BTreeMap<String, u64>,
    /// From the first connect until nobody was under way any more.
    pub build_seconds: f64,
    /// Joined clients by that time.
    pub joined_per_second: f64,
    /// From the connect to the grant; `null` when nobody joined.
    pub join_us: Option<Percentiles>,
    /// Connects begun in each second since the start, those of clients that come back included.
    #[serde(default)]
    pub begun_by_second: Vec<u32>,
}

/// Publishing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedReport {
    /// Messages accepted by the tier.
    pub accepted: u64,
    /// Messages refused by it, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Requests without an answer, by reason: nobody knows whether these were accepted.
    pub unanswered: BTreeMap<String, u64>,
    /// Messages never sent.
    pub unsent: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Accepted messages by that time.
    pub accepted_per_second: f64,
}

/// What the clients heard, against what they were due.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Messages {
    /// Messages owed: per stream, accepted ones times members. When somebody else publishes: per client, from the first
    /// that it heard to the last that anybody in its room heard. A client that comes in the middle is owed what follows
    /// the first that it hears, and at least each whose request began after its grant was read; one that goes of its own
    /// will is owed what it has heard the end of.
    pub due: u64,
    /// Different messages heard.
    pub received: u64,
    /// Messages owed and never heard.
    pub missing: u64,
    /// 1 - missing / due; `null` when nothing was due, which shows nothing.
    pub completeness: Option<f64>,
    /// Times that a client heard a later message than the one due.
    pub gaps: u64,
    /// Messages heard again.
    pub duplicates: u64,
    /// Messages heard after a later one of the same room.
    pub order_faults: u64,
    /// Missing numbers not remembered singly; a late one among them was counted as a duplicate.
    pub unremembered: u64,
    /// Messages that reached a client of another room.
    pub misrouted: u64,
    /// Messages that no publisher of this run made.
    pub foreign: u64,
    /// Messages under way when a client went of its own will: it may have been in time for them or not, so they are
    /// neither due nor missing.
    pub in_doubt: u64,
    /// Messages of an earlier phase, where they counted as missing if they were owed.
    pub stragglers: u64,
    /// Clients that miss at least one message.
    pub incomplete_clients: u64,
    /// Clients that heard nothing although their room was spoken to.
    pub silent_clients: u64,
    /// From the start of publishing, or listening, to the last message heard.
    pub seconds: f64,
    /// Received by that time.
    pub received_per_second: f64,
    /// The best second, as seen by the display's clock.
    pub peak_per_second: f64,
    /// Bytes that came over the whole run, framing and replies included.
    pub bytes_received: u64,
}

/// Heartbeats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeats {
    /// Sent.
    pub sent: u64,
    /// Answered. One under way at the end has no answer.
    pub answered: u64,
    /// Replies without a heartbeat before them.
    #[serde(default)]
    pub unasked: u64,
    /// Heartbeats that came due, to clients that read, while the one before was not answered yet.
    #[serde(default)]
    pub overdue: u64,
}

/// Segments of the server's, with data, as clients made of XDP see them. Those with sockets see none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    /// Lost, as the scenario asks for.
    pub lost: u64,
    /// Acknowledged later, as the scenario asks for.
    pub late: u64,
    /// Come again with nothing new.
    pub repeated: u64,
}

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many times were taken.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Half were not above it.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p99_9: u64,
    /// The longest.
    pub max: u64,
}

impl Percentiles {
    /// `None` when nothing was recorded.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        })
    }
}

impl Report {
    /// Judges the counts. Losses are forgiven with `tolerate_loss`; a duplicate, a message in another room, or one out of
    /// order where there is an order, never is.
    #[must_use]
    pub fn judge(&self, tolerate_loss: bool) -> Vec<String> {
        let (connections, messages) = (&self.connections, &self.messages);
        let published = self.published.as_ref();
        let refused: u64 = published.map_or(0, |p| p.refused.values().sum());
        let unanswered: u64 = published.map_or(0, |p| p.unanswered.values().sum());
        let closed: u64 = connections.closed.values().sum();
        let is_ordered = self.scenario.publish.as_ref().is_none_or(|publish| publish.abreast == 1);
        let rows = [
            (true, "messages missing", messages.missing),
            (true, "clients not joined", connections.wanted - connections.joined.min(connections.wanted)),
            (true, "clients closed before the end", closed),
            (true, "pushes refused", refused),
            (true, "pushes without an answer", unanswered),
            (true, "pushes not sent", published.map_or(0, |p| p.unsent)),
            (true, "clients not back", self.returns.not_back),
            (false, "duplicates", messages.duplicates),
            (false, "messages out of order", if is_ordered { messages.order_faults } else { 0 }),
            (false, "messages in the wrong room", messages.misrouted),
            (false, "heartbeat replies that nobody asked for", self.heartbeats.unasked),
        ];
        let mut faults: Vec<String> = rows
            .into_iter()
            .filter(|(is_loss, _, count)| *count > 0 && !(*is_loss && tolerate_loss))
            .map(|(_, what, count)| format!("{count} {what}"))
            .collect();
        let silence_was_asked_for = self.scenario.publish.as_ref().is_some_and(|publish| publish.messages == 0);
        if messages.due == 0 && !silence_was_asked_for && !tolerate_loss {
            faults.push("no message was due, so nothing was shown".to_owned());
        }
        faults
    }
}
