//! What a line is told: answers first, then room counts, then frames of each partition in turn.
//!
//! It keeps a position per partition and one buffer, and stops at the socket when the edge does not take more.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};
use wire::trunk::{self, Lost, Ping, TierFrame, tier_frame};

use super::{Trunk, counts};
use crate::job::ready::Next;
use crate::metrics::LineEnd;

/// Bytes that are gathered before the socket gets them.
const GATHER_BYTES: usize = 64 << 10;

/// A frame at least this long goes to the socket as it is, not by way of the buffer.
const DIRECT_BYTES: usize = 16 << 10;

pub(super) struct Writer<W> {
    pub(super) trunk: Arc<Trunk>,
    pub(super) socket: W,
    /// The position of the line in each partition.
    pub(super) cursors: Vec<u64>,
    pub(super) answers: mpsc::Receiver<TierFrame>,
    pub(super) counts: broadcast::Receiver<Arc<[Bytes]>>,
    pub(super) news: watch::Receiver<u64>,
    pub(super) ping_interval: Duration,
    pub(super) out: BytesMut,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Runs until the line cannot be written to.
    pub(super) async fn run(mut self) -> LineEnd {
        match self.write_on().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn write_on(&mut self) -> Result<std::convert::Infallible, LineEnd> {
        let mut ping = tokio::time::interval(self.ping_interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let all = self.trunk.sessions().all_counts();
        self.send_counts(&counts::frames(all)).await?;
        let mut pings = 0;
        loop {
            // Seen before the frames are looked at, so that none can become ready unseen in between.
            self.news.mark_unchanged();
            self.gather_answers();
            // Not only when there is nothing else to do: under a steady load there always is.
            while let Some(counts) = self.try_counts() {
                self.put_counts(counts).await?;
            }
            self.flush().await?;
            let mut moved = false;
            for partition in 0..self.cursors.len() {
                moved |= self.push(partition).await?;
            }
            self.flush().await?;
            if moved {
                self.ping_if_due(&mut ping, &mut pings);
                continue;
            }
            self.wait(&mut ping, &mut pings).await?;
        }
    }

    /// Waits for something to say, and puts it into the buffer.
    async fn wait(&mut self, ping: &mut Interval, pings: &mut u64) -> Result<(), LineEnd> {
        tokio::select! {
            answer = self.answers.recv() => match answer {
                Some(answer) => trunk::encode_into(&answer, &mut self.out),
                // The registry holds a sender as long as the line is up.
                None => return Err(LineEnd::Stopping),
            },
            news = self.news.changed() => news.map_err(|_| LineEnd::Stopping)?,
            counts = self.counts.recv() => self.put_counts(counts).await?,
            _ = ping.tick() => self.put_ping(pings),
        }
        Ok(())
    }

    fn ping_if_due(&mut self, ping: &mut Interval, pings: &mut u64) {
        let due = std::pin::pin!(ping.tick());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if due.poll(&mut context).is_ready() {
            self.put_ping(pings);
        }
    }

    fn put_ping(&mut self, pings: &mut u64) {
        *pings += 1;
        let body = tier_frame::Body::Ping(Ping { id: *pings });
        trunk::encode_into(&TierFrame { body: Some(body) }, &mut self.out);
    }

    fn gather_answers(&mut self) {
        while self.out.len() < GATHER_BYTES {
            let Ok(answer) = self.answers.try_recv() else { break };
            trunk::encode_into(&answer, &mut self.out);
        }
    }

    fn try_counts(&mut self) -> Option<Result<Arc<[Bytes]>, RecvError>> {
        match self.counts.try_recv() {
            Ok(frames) => Some(Ok(frames)),
            Err(TryRecvError::Lagged(rounds)) => Some(Err(RecvError::Lagged(rounds))),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    /// Sends a round of counts; a line that missed one gets all counts.
    async fn put_counts(&mut self, counts: Result<Arc<[Bytes]>, RecvError>) -> Result<(), LineEnd> {
        match counts {
            Ok(frames) => self.send_counts(&frames).await,
            Err(RecvError::Lagged(_)) => {
                let all = self.trunk.sessions().all_counts();
                self.send_counts(&counts::frames(all)).await
            }
            Err(RecvError::Closed) => Err(LineEnd::Stopping),
        }
    }

    /// Sends the next frame of `partition`, if there is one.
    async fn push(&mut self, partition: usize) -> Result<bool, LineEnd> {
        let cursor = self.cursors[partition];
        // Fewer than 1024, by the config's bound.
        let number = partition as u32;
        let frame = match self.trunk.job.next(number, cursor) {
            Next::CaughtUp => return Ok(false),
            Next::Frame(frame) => frame,
            Next::Behind => {
                let stretch = self.trunk.job.replay(number, cursor).await.map_err(|error| {
                    tracing::error!(%error, "cannot replay");
                    LineEnd::Stopping
                })?;
                self.trunk.metrics.replays.inc();
                if let Some((first, last)) = stretch.lost {
                    self.trunk.metrics.lost.inc_by(last - first + 1);
                    let body = tier_frame::Body::Lost(Lost { partition: number, first, last });
                    trunk::encode_into(&TierFrame { body: Some(body) }, &mut self.out);
                    self.cursors[partition] = last;
                }
                match stretch.frame {
                    Some(frame) => frame,
                    None => return Ok(stretch.lost.is_some()),
                }
            }
        };
        self.cursors[partition] = frame.last;
        self.trunk.metrics.frames_sent.inc();
        self.put(frame.bytes).await?;
        Ok(true)
    }

    async fn send_counts(&mut self, frames: &[Bytes]) -> Result<(), LineEnd> {
        for frame in frames {
            self.put(frame.clone()).await?;
        }
        Ok(())
    }

    async fn put(&mut self, frame: Bytes) -> Result<(), LineEnd> {
        if frame.len() >= DIRECT_BYTES {
            self.flush().await?;
            return self.write(frame).await;
        }
        self.out.extend_from_slice(&frame);
        if self.out.len() >= GATHER_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), LineEnd> {
        if self.out.is_empty() {
            return Ok(());
        }
        let bytes = self.out.split().freeze();
        self.write(bytes).await
    }

    /// Writes it all. An edge may be slow, but it has to take something every two pings.
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), LineEnd> {
        self.trunk.metrics.bytes_sent.inc_by(bytes.len() as u64);
        while bytes.has_remaining() {
            match tokio::time::timeout(self.ping_interval * 2, self.socket.write_buf(&mut bytes)).await {
                Err(_elapsed) => return Err(LineEnd::Stuck),
                Ok(Ok(0)) => return Err(LineEnd::Socket),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a line cannot be written to");
                    return Err(LineEnd::Socket);
                }
            }
        }
        Ok(())
    }
}
