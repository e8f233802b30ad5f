//! The body of an auth packet, in both dialects.
//!
//! goim: `{"mid":123,"key":"optional","room_id":"live://1000","platform":"web","accepts":[1000]}`;
//! we also read `token`, the credential that goim leaves to the application.
//! Bilibili: `{"uid":0,"roomid":1000,"protover":3,"platform":"web","type":2,"key":"..."}`, where `key` is the credential.
//!
//! goim reads its body with Go's `encoding/json` (`internal/logic/conn.go`), for which `null` is the same as a field
//! left out and an unknown field is nothing; so it is here. Every list and text in the result is bounded by the body,
//! which is at most [`crate::goim::MAX_BODY_BYTES`] long, and the ones that are kept for a session by limits of their own.
//!
//! It does not decide who may enter: that is the logic tier's admission.

use serde::Deserialize;

use crate::room::{RoomError, RoomId};
use crate::trunk::Dialect;

/// Operations that one connection may accept. goim has no bound; a viewer's client names a handful.
pub const MAX_ACCEPTS: usize = 64;

/// Longest key that a client may bring, in bytes.
pub const MAX_KEY_BYTES: usize = 128;

/// What a client asked for, dialects levelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthBody {
    /// Which of the two dialects the client speaks from here on.
    pub dialect: Dialect,
    /// User id; 0 is an anonymous one.
    pub mid: i64,
    /// A key that the client brings itself; empty when the server shall make one.
    pub key: String,
    /// The room to join, if any.
    pub room: Option<RoomId>,
    /// What the client runs on, as it says.
    pub platform: String,
    /// Operations that reach the client when pushed by key, by mid or to all.
    pub accepts: Vec<i32>,
    /// The credential; empty when the client has none.
    pub token: String,
    /// The highest body format that a Bilibili client takes (2: zlib, 3: brotli); 0 in the goim dialect.
    pub protover: u8,
}

/// Why an auth body cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthBodyError {
    /// Not JSON, or a field of the wrong type.
    #[error("the auth body is not the JSON that goim or Bilibili clients send: {0}")]
    Json(#[from] serde_json::Error),
    /// Neither `mid`/`room_id` (goim) nor `uid`/`roomid` (Bilibili) is there.
    #[error("the auth body names neither mid or room_id (goim) nor uid or roomid (Bilibili)")]
    NoDialect,
    /// The room's text is not usable.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// More than [`MAX_ACCEPTS`] operations.
    #[error("accepts names {0} operations, more than {MAX_ACCEPTS}")]
    TooManyAccepts(usize),
    /// The key is longer than [`MAX_KEY_BYTES`].
    #[error("the key has {0} bytes, more than {MAX_KEY_BYTES}")]
    KeyTooLong(usize),
}

