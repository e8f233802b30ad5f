//! What clients send: frames unmasked in place, judged, and joined to messages (RFC 6455 sections 5.4 to 5.6).
//!
//! [`next`] takes one frame from the start of a buffer. A message in one frame, which is all that browsers and goim's
//! clients send, is handed out where it lies, without a copy; only fragments are gathered, in [`Fragments`].
//!
//! It does not answer anything, and it does not end by itself after a close: what follows one is the caller's to ignore
//! (section 5.5.1).

use super::WebSocketError;
use super::frame::{CloseCode, Head, MAX_CONTROL_BYTES, MAX_SERVER_HEADER_BYTES, Opcode, Sender, Start, unmask};

/// What one client may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, over all its fragments.
    pub message_bytes: usize,
    /// Frames that a message may be cut into. Without it, fragments of no bytes could go on for ever.
    pub fragments: u32,
}

impl Limits {
    /// The longest frame that these limits let in: a client's longest header, and the longest message or control frame.
    #[must_use]
    pub fn max_frame_bytes(&self) -> usize {
        self.message_bytes.max(MAX_CONTROL_BYTES).saturating_add(MAX_SERVER_HEADER_BYTES + 4)
    }
}

/// Which of the two kinds a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8, and checked to be.
    Text,
    /// Any bytes.
    Binary,
}

/// A message that has begun and not ended: a few words and what has come of it.
///
/// The default is none, owns no memory, and is what a connection has nearly always: a caller makes one for a call of
/// [`next`] and keeps it only when it is not [empty](Fragments::is_empty) afterwards.
#[derive(Debug, Default)]
pub struct Fragments {
    /// `None` between messages.
    kind: Option<MessageKind>,
    /// Frames stored. At most [`Limits::fragments`].
    count: u32,
    /// What has come, at most [`Limits::message_bytes`]. Between messages it may hold the last one, which the event
    /// that ended it points into.
    data: Vec<u8>,
    /// The start of `data` that is known to be UTF-8, so that no byte of a text is judged once per fragment.
    valid_bytes: usize,
}

/// What a frame, together with those before it, has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message {
        /// Text has been checked.
        kind: MessageKind,
        /// Unmasked; in the input or, when the message came in fragments, in [`Fragments`].
        data: &'a [u8],
    },
    /// A fragment that did not end its message was stored.
    Part,
    /// To be answered by a pong with the same payload (section 5.5.3).
    Ping(&'a [u8]),
    /// To be ignored, or taken as a sign of life.
    Pong(&'a [u8]),
    /// To be answered by a close, and then the connection ends (section 5.5.1).
    Close {
        /// `None` when the client gave none.
        code: Option<CloseCode>,
        /// Empty when the client gave none.
        reason: &'a str,
    },
}

impl Fragments {
    /// True between messages. What is empty holds nothing that the next frame needs and can be dropped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kind.is_none()
    }

    /// Bytes of the unfinished message that are held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        if self.is_empty() { 0 } else { self.data.len() }
    }

    /// Judges whether a frame may come now. It needs no more than the frame's first byte.
    fn admit(&self, start: Start, limits: &Limits) -> Result<(), WebSocketError> {
        match (start.opcode, self.is_empty()) {
            (Opcode::Continuation, true) => return Err(WebSocketError::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, false) => return Err(WebSocketError::InterleavedMessage),
            _ => {}
        }
        let is_fragment = !start.fin || start.opcode == Opcode::Continuation;
        let held = if self.is_empty() { 0 } else { self.count };
        if is_fragment && held >= limits.fragments {
            return Err(WebSocketError::TooManyFragments(limits.fragments));
        }
        Ok(())
    }

    fn begin(&mut self, kind: MessageKind) {
        self.kind = Some(kind);
        self.count = 0;
        self.valid_bytes = 0;
        self.data.clear();
    }

    /// Stores a fragment and hands the message out when `fin` ends it.
    fn add(&mut self, payload: &[u8], fin: bool) -> Result<Event<'_>, WebSocketError> {
        let Some(kind) = self.kind else { return Err(WebSocketError::UnexpectedContinuation) };
        self.data.extend_from_slice(payload);
        self.count += 1;
        if kind == MessageKind::Text {
            self.check_text(fin)?;
        }
        if !fin {
            return Ok(Event::Part);
        }
        self.kind = None;
        Ok(Event::Message { kind, data: &self.data })
    }

    /// Refuses bad text at the first fragment that shows it; a character may still be cut between two fragments.
    fn check_text(&mut self, fin: bool) -> Result<(), WebSocketError> {
        match std::str::from_utf8(&self.data[self.valid_bytes..]) {
            Ok(_) => self.valid_bytes = self.data.len(),
            Err(error) if error.error_len().is_none() && !fin => self.valid_bytes += error.valid_up_to(),
            Err(_) => return Err(WebSocketError::BadUtf8),
        }
        Ok(())
    }
}

