//! WebSocket (RFC 6455), the server's side, and as much of the client's as probes need.
//!
//! Bytes in, events out: no socket, no clock, no random source, and no object that lives as long as a connection.
//! A shard holds a million connections of which nearly all are idle, so everything here is a function of the bytes
//! that have come and of [`Fragments`], which exist only between the first frame of a message and its last.
//! A frame is taken when it is whole; the tail of one that is not stays with the caller, who has a pool for tails.
//!
//! It does not: choose a path, an origin or a subprotocol (the caller does, with what [`handshake::parse`] found),
//! negotiate extensions (none is ever accepted, so every reserved bit must be zero; RFC 6455 section 5.2), answer a
//! ping or a close (the caller owns the order of what it sends), or limit how often control frames come.
//!
//! Layout: [`handshake`] the upgrade · `refusal` answers to what is none · [`frame`] headers, opcodes, close codes,
//! what a server writes · [`message`] what clients send, frames joined to messages · [`client`] the other side, for
//! probes and tests

pub mod client;
pub mod frame;
pub mod handshake;
pub mod message;
mod refusal;

pub use frame::{CloseCode, Opcode};
pub use message::{Event, Fragments, Limits, MessageKind, next};

/// Why a stream of frames cannot be read on. The connection is to be closed with [`WebSocketError::close_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A client's frame without a mask (section 5.1).
    #[error("a frame from a client is not masked")]
    NotMasked,
    /// A server's frame with a mask (section 5.1). Only a client meets it.
    #[error("a frame from a server is masked")]
    Masked,
    /// RSV1, RSV2 or RSV3 is set, though no extension was negotiated (section 5.2).
    #[error("a reserved bit is set and no extension was negotiated")]
    ReservedBits,
    /// An opcode that RFC 6455 leaves undefined (section 5.2).
    #[error("opcode {0:#x} is reserved")]
    ReservedOpcode(u8),
    /// A control frame of more than 125 bytes (section 5.5).
    #[error("a control frame announces more than 125 bytes")]
    ControlTooLong,
    /// A control frame without FIN (section 5.5).
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// A continuation frame, and nothing to continue (section 5.4).
    #[error("a continuation frame continues nothing")]
    UnexpectedContinuation,
    /// A new message before the end of the one that came in fragments (section 5.4).
    #[error("a message begins inside another one")]
    InterleavedMessage,
    /// A length in more bytes than it needs (section 5.2).
    #[error("a length is not in the shortest of its three forms")]
    LengthNotMinimal,
    /// The highest bit of a 64-bit length is set (section 5.2).
    #[error("the highest bit of a 64-bit length is set")]
    LengthTopBit,
    /// The message is, or will be, longer than [`Limits::message_bytes`].
    #[error("a message of at least {bytes} bytes is over the limit of {limit_bytes}")]
    MessageTooLarge {
        /// What has come of the message and what the frame's header announces.
        bytes: u64,
        /// What the reader allows.
        limit_bytes: usize,
    },
    /// The message is in more frames than [`Limits::fragments`].
    #[error("a message is in more than {0} fragments")]
    TooManyFragments(u32),
    /// A text message or the reason of a close is not UTF-8 (section 8.1).
    #[error("a text is not UTF-8")]
    BadUtf8,
    /// A close frame of one byte, or with a code that may not be sent (sections 5.5.1 and 7.4).
    #[error("a close frame has half a code, or one that may not be sent")]
    BadClose,
}

impl WebSocketError {
    /// What to say in the close frame (section 7.4.1).
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::BadUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::TooManyFragments(_) => CloseCode::POLICY_VIOLATION,
            Self::MessageTooLarge { .. } => CloseCode::MESSAGE_TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}