#[derive(Deserialize)]
struct Raw {
    mid: Option<i64>,
    room_id: Option<String>,
    key: Option<String>,
    token: Option<String>,
    platform: Option<String>,
    accepts: Option<Vec<i32>>,
    uid: Option<i64>,
    roomid: Option<NumberOrText>,
    protover: Option<u8>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "roomid is neither a whole number nor a text")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl AuthBody {
    /// Reads `body`. A Bilibili room number `1000` becomes the room `{bilibili_room_type}://1000`.
    ///
    /// # Errors
    /// [`AuthBodyError`], in words that may be shown to the client.
    pub fn parse(body: &[u8], bilibili_room_type: &str) -> Result<Self, AuthBodyError> {
        let raw: Raw = serde_json::from_slice(body)?;
        let accepts = raw.accepts.as_ref().map_or(0, Vec::len);
        if accepts > MAX_ACCEPTS {
            return Err(AuthBodyError::TooManyAccepts(accepts));
        }
        if raw.roomid.is_some() || raw.uid.is_some() {
            return Self::bilibili(raw, bilibili_room_type);
        }
        if raw.mid.is_none() && raw.room_id.is_none() {
            return Err(AuthBodyError::NoDialect);
        }
        let key = raw.key.unwrap_or_default();
        if key.len() > MAX_KEY_BYTES {
            return Err(AuthBodyError::KeyTooLong(key.len()));
        }
        Ok(Self {
            dialect: Dialect::Goim,
            mid: raw.mid.unwrap_or(0),
            key,
            room: raw.room_id.filter(|room| !room.is_empty()).map(|room| RoomId::parse(&room)).transpose()?,
            platform: raw.platform.unwrap_or_default(),
            accepts: raw.accepts.unwrap_or_default(),
            token: raw.token.unwrap_or_default(),
            protover: 0,
        })
    }

    fn bilibili(raw: Raw, room_type: &str) -> Result<Self, AuthBodyError> {
        let number = match raw.roomid {
            Some(NumberOrText::Number(number)) => number.to_string(),
            Some(NumberOrText::Text(text)) => text,
            None => String::new(),
        };
        let room = if number.is_empty() { None } else { Some(RoomId::new(room_type, &number)?) };
        Ok(Self {
            dialect: Dialect::Bilibili,
            mid: raw.uid.unwrap_or(0),
            key: String::new(),
            room,
            platform: raw.platform.unwrap_or_default(),
            // The dialect has one operation for messages and no way to name others.
            accepts: vec![crate::goim::op::SEND_MESSAGE_REPLY],
            token: raw.key.unwrap_or_default(),
            protover: raw.protover.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<AuthBody, AuthBodyError> {
        AuthBody::parse(body.as_bytes(), "live")
    }

    fn room(text: &str) -> Option<RoomId> {
        Some(RoomId::parse(text).unwrap())
    }

    #[test]
    fn the_goim_body() {
        let body = r#"{"mid":123,"key":"69dafe8b","room_id":"live://1000","platform":"web","accepts":[1000,1001],"token":"t"}"#;
        let expected = AuthBody {
            dialect: Dialect::Goim,
            mid: 123,
            key: "69dafe8b".into(),
            room: room("live://1000"),
            platform: "web".into(),
            accepts: vec![1000, 1001],
            token: "t".into(),
            protover: 0,
        };
        assert_eq!(parse(body).unwrap(), expected);
    }

    #[test]
    fn the_bilibili_body() {
        let body = r#"{"uid":7,"roomid":1000,"protover":3,"platform":"web","type":2,"key":"credential","buvid":"x"}"#;
        let expected = AuthBody {
            dialect: Dialect::Bilibili,
            mid: 7,
            key: String::new(),
            room: room("live://1000"),
            platform: "web".into(),
            accepts: vec![crate::goim::op::SEND_MESSAGE_REPLY],
            token: "credential".into(),
            protover: 3,
        };
        assert_eq!(parse(body).unwrap(), expected);
        assert_eq!(parse(&body.replace("1000", "\"1000\"")).unwrap(), expected);
    }

    #[test]
    fn what_is_left_out_or_null_is_empty() {
        for body in [
            r#"{"mid":0}"#,
            r#"{"room_id":""}"#,
            r#"{"mid":0,"key":null,"room_id":null,"platform":null,"accepts":null,"token":null,"uid":null,"roomid":null}"#,
        ] {
            let read = parse(body).unwrap();
            assert_eq!(read.dialect, Dialect::Goim, "{body}");
            assert_eq!((read.mid, &*read.key, read.room, read.accepts), (0, "", None, vec![]), "{body}");
        }
        let read = parse(r#"{"uid":0,"key":null,"protover":null}"#).unwrap();
        assert_eq!((read.dialect, read.room, &*read.token, read.protover), (Dialect::Bilibili, None, "", 0));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_reason() {
        let row = |body: &str, reason: &str| {
            let error = parse(body).expect_err(body).to_string();
            assert!(error.contains(reason), "{body}: {error}");
        };
        row("", "not the JSON");
        row("[1]", "not the JSON");
        row(r#"{"mid":"123"}"#, "not the JSON");
        row(r#"{"mid":9223372036854775808}"#, "not the JSON");
        row(r#"{"mid":1} {}"#, "not the JSON");
        row(r#"{"uid":1,"roomid":-1}"#, "neither a whole number nor a text");
        row(r#"{"uid":1,"roomid":1.5}"#, "neither a whole number nor a text");
        row(r#"{"uid":1,"protover":256}"#, "not the JSON");
        row("{}", "names neither mid");
        row(r#"{"token":"t"}"#, "names neither mid");
        row(r#"{"mid":1,"room_id":"1000"}"#, "type://id");
        row(r#"{"uid":1,"roomid":"a\u0000"}"#, "control character");
        row(&format!(r#"{{"mid":1,"accepts":[{}1]}}"#, "1,".repeat(MAX_ACCEPTS)), "accepts names 65");
        row(&format!(r#"{{"mid":1,"key":"{}"}}"#, "k".repeat(MAX_KEY_BYTES + 1)), "the key has 129");
    }

    #[test]
    fn the_limits_themselves_are_allowed() {
        assert!(parse(&format!(r#"{{"mid":1,"accepts":[{}1]}}"#, "1,".repeat(MAX_ACCEPTS - 1))).is_ok());
        assert!(parse(&format!(r#"{{"mid":1,"key":"{}"}}"#, "k".repeat(MAX_KEY_BYTES))).is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_an_overflow_of_the_stack() {
        let deep = format!(r#"{{"mid":1,"x":{}"#, "[".repeat(4000));
        assert!(matches!(parse(&deep), Err(AuthBodyError::Json(_))));
    }
}
