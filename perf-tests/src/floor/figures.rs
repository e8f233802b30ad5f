//! What a measurement found, and what several of the same say together.

use serde::{Deserialize, Serialize};

use super::options::{FloorOptions, Pattern, SendPath};
use super::orders::Sent;
use crate::load::engine::Tally;
use crate::load::report::Percentiles;
use crate::meter::{Difference, TcpCounts};

/// The server's name in samples.
pub(super) const SERVER: &str = "server";

/// Our own, with the clients' threads.
pub(super) const CLIENTS: &str = "clients";

/// One measurement of one pattern on one path. Figures per message are 0 when no message was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorFigures {
    /// The server's way to the kernel.
    pub path: SendPath,
    /// The pattern.
    pub pattern: Pattern,
    /// Clients that were connected.
    pub clients: u32,
    /// Threads of the server.
    pub server_threads: usize,
    /// Server's CPU time per client to accept it, read its auth and answer; with [`Pattern::Accept`] to accept it.
    pub connect_cpu_us: f64,
    /// Clients connected per second.
    pub connects_per_second: f64,
    /// Growth of the server's resident memory per client.
    pub rss_bytes_per_client: f64,
    /// Growth of the kernel's slab per client: both ends of each connection.
    pub slab_bytes_per_client: f64,
    /// Messages sent, each to every client.
    pub messages: u64,
    /// Messages owed to clients.
    pub due: u64,
    /// Of these, heard: by the clients' books, each once and in order.
    pub received: u64,
    /// Received by due; `None` when nothing was due.
    pub completeness: Option<f64>,
    /// From the first write to the last receipt.
    pub seconds: f64,
    /// Received by that time.
    pub delivered_per_second: f64,
    /// Server's CPU time per received message.
    pub cpu_us_per_delivered: f64,
    /// Clients' CPU time per received message. What the kernel does for a receiver within the sender's call is the
    /// server's.
    pub clients_cpu_us_per_delivered: f64,
    /// Server's CPU time over the messages, in seconds.
    pub cpu_seconds: f64,
    /// From a message's stamp to each receiver, in microseconds.
    pub delay_us: Option<Percentiles>,
    /// From a message's stamp to the last of its receivers, in microseconds: one time per message.
    pub last_receiver_us: Option<Percentiles>,
    /// Times that the server's threads gave up the CPU to wait.
    pub voluntary_switches: u64,
    /// Times that the server's threads lost the CPU to others.
    pub involuntary_switches: u64,
    /// Writes to sockets.
    pub writes: u64,
    /// System calls that they took: with io_uring one for many.
    pub system_calls: u64,
    /// Writes of which the socket took only a part, or nothing, and which were made good.
    pub short_writes: u64,
    /// Writes per second of the server's CPU time.
    pub writes_per_cpu_second: f64,
    /// Received messages per write.
    pub messages_per_write: f64,
    /// What the host's TCP counted over the messages.
    pub tcp: TcpCounts,
}

impl FloorFigures {
    /// What the connecting alone has shown, which took `seconds`.
    pub(super) fn of_connecting(
        options: &FloorOptions,
        pattern: Pattern,
        connecting: &Difference,
        seconds: f64,
    ) -> Self {
        let server = connecting.processes.get(SERVER).copied().unwrap_or_default();
        let each = |figure: f64| figure / f64::from(options.clients);
        Self {
            path: options.path,
            pattern,
            clients: options.clients,
            server_threads: options.server_threads,
            connect_cpu_us: each(server.cpu_ns as f64 / 1000.0),
            connects_per_second: ratio(f64::from(options.clients), seconds),
            rss_bytes_per_client: each(server.rss_bytes as f64),
            slab_bytes_per_client: each(connecting.slab_bytes as f64),
            messages: 0,
            due: 0,
            received: 0,
            completeness: None,
            seconds: 0.0,
            delivered_per_second: 0.0,
            cpu_us_per_delivered: 0.0,
            clients_cpu_us_per_delivered: 0.0,
            cpu_seconds: 0.0,
            delay_us: None,
            last_receiver_us: None,
            voluntary_switches: 0,
            involuntary_switches: 0,
            writes: 0,
            system_calls: 0,
            short_writes: 0,
            writes_per_cpu_second: 0.0,
            messages_per_write: 0.0,
            tcp: connecting.tcp,
        }
    }

    /// With what the messages have shown.
    pub(super) fn with_messages(self, sent: &Sent, tally: &Tally, spent: &Difference) -> Self {
        let server = spent.processes.get(SERVER).copied().unwrap_or_default();
        let received = tally.counts.received as f64;
        let seconds = tally.heard_until_ns.saturating_sub(sent.began_ns) as f64 / 1e9;
        let cpu_seconds = server.cpu_ns as f64 / 1e9;
        let clients_us = spent.cpu_ns(|name| name == CLIENTS) as f64 / 1000.0;
        let balance = tally.balance;
        Self {
            messages: u64::from(sent.messages),
            due: balance.due,
            received: tally.counts.received,
            completeness: (balance.due > 0).then(|| 1.0 - balance.missing as f64 / balance.due as f64),
            seconds,
            delivered_per_second: ratio(received, seconds),
            cpu_us_per_delivered: ratio(cpu_seconds * 1e6, received),
            clients_cpu_us_per_delivered: ratio(clients_us, received),
            cpu_seconds,
            delay_us: Percentiles::of(&tally.delay_us),
            last_receiver_us: Percentiles::of(&tally.last_receiver_us),
            voluntary_switches: server.voluntary_switches,
            involuntary_switches: server.involuntary_switches,
            writes: sent.writes,
            system_calls: sent.system_calls,
            short_writes: sent.short_writes,
            writes_per_cpu_second: ratio(sent.writes as f64, cpu_seconds),
            messages_per_write: ratio(received, sent.writes as f64),
            tcp: spent.tcp,
            ..self
        }
    }
}

