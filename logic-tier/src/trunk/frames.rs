//! Reading a line: whole messages out of a byte stream, one reader per line.
//!
//! It does not know what the messages mean.

use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};
use wire::trunk::{MAX_FIRST_FRAME_BYTES, MAX_FRAME_BYTES, decode_within};

use crate::metrics::LineEnd;

/// Room for one read.
const READ_BYTES: usize = 16 << 10;

/// Memory that a line gives back when it is idle after a long message.
const KEEP_BYTES: usize = 64 << 10;

/// The messages of one line.
pub(super) struct FrameReader<R> {
    socket: R,
    buffer: BytesMut,
    /// Silence for this long is death.
    silence: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(socket: R, silence: Duration) -> Self {
        Self { socket, buffer: BytesMut::with_capacity(READ_BYTES), silence }
    }

    /// The first message, of which a stranger may not make us keep much.
    pub(super) async fn first<M: Message + Default>(&mut self) -> Result<M, LineEnd> {
        self.message(MAX_FIRST_FRAME_BYTES).await
    }

    /// The next message. Not to be cancelled and called again: what was read stays, but silence is counted anew.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<M, LineEnd> {
        self.message(MAX_FRAME_BYTES).await
    }

    async fn message<M: Message + Default>(&mut self, max_bytes: usize) -> Result<M, LineEnd> {
        loop {
            let decoded = decode_within(&mut self.buffer, max_bytes).map_err(|error| {
                tracing::warn!(%error, "a line cannot be read on");
                LineEnd::Malformed
            })?;
            if let Some(message) = decoded {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), LineEnd> {
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(READ_BYTES);
        match tokio::time::timeout(self.silence, self.socket.read_buf(&mut self.buffer)).await {
            Err(_elapsed) => Err(LineEnd::Silent),
            Ok(Ok(0)) => Err(LineEnd::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a line failed");
                Err(LineEnd::Socket)
            }
        }
    }
}
