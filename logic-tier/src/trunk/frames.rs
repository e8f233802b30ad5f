//! Reading a line: whole messages out of a byte stream, one reader per line.
//!
//! It does not know what the messages mean.

use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use prost::encoding::decode_varint;
use tokio::io::{AsyncRead, AsyncReadExt};
use wire::trunk;

use crate::metrics::LineEnd;

/// Room for one read.
const READ_BYTES: usize = 16 << 10;

/// Bytes that a stranger may make us keep: the longest `Hello`.
const HELLO_BYTES: u64 = 64 << 10;

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

    /// The first message, which may not be long.
    pub(super) async fn first<M: Message + Default>(&mut self) -> Result<M, LineEnd> {
        loop {
            let mut peek = &self.buffer[..];
            if decode_varint(&mut peek).is_ok_and(|length| length > HELLO_BYTES) {
                return Err(LineEnd::Malformed);
            }
            if let Some(message) = self.decode()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// The next message. Not to be cancelled and called again: what was read stays, but silence is counted anew.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<M, LineEnd> {
        loop {
            if let Some(message) = self.decode()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    fn decode<M: Message + Default>(&mut self) -> Result<Option<M>, LineEnd> {
        trunk::decode(&mut self.buffer).map_err(|error| {
            tracing::warn!(%error, "a line cannot be read on");
            LineEnd::Malformed
        })
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