/// 0 when there is nothing to divide by.
pub(super) fn ratio(of: f64, by: f64) -> f64 {
    if by > 0.0 { of / by } else { 0.0 }
}

/// A figure over several measurements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The one in the middle, or the mean of the two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of `values`, of which none is NaN; zeros when there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else { return Self::default() };
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) };
        Self { median, min: *min, max: *max }
    }

    /// Half the distance from the least to the greatest, as a part of the median; 0 when that is 0.
    #[must_use]
    pub fn noise(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / 2.0 / self.median }
    }
}

/// Several measurements of one pattern on one path, figure by figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloorSummary {
    /// The server's way to the kernel.
    pub path: SendPath,
    /// The pattern.
    pub pattern: Pattern,
    /// Clients of each.
    pub clients: u32,
    /// Measurements.
    pub repeats: usize,
    /// Server's CPU time per client to connect it.
    pub connect_cpu_us: Spread,
    /// Growth of the server's resident memory per client.
    pub rss_bytes_per_client: Spread,
    /// Server's CPU time per received message.
    pub cpu_us_per_delivered: Spread,
    /// Messages received per second.
    pub delivered_per_second: Spread,
    /// The worst of all; `None` when nothing was due.
    pub completeness: Option<f64>,
    /// Half of the receipts were not later.
    pub delay_p50_us: Spread,
    /// 99 of 100 receipts were not later.
    pub delay_p99_us: Spread,
    /// Half of the messages had reached everybody by then.
    pub last_receiver_p50_us: Spread,
    /// 99 of 100 messages had reached everybody by then.
    pub last_receiver_p99_us: Spread,
    /// Every message had reached everybody by then.
    pub last_receiver_max_us: Spread,
    /// Writes per second of the server's CPU time.
    pub writes_per_cpu_second: Spread,
    /// Received messages per write.
    pub messages_per_write: Spread,
    /// Times that the server's threads lost the CPU, per 100,000 received messages.
    pub involuntary_switches_per_100k: Spread,
}

impl FloorSummary {
    /// Of measurements of the same; `None` when there are none.
    #[must_use]
    pub fn of(all: &[FloorFigures]) -> Option<Self> {
        let first = all.first()?;
        let over = |figure: fn(&FloorFigures) -> f64| Spread::of(all.iter().map(figure));
        let completeness = all.iter().filter_map(|figures| figures.completeness).reduce(f64::min);
        Some(Self {
            path: first.path,
            pattern: first.pattern,
            clients: first.clients,
            repeats: all.len(),
            connect_cpu_us: over(|f| f.connect_cpu_us),
            rss_bytes_per_client: over(|f| f.rss_bytes_per_client),
            cpu_us_per_delivered: over(|f| f.cpu_us_per_delivered),
            delivered_per_second: over(|f| f.delivered_per_second),
            completeness,
            delay_p50_us: over(|f| f.delay_us.map_or(0.0, |delay| delay.p50 as f64)),
            delay_p99_us: over(|f| f.delay_us.map_or(0.0, |delay| delay.p99 as f64)),
            last_receiver_p50_us: over(|f| f.last_receiver_us.map_or(0.0, |delay| delay.p50 as f64)),
            last_receiver_p99_us: over(|f| f.last_receiver_us.map_or(0.0, |delay| delay.p99 as f64)),
            last_receiver_max_us: over(|f| f.last_receiver_us.map_or(0.0, |delay| delay.max as f64)),
            writes_per_cpu_second: over(|f| f.writes_per_cpu_second),
            messages_per_write: over(|f| f.messages_per_write),
            involuntary_switches_per_100k: over(|f| {
                if f.received == 0 { 0.0 } else { f.involuntary_switches as f64 * 1e5 / f.received as f64 }
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let rows: [(&[f64], [f64; 3]); 4] = [
            (&[], [0.0, 0.0, 0.0]),
            (&[4.0], [4.0, 4.0, 4.0]),
            (&[9.0, 1.0, 2.0], [2.0, 1.0, 9.0]),
            (&[1.0, 5.0, 3.0, 100.0], [4.0, 1.0, 100.0]),
        ];
        for (values, [median, min, max]) in rows {
            assert_eq!(Spread::of(values.iter().copied()), Spread { median, min, max });
        }
        assert!((Spread { median: 10.0, min: 9.0, max: 12.0 }.noise() - 0.15).abs() < 1e-12);
    }
}
