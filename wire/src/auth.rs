//! The body of an auth packet, in both dialects.
//!
//! goim: `{"mid":123,"key":"optional","room_id":"live://1000","platform":"web","accepts":[1000]}`;
//! we also read `token`, the credential that goim leaves to the application.
//! Bilibili: `{"uid":0,"roomid":1000,"protover":3,"platform":"web","type":2,"key":"..."}`, where `key` is the credential.
//!
//! It does not decide who may enter: that is the logic tier's admission.

use serde::Deserialize;
use serde_json::Number;

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
    #[serde(default)]
    key: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    platform: String,
    #[serde(default)]
    accepts: Vec<i32>,
    uid: Option<i64>,
    roomid: Option<NumberOrText>,
    #[serde(default)]
    protover: u8,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(Number),
    Text(String),
}

impl AuthBody {
    /// Reads `body`. A Bilibili room number `1000` becomes the room `{bilibili_room_type}://1000`.
    ///
    /// # Errors
    /// [`AuthBodyError`], in words that may be shown to the client.
    pub fn parse(body: &[u8], bilibili_room_type: &str) -> Result<Self, AuthBodyError> {
        let raw: Raw = serde_json::from_slice(body)?;
        if raw.accepts.len() > MAX_ACCEPTS {
            return Err(AuthBodyError::TooManyAccepts(raw.accepts.len()));
        }
        if raw.roomid.is_some() || raw.uid.is_some() {
            return Self::bilibili(raw, bilibili_room_type);
        }
        if raw.mid.is_none() && raw.room_id.is_none() {
            return Err(AuthBodyError::NoDialect);
        }
        if raw.key.len() > MAX_KEY_BYTES {
            return Err(AuthBodyError::KeyTooLong(raw.key.len()));
        }
        Ok(Self {
            dialect: Dialect::Goim,
            mid: raw.mid.unwrap_or(0),
            key: raw.key,
            room: raw.room_id.filter(|room| !room.is_empty()).map(|room| RoomId::parse(&room)).transpose()?,
            platform: raw.platform,
            accepts: raw.accepts,
            token: raw.token,
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
            platform: raw.platform,
            // The dialect has one operation for messages and no way to name others.
            accepts: vec![crate::goim::op::SEND_MESSAGE_REPLY],
            token: raw.key,
            protover: raw.protover,
        })
    }
}
