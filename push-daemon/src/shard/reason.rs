//! Why connections end: one list, for the client's goodbye, the log and the metrics.

use wire::goim::PacketError;
use wire::websocket::{CloseCode, WebSocketError};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:literal, $websocket:ident, $words:literal;)*) => {
        /// Why a connection was closed. Each is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum CloseReason {
            $($(#[$doc])* $variant,)*
        }

        impl CloseReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in metrics and logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code that the client is told.
            #[must_use]
            pub fn code(self) -> i32 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The code of the WebSocket close frame.
            #[must_use]
            pub fn websocket_code(self) -> CloseCode {
                match self { $(Self::$variant => CloseCode::$websocket,)* }
            }

            /// What the client is told.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }
    };
}

reasons! {
    /// The client closed.
    PeerClosed = "peer_closed", 0, NORMAL, "goodbye";
    /// The connection broke: a reset, or an error of the socket.
    PeerReset = "peer_reset", 0, NORMAL, "the connection broke";
    /// A length field is below a header's.
    BadLength = "bad_length", -400, PROTOCOL_ERROR, "the packet length is below 16";
    /// A header-length field is not 16.
    BadHeaderLength = "bad_header_length", -400, PROTOCOL_ERROR, "the header length is not 16";
    /// A body is over the limit.
    BodyTooLarge = "body_too_large", -400, MESSAGE_TOO_BIG, "the body is over the limit";
    /// A WebSocket message ends inside a packet.
    TruncatedPacket = "truncated_packet", -400, PROTOCOL_ERROR, "the message ends inside a packet";
    /// An operation that clients do not send.
    UnknownOperation = "unknown_operation", -400, POLICY_VIOLATION, "clients do not send this operation";
    /// Something else came where the auth packet was due.
    PacketBeforeAuth = "packet_before_auth", -400, POLICY_VIOLATION, "the first packet must be auth";
    /// An auth packet from a client that is in.
    SecondAuth = "second_auth", -400, POLICY_VIOLATION, "already authenticated";
    /// The auth body cannot be read.
    BadAuthBody = "bad_auth_body", -400, POLICY_VIOLATION, "the auth body cannot be read";
    /// No auth within the time.
    AuthTimeout = "auth_timeout", -408, POLICY_VIOLATION, "no auth packet in time";
    /// Admission said no.
    AuthRefused = "auth_refused", -101, POLICY_VIOLATION, "not admitted";
    /// Admission could not be asked.
    AuthUnavailable = "auth_unavailable", -503, TRY_AGAIN_LATER, "admission cannot be reached, try again later";
    /// More was sent while admission was asked than is kept.
    InputWhileAuthenticating = "input_while_authenticating", -400, POLICY_VIOLATION, "wait for the auth reply";
    /// Nothing was heard for too long.
    HeartbeatTimeout = "heartbeat_timeout", -408, GOING_AWAY, "no heartbeat in time";
    /// A packet did not end in time.
    SlowPacket = "slow_packet", -408, POLICY_VIOLATION, "the packet did not end in time";
    /// The client owes too many bytes of reading.
    DebtBytes = "debt_bytes", -413, POLICY_VIOLATION, "too much unread";
    /// The client has not read for too long.
    DebtAge = "debt_age", -408, POLICY_VIOLATION, "nothing read for too long";
    /// What the client is owed because its ISP's lane is full has become too much.
    LaneBytes = "lane_bytes", -503, TRY_AGAIN_LATER, "the way to your provider is full, connect elsewhere";
    /// The client has waited too long for its ISP's lane.
    LaneAge = "lane_age", -503, TRY_AGAIN_LATER, "the way to your provider is full, connect elsewhere";
    /// The HTTP request is no WebSocket upgrade.
    BadHandshake = "bad_handshake", -400, PROTOCOL_ERROR, "not a WebSocket handshake";
    /// The HTTP request names another path.
    UnknownPath = "unknown_path", -404, PROTOCOL_ERROR, "no such path";
    /// A frame without a mask.
    WebSocketNotMasked = "websocket_not_masked", -400, PROTOCOL_ERROR, "frames must be masked";
    /// Text that is not UTF-8.
    WebSocketBadUtf8 = "websocket_bad_utf8", -400, INVALID_PAYLOAD, "the text is not UTF-8";
    /// A text message, where only binary ones have a meaning.
    WebSocketText = "websocket_text", -400, UNSUPPORTED_DATA, "send binary messages";
    /// A control frame that is too long or in fragments.
    WebSocketControl = "websocket_control", -400, PROTOCOL_ERROR, "a control frame is too long or fragmented";
    /// A message in too many fragments.
    WebSocketFragments = "websocket_fragments", -400, POLICY_VIOLATION, "too many fragments";
    /// A message over the limit.
    WebSocketTooLarge = "websocket_too_large", -400, MESSAGE_TOO_BIG, "the message is over the limit";
    /// Another rule of RFC 6455 was broken.
    WebSocketProtocol = "websocket_protocol", -400, PROTOCOL_ERROR, "not a valid WebSocket frame";
    /// The kernel has no memory to watch the connection with.
    Unwatched = "unwatched", -503, TRY_AGAIN_LATER, "no room for another connection, connect elsewhere";
    /// The logic tier ended the session.
    Kicked = "kicked", -409, POLICY_VIOLATION, "the session was ended";
    /// The daemon goes down for a deploy.
    Draining = "draining", -503, GOING_AWAY, "this server goes down, connect elsewhere";
}

impl CloseReason {
    /// Whether it is the rate of the ISP's lane that ends the connection.
    pub(crate) fn is_the_lanes(self) -> bool {
        matches!(self, Self::LaneBytes | Self::LaneAge)
    }

    /// Whether the client is told before the connection ends.
    pub(crate) fn is_told(self) -> bool {
        !matches!(self, Self::PeerClosed | Self::PeerReset | Self::DebtBytes | Self::DebtAge)
    }
}

impl From<PacketError> for CloseReason {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::Length(_) => Self::BadLength,
            PacketError::HeaderLength(_) => Self::BadHeaderLength,
            PacketError::BodyTooLarge { .. } => Self::BodyTooLarge,
        }
    }
}

impl From<WebSocketError> for CloseReason {
    fn from(error: WebSocketError) -> Self {
        match error {
            WebSocketError::NotMasked => Self::WebSocketNotMasked,
            WebSocketError::BadUtf8 => Self::WebSocketBadUtf8,
            WebSocketError::ControlTooLong | WebSocketError::ControlFragmented => Self::WebSocketControl,
            WebSocketError::TooManyFragments(_) => Self::WebSocketFragments,
            WebSocketError::MessageTooLarge { .. } => Self::WebSocketTooLarge,
            _ => Self::WebSocketProtocol,
        }
    }
}
