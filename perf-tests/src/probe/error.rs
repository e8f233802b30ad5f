//! How a probe's verb can fail, told apart as a test needs it.

use std::fmt;
use std::io;
use std::time::Duration;

use wire::goim::PacketError;

use crate::websocket::{FrameError, ResponseError};

/// How the server ended the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// An orderly end, after the last whole packet.
    Fin,
    /// An orderly end in the middle of a packet; this many of its bytes had come.
    MidPacket(usize),
    /// A reset.
    Reset,
    /// A WebSocket close frame.
    WebSocket {
        /// RFC 6455, section 7.4; 1005 when the frame named none.
        code: u16,
        /// The text behind the code.
        reason: String,
    },
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fin => f.write_str("end of stream"),
            Self::MidPacket(bytes) => write!(f, "end of stream, {bytes} bytes into a packet"),
            Self::Reset => f.write_str("reset by the peer"),
            Self::WebSocket { code, reason } => write!(f, "close frame {code} {reason:?}"),
        }
    }
}

/// Why a verb did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The server said no, and why.
    #[error("refused by the server: code {code}, {reason:?}")]
    Refused {
        /// The code of the reply's JSON body.
        code: i64,
        /// Its text.
        reason: String,
    },
    /// The server ended the connection while a verb waited for its reply.
    #[error("the server closed the connection: {0}")]
    Closed(Closed),
    /// Nothing of the kind came in time.
    #[error("waited {within:?} for {awaited}, in vain")]
    Timeout {
        /// What was awaited.
        awaited: String,
        /// How long.
        within: Duration,
    },
    /// The server answered the upgrade, but did not open a WebSocket.
    #[error(transparent)]
    Upgrade(#[from] ResponseError),
    /// The server broke the packet format.
    #[error("the server broke the packet format: {0}")]
    Packet(#[from] PacketError),
    /// The server broke the WebSocket format.
    #[error("the server broke the WebSocket format: {0}")]
    Frame(#[from] FrameError),
    /// The server sent something well-formed that makes no sense where it stood.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The test's own side failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl ProbeError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Whether this is a refusal with `code`.
    #[must_use]
    pub fn is_refused_with(&self, expected: i64) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == expected)
    }
}
