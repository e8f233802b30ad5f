//! The name of a room: `type://id` (goim: `internal/logic/model/room.go`).

use std::fmt;

/// Longest name of a room, in bytes.
pub const MAX_ROOM_BYTES: usize = 128;

/// A checked room name. Neither part is empty and neither holds a control character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(Box<str>);

/// Why a text is no room name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// There is no `://` with something on both sides of it.
    #[error("a room is named type://id, such as live://1000")]
    Form,
    /// Longer than [`MAX_ROOM_BYTES`].
    #[error("the room's name has {0} bytes, more than {MAX_ROOM_BYTES}")]
    TooLong(usize),
    /// A control character, which no log or metric should have to carry.
    #[error("the room's name holds a control character")]
    ControlCharacter,
}

impl RoomId {
    /// Checks a name as clients and publishers write it.
    ///
    /// # Errors
    /// [`RoomError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, RoomError> {
        if text.len() > MAX_ROOM_BYTES {
            return Err(RoomError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(RoomError::ControlCharacter);
        }
        match text.split_once("://") {
            Some((kind, id)) if !kind.is_empty() && !id.is_empty() => Ok(Self(text.into())),
            _ => Err(RoomError::Form),
        }
    }

    /// Puts a name together from its two parts, as the publisher API gets them.
    ///
    /// # Errors
    /// [`RoomError`] says what is wrong with the whole.
    pub fn new(kind: &str, id: &str) -> Result<Self, RoomError> {
        if kind.is_empty() || id.is_empty() || kind.contains("://") {
            return Err(RoomError::Form);
        }
        Self::parse(&format!("{kind}://{id}"))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before `://`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0.split_once("://").map_or("", |(kind, _)| kind)
    }

    /// The part behind `://`.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, id)| id)
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_clients_write_them() {
        let row = |text: &str, kind: &str, id: &str| {
            let room = RoomId::parse(text).unwrap();
            assert_eq!((room.kind(), room.id(), room.as_str()), (kind, id, text));
            assert_eq!(room.to_string(), text);
            assert_eq!(RoomId::new(kind, id), Ok(room));
        };
        row("live://1000", "live", "1000");
        row("a://b://c", "a", "b://c");
        row("a:/://b", "a:/", "b");
        row("\u{5f39}://\u{5e55}", "\u{5f39}", "\u{5e55}");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "live", "live:/1000", "://1000", "live://", "://"] {
            assert_eq!(RoomId::parse(text), Err(RoomError::Form), "{text:?}");
        }
        for text in ["live://\n", "li\u{0}ve://1", "live://\u{7f}", "live://\u{85}"] {
            assert_eq!(RoomId::parse(text), Err(RoomError::ControlCharacter), "{text:?}");
        }
        assert_eq!(RoomId::new("a://b", "c"), Err(RoomError::Form));
        assert_eq!(RoomId::new("", "c"), Err(RoomError::Form));
        assert_eq!(RoomId::new("a", ""), Err(RoomError::Form));
    }

    #[test]
    fn the_limit_counts_bytes() {
        let longest = format!("live://{}", "9".repeat(MAX_ROOM_BYTES - 7));
        assert!(RoomId::parse(&longest).is_ok());
        assert_eq!(RoomId::parse(&(longest + "9")), Err(RoomError::TooLong(MAX_ROOM_BYTES + 1)));
        assert_eq!(RoomId::new("live", &"\u{5f39}".repeat(41)), Err(RoomError::TooLong(130)));
    }
}
