//! What a simulated client says of itself when it connects.

use serde_json::json;
use wire::trunk::Dialect;

/// The fields of an auth packet's body. All are public: a test bends them as it likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRequest {
    /// Which of the two bodies is written.
    pub dialect: Dialect,
    /// User id (goim `mid`, Bilibili `uid`).
    pub mid: i64,
    /// The room, as `type://id`; in the Bilibili dialect the number behind it.
    pub room: String,
    /// A key of the client's own; empty lets the server make one. The Bilibili dialect has none.
    pub key: String,
    /// What the client runs on.
    pub platform: String,
    /// Operations that shall reach the client outside its room. The Bilibili dialect has none.
    pub accepts: Vec<i32>,
    /// The credential (goim: our `token`, Bilibili: `key`).
    pub token: String,
    /// Highest body format that the client takes; only said in the Bilibili dialect.
    pub protover: u8,
}

impl AuthRequest {
    /// A goim client.
    #[must_use]
    pub fn goim(mid: i64, room: &str) -> Self {
        Self {
            dialect: Dialect::Goim,
            mid,
            room: room.to_owned(),
            key: String::new(),
            platform: "probe".to_owned(),
            accepts: Vec::new(),
            token: String::new(),
            protover: 0,
        }
    }

    /// A Bilibili client, which takes plain bodies only.
    #[must_use]
    pub fn bilibili(uid: i64, room_number: u64) -> Self {
        Self { dialect: Dialect::Bilibili, room: room_number.to_string(), ..Self::goim(uid, "") }
    }

    /// Accepts these operations.
    #[must_use]
    pub fn accepting(mut self, operations: &[i32]) -> Self {
        self.accepts = operations.to_vec();
        self
    }

    /// Brings a key of its own.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    /// Brings a credential.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// The body of the auth packet.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let mut body = match self.dialect {
            Dialect::Goim => json!({ "mid": self.mid, "platform": self.platform, "accepts": self.accepts }),
            Dialect::Bilibili => {
                json!({ "uid": self.mid, "protover": self.protover, "platform": self.platform, "type": 2 })
            }
        };
        let (room, credential) = match self.dialect {
            Dialect::Goim => ("room_id", "token"),
            Dialect::Bilibili => ("roomid", "key"),
        };
        if !self.room.is_empty() {
            // A Bilibili room is a number; one that is none is sent as it is, for the server to refuse.
            body[room] = match self.dialect {
                Dialect::Bilibili => self.room.parse::<u64>().map_or_else(|_| json!(self.room), |number| json!(number)),
                Dialect::Goim => json!(self.room),
            };
        }
        if !self.token.is_empty() {
            body[credential] = json!(self.token);
        }
        if !self.key.is_empty() && self.dialect == Dialect::Goim {
            body["key"] = json!(self.key);
        }
        body.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::auth::AuthBody;

    #[test]
    fn the_bodies_are_what_the_server_reads() {
        let goim = AuthRequest::goim(7, "live://1000").accepting(&[1000, 1001]).with_key("mine").with_token("t");
        let read = AuthBody::parse(&goim.to_body(), "live").unwrap();
        assert_eq!((read.dialect, read.mid, read.key.as_str()), (Dialect::Goim, 7, "mine"));
        assert_eq!(read.room.unwrap().as_str(), "live://1000");
        assert_eq!((read.accepts, read.token.as_str()), (vec![1000, 1001], "t"));

        let bilibili = AuthRequest::bilibili(9, 1000).with_token("secret");
        let read = AuthBody::parse(&bilibili.to_body(), "live").unwrap();
        assert_eq!((read.dialect, read.mid, read.token.as_str()), (Dialect::Bilibili, 9, "secret"));
        assert_eq!(read.room.unwrap().as_str(), "live://1000");
    }
}
