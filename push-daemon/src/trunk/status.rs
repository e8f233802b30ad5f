//! What the trunk counts and how its lines are, for metrics, the page and tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use wire::trunk::IspReport;

use crate::kernel::Measurement;

/// Figures of the trunk. Those in `_total` only grow.
#[derive(Debug, Default)]
pub struct TrunkStatus {
    /// Frames with packets.
    pub frames_total: AtomicU64,
    /// Packets that were new.
    pub packets_total: AtomicU64,
    /// Frames in which nothing was new: the second copy of two lines, or a replay.
    pub duplicates_total: AtomicU64,
    /// Frames before which something was missing.
    pub gaps_total: AtomicU64,
    /// Lines that were started again from our position because of a gap.
    pub replays_total: AtomicU64,
    /// Positions that the bus no longer held when we came back.
    pub lost_total: AtomicU64,
    /// Frames that no tier of ours sends.
    pub malformed_total: AtomicU64,
    /// Times that the bus turned out to be another one.
    pub bus_changes_total: AtomicU64,
    /// Orders that had to wait because a shard's queue was full; each is counted once, however long it waited.
    pub order_queue_full_total: AtomicU64,
    /// Clients that were let in.
    pub admitted_total: AtomicU64,
    /// Clients that admission refused.
    pub refused_total: AtomicU64,
    /// Messages of clients that the bus took.
    pub messages_accepted_total: AtomicU64,
    /// Messages of clients that were refused.
    pub messages_refused_total: AtomicU64,
    /// Full pictures of the sessions that were sent.
    pub resyncs_total: AtomicU64,
    /// Compressed forms of batches that were made.
    pub compressed_batches_total: AtomicU64,
    /// Bytes of those batches before.
    pub compress_plain_bytes_total: AtomicU64,
    /// Bytes of those batches after.
    pub compress_bytes_total: AtomicU64,
    /// Nanoseconds that compression took, of those that were not worth keeping too.
    pub compress_ns_total: AtomicU64,
    /// Auth requests and messages without an answer.
    pub pending: AtomicU64,
    /// The lines, in the order of the settings.
    pub lines: Vec<LineStatus>,
    /// What connections see by ISP, to be reported upstream: put in now and then by whoever looks after the kernel plane.
    pub isps: Mutex<Vec<IspReport>>,
}

/// How one line is.
#[derive(Debug)]
pub struct LineStatus {
    /// As in the settings.
    pub name: String,
    /// As in the settings.
    pub address: String,
    /// Welcomed and not ended.
    pub up: AtomicBool,
    /// Times that it was welcomed.
    pub welcomes_total: AtomicU64,
}

impl TrunkStatus {
    /// All zero, with these lines down.
    #[must_use]
    pub fn new(lines: &[crate::config::Line]) -> Self {
        let lines = lines
            .iter()
            .map(|line| LineStatus {
                name: line.name.clone(),
                address: line.address.clone(),
                up: AtomicBool::new(false),
                welcomes_total: AtomicU64::new(0),
            })
            .collect();
        Self { lines, ..Self::default() }
    }

    /// Puts in what connections see, of ISPs that had any.
    pub(crate) fn report_isps(&self, measurements: &[Measurement]) {
        let seen = measurements.iter().filter(|measurement| measurement.opened != 0);
        let reports = seen.map(|measurement| IspReport {
            name: measurement.name.clone(),
            opened: measurement.opened,
            closed: measurement.closed,
            segments: measurement.sampled_segments,
            retransmissions: measurement.sampled_retransmissions,
            rtt_count: measurement.rtt_count,
            rtt_sum_us: measurement.rtt_sum_us,
        });
        *self.isps.lock().unwrap_or_else(PoisonError::into_inner) = reports.collect();
    }

    /// Whether any line is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.lines.iter().any(|line| line.up.load(Relaxed))
    }
}

/// One more.
pub(crate) fn count(figure: &AtomicU64) {
    figure.fetch_add(1, Relaxed);
}