/// Takes the frame at the start of `input` and says what it came to and how many bytes it was.
///
/// `None` means that the frame is not whole yet; then `input` has not been altered and is to be given again, with more
/// behind it. When a frame is taken, its bytes have been unmasked in place and must not be given again. No caller has
/// to hold [`Limits::max_frame_bytes`] or more to get past a `None`.
///
/// # Errors
/// [`WebSocketError`], as soon as a byte has come that no continuation can make good. `input` may have been altered;
/// nothing after it can be trusted, and the connection is to be closed.
pub fn next<'a>(
    input: &'a mut [u8],
    fragments: &'a mut Fragments,
    limits: &Limits,
) -> Result<Option<(Event<'a>, usize)>, WebSocketError> {
    let Some(&first) = input.first() else { return Ok(None) };
    let start = Start::parse(first)?;
    fragments.admit(start, limits)?;
    let held_bytes = fragments.held_bytes();
    let Some(head) = Head::parse(start, input, Sender::Client, held_bytes, limits.message_bytes)? else {
        return Ok(None);
    };
    let consumed = head.frame_bytes();
    let Some(payload) = input.get_mut(head.header_bytes..consumed) else { return Ok(None) };
    unmask(payload, head.mask);
    let payload = &*payload;

    let event = match start.opcode {
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => parse_close(payload)?,
        Opcode::Text if start.fin => {
            std::str::from_utf8(payload).map_err(|_| WebSocketError::BadUtf8)?;
            Event::Message { kind: MessageKind::Text, data: payload }
        }
        Opcode::Binary if start.fin => Event::Message { kind: MessageKind::Binary, data: payload },
        Opcode::Text => {
            fragments.begin(MessageKind::Text);
            fragments.add(payload, false)?
        }
        Opcode::Binary => {
            fragments.begin(MessageKind::Binary);
            fragments.add(payload, false)?
        }
        Opcode::Continuation => fragments.add(payload, start.fin)?,
    };
    Ok(Some((event, consumed)))
}

/// Nothing, or a code and a reason (section 5.5.1).
fn parse_close(payload: &[u8]) -> Result<Event<'_>, WebSocketError> {
    match payload {
        [] => Ok(Event::Close { code: None, reason: "" }),
        [_] => Err(WebSocketError::BadClose),
        [high, low, reason @ ..] => {
            let code = CloseCode::new(u16::from_be_bytes([*high, *low])).ok_or(WebSocketError::BadClose)?;
            let reason = std::str::from_utf8(reason).map_err(|_| WebSocketError::BadUtf8)?;
            Ok(Event::Close { code: Some(code), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::put_masked_frame;
    use super::*;

    const LIMITS: Limits = Limits { message_bytes: 1000, fragments: 4 };
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// Reads all of `bytes`, and names each event; the error, if one comes, is the last.
    fn read(bytes: &[u8]) -> Vec<String> {
        let mut bytes = bytes.to_vec();
        let (mut input, mut fragments, mut events) = (&mut bytes[..], Fragments::default(), Vec::new());
        loop {
            match next(input, &mut fragments, &LIMITS) {
                Ok(None) => return events,
                Ok(Some((event, consumed))) => {
                    events.push(match event {
                        Event::Message { kind, data } => format!("{kind:?} {}", data.escape_ascii()),
                        Event::Part => "Part".into(),
                        Event::Ping(data) => format!("Ping {}", data.escape_ascii()),
                        Event::Pong(data) => format!("Pong {}", data.escape_ascii()),
                        Event::Close { code, reason } => format!("Close {:?} {reason}", code.map(CloseCode::get)),
                    });
                    input = &mut input[consumed..];
                }
                Err(error) => {
                    events.push(format!("{error:?} {}", error.close_code().get()));
                    return events;
                }
            }
        }
    }

    /// Frames written as `(first byte, payload)`, masked.
    fn frames(list: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for &(first, payload) in list {
            let at = out.len();
            put_masked_frame(Opcode::Binary, true, MASK, payload, &mut out);
            out[at] = first;
        }
        out
    }

    #[test]
    fn the_masked_examples_of_the_rfc() {
        // Section 5.7: a masked text message, and a masked pong.
        assert_eq!(read(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]), ["Text Hello"]);
        assert_eq!(read(&[0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]), ["Pong Hello"]);
    }

    #[test]
    fn frames_in_order_become_messages() {
        let row = |list: &[(u8, &[u8])], events: &[&str]| assert_eq!(read(&frames(list)), events);
        row(&[(0x82, b"ab"), (0x81, b"c")], &["Binary ab", "Text c"]);
        row(&[(0x82, b"")], &["Binary "]);
        row(&[(0x01, b"Hel"), (0x80, b"lo")], &["Part", "Text Hello"]);
        row(
            &[(0x02, b"a"), (0x89, b"p"), (0x00, b""), (0x8a, b""), (0x80, b"b")],
            &["Part", "Ping p", "Part", "Pong ", "Binary ab"],
        );
        row(
            &[(0x02, b"a"), (0x80, b"b"), (0x02, b"c"), (0x80, b"d"), (0x82, b"e")],
            &["Part", "Binary ab", "Part", "Binary cd", "Binary e"],
        );
        // A character cut between two fragments.
        row(&[(0x01, b"\xe5\xbc"), (0x00, b"\xb9"), (0x80, b"!")], &["Part", "Part", "Text \\xe5\\xbc\\xb9!"]);
        row(&[(0x88, b"")], &["Close None "]);
        row(&[(0x88, b"\x03\xe8bye")], &["Close Some(1000) bye"]);
    }

    #[test]
    fn each_broken_rule_has_its_name_and_close_code() {
        let row = |list: &[(u8, &[u8])], error: &str| {
            assert_eq!(read(&frames(list)).last().map(String::as_str), Some(error), "{list:x?}");
        };
        for bit in [0x40, 0x20, 0x10] {
            row(&[(0x82 | bit, b"")], "ReservedBits 1002");
        }
        for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
            row(&[(0x80 | opcode, b"")], &format!("ReservedOpcode({opcode}) 1002"));
        }
        for control in [0x8, 0x9, 0xa] {
            row(&[(control, b"")], "ControlFragmented 1002");
            row(&[(0x80 | control, &[b'a'; 126])], "ControlTooLong 1002");
        }
        row(&[(0x80, b"a")], "UnexpectedContinuation 1002");
        row(&[(0x00, b"a")], "UnexpectedContinuation 1002");
        row(&[(0x02, b"a"), (0x80, b"b"), (0x80, b"c")], "UnexpectedContinuation 1002");
        row(&[(0x02, b"a"), (0x82, b"b")], "InterleavedMessage 1002");
        row(&[(0x02, b"a"), (0x01, b"b")], "InterleavedMessage 1002");
        row(&[(0x02, b""), (0x00, b""), (0x00, b""), (0x00, b""), (0x00, b"")], "TooManyFragments(4) 1008");
        row(&[(0x81, b"\xff")], "BadUtf8 1007");
        row(&[(0x81, b"\xe5\xbc")], "BadUtf8 1007");
        row(&[(0x01, b"\xe5"), (0x00, b"\xbc"), (0x80, b"!")], "BadUtf8 1007");
        row(&[(0x01, b"\xe5\xbc"), (0x80, b"")], "BadUtf8 1007");
        row(&[(0x01, b"a\xff"), (0x00, b"b")], "BadUtf8 1007");
        // A second message is checked from its own start.
        row(&[(0x01, b"abc"), (0x80, b"d"), (0x01, b"\xff"), (0x80, b"")], "BadUtf8 1007");
        row(&[(0x88, b"\x03")], "BadClose 1002");
        row(&[(0x88, b"\x03\xe8\xff")], "BadUtf8 1007");
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            row(&[(0x88, &code.to_be_bytes())], "BadClose 1002");
        }
    }

    #[test]
    fn a_frame_is_judged_before_its_payload_has_come() {
        let row = |bytes: &[u8], error: WebSocketError| {
            let mut fragments = Fragments::default();
            for length in 0..bytes.len() {
                let mut part = bytes[..length].to_vec();
                assert!(next(&mut part, &mut fragments, &LIMITS).unwrap().is_none(), "{length} bytes of {bytes:x?}");
                assert_eq!(part, bytes[..length]);
            }
            assert_eq!(next(&mut bytes.to_vec(), &mut fragments, &LIMITS), Err(error), "{bytes:x?}");
        };
        let too_large = |bytes| WebSocketError::MessageTooLarge { bytes, limit_bytes: 1000 };
        row(&[0xc2], WebSocketError::ReservedBits);
        row(&[0x80], WebSocketError::UnexpectedContinuation);
        row(&[0x82, 0x05], WebSocketError::NotMasked);
        row(&[0x89, 0xfe], WebSocketError::ControlTooLong);
        row(&[0x89, 0xff], WebSocketError::ControlTooLong);
        row(&[0x82, 0xfe, 0x00, 0x7d], WebSocketError::LengthNotMinimal);
        row(&[0x82, 0xfe, 0x03, 0xe9], too_large(1001));
        row(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], WebSocketError::LengthNotMinimal);
        row(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], too_large(0x1_0000));
        row(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], too_large(i64::MAX as u64));
        row(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], WebSocketError::LengthTopBit);
    }

    #[test]
    fn the_limit_is_for_the_whole_message() {
        let (most, rest) = ([b'a'; 600], [b'b'; 401]);
        let mut bytes = frames(&[(0x02, &most), (0x80, &rest[..400])]);
        let mut fragments = Fragments::default();
        let (event, consumed) = next(&mut bytes, &mut fragments, &LIMITS).unwrap().unwrap();
        assert_eq!(event, Event::Part);
        assert!(!fragments.is_empty());
        assert_eq!(fragments.held_bytes(), 600);
        let (event, _) = next(&mut bytes[consumed..], &mut fragments, &LIMITS).unwrap().unwrap();
        assert!(matches!(event, Event::Message { data, .. } if data.len() == 1000));
        assert!(fragments.is_empty());
        assert_eq!(fragments.held_bytes(), 0);

        let over = read(&frames(&[(0x02, &most), (0x80, &rest)]));
        assert_eq!(over, ["Part", "MessageTooLarge { bytes: 1001, limit_bytes: 1000 } 1009"]);
    }
}
