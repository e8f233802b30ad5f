//! Admission: who may enter, as whom, and into which room.
//!
//! `open` lets everybody in as they ask. `token` asks for a JWT signed with HS256, whose claims may fix the user and
//! the rooms. It does not close those who are in already, and it does not know addresses.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use wire::auth::{MAX_ACCEPTS, MAX_KEY_BYTES};
use wire::room::RoomId;
use wire::trunk::{AuthRequest, Denied, Granted, RoomList};

use crate::config::{self, AdmissionMode};
use crate::metrics::Outcome;

/// The code of every refusal: what Bilibili's clients know as "not logged in".
pub const DENIED: i32 = -101;

/// The cookie that may carry the token.
const TOKEN_COOKIE: &str = "token";

/// The longest token or cookie header that is looked at.
const MAX_CREDENTIAL_BYTES: usize = 8 << 10;

/// Judges those who want in.
pub struct Admission {
    token: Option<Verifier>,
    client_keys: bool,
}

struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

/// Why somebody may not enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the counters.
    pub outcome: Outcome,
    /// For the client.
    pub reason: String,
}

impl Refusal {
    fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into() }
    }

    /// As it goes to the edge.
    #[must_use]
    pub fn into_denied(self) -> Denied {
        Denied { code: DENIED, reason: self.reason }
    }
}

/// What a token may say. Others are allowed and ignored.
#[derive(Debug, Default, Deserialize)]
struct Claims {
    mid: Option<i64>,
    sub: Option<Subject>,
    room: Option<String>,
    rooms: Option<Vec<String>>,
}

/// The registered claim is a text; some issuers write the number of a user as one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Subject {
    Number(i64),
    Text(String),
}

impl Claims {
    /// The user that the token is for: `mid`, else a `sub` that is a number.
    fn mid(&self) -> Option<i64> {
        self.mid.or(match &self.sub {
            Some(Subject::Number(number)) => Some(*number),
            Some(Subject::Text(text)) => text.parse().ok(),
            None => None,
        })
    }

    /// The rooms that the token is for; `None` for any.
    fn rooms(&self) -> Option<Vec<String>> {
        if self.room.is_none() && self.rooms.is_none() {
            return None;
        }
        Some(self.room.iter().chain(self.rooms.iter().flatten()).cloned().collect())
    }
}

impl Admission {
    /// As the config says.
    #[must_use]
    pub fn new(config: &config::Admission) -> Self {
        let token = (config.mode == AdmissionMode::Token).then(|| {
            // `exp` is required and judged by default; the algorithm is ours to choose, never the token's.
            let mut validation = Validation::new(Algorithm::HS256);
            validation.leeway = config.leeway_s.get();
            validation.validate_nbf = true;
            // Whom else the token is for is not our business.
            validation.validate_aud = false;
            Verifier { key: DecodingKey::from_secret(config.secret.as_bytes()), validation }
        });
        Self { token, client_keys: config.client_keys }
    }

    /// Lets a client in, or says why not.
    ///
    /// # Errors
    /// [`Refusal`], in words that may be shown to the client.
    pub fn judge(&self, request: &AuthRequest) -> Result<Granted, Refusal> {
        if request.key.len() > MAX_KEY_BYTES || request.accepts.len() > MAX_ACCEPTS {
            return Err(Refusal::new(Outcome::BadRequest, "the key or the list of operations is too long"));
        }
        if !request.room.is_empty() {
            RoomId::parse(&request.room).map_err(|error| Refusal::new(Outcome::BadRoom, error.to_string()))?;
        }
        let mut mid = request.mid;
        let mut rooms = None;
        if let Some(verifier) = &self.token {
            let claims = verifier.verify(request)?;
            if let Some(claimed) = claims.mid() {
                // 0 is "nobody in particular": the token says who.
                if mid != 0 && mid != claimed {
                    return Err(Refusal::new(Outcome::OtherMid, "the token is for another mid"));
                }
                mid = claimed;
            }
            rooms = claims.rooms();
            if rooms.as_ref().is_some_and(|rooms| !request.room.is_empty() && !rooms.contains(&request.room)) {
                return Err(Refusal::new(Outcome::OtherRoom, "the token does not allow this room"));
            }
        }
        Ok(Granted {
            mid,
            key: if self.client_keys { request.key.clone() } else { String::new() },
            room: request.room.clone(),
            accepts: request.accepts.clone(),
            // The edge holds the client to them when it changes its room.
            rooms: rooms.map(|rooms| RoomList { rooms }),
        })
    }
}

impl Verifier {
    fn verify(&self, request: &AuthRequest) -> Result<Claims, Refusal> {
        let token = if request.token.is_empty() { cookie(&request.cookie) } else { Some(request.token.as_str()) };
        let token = token.ok_or_else(|| Refusal::new(Outcome::TokenMissing, "token is missing"))?;
        if token.len() > MAX_CREDENTIAL_BYTES {
            return Err(Refusal::new(Outcome::TokenInvalid, "token is too long"));
        }
        match jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation) {
            Ok(token) => Ok(token.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => Refusal::new(Outcome::TokenExpired, "token expired"),
                ErrorKind::ImmatureSignature => Refusal::new(Outcome::TokenInvalid, "token is not valid yet"),
                ErrorKind::InvalidSignature => Refusal::new(Outcome::TokenInvalid, "token has a wrong signature"),
                ErrorKind::InvalidAlgorithm => Refusal::new(Outcome::TokenInvalid, "token is not signed with HS256"),
                ErrorKind::MissingRequiredClaim(claim) => {
                    Refusal::new(Outcome::TokenInvalid, format!("token has no {claim}"))
                }
                _ => Refusal::new(Outcome::TokenInvalid, "token cannot be read"),
            }),
        }
    }
}

/// The value of `token` in a Cookie header (RFC 6265 section 4.2.1).
fn cookie(header: &str) -> Option<&str> {
    if header.len() > MAX_CREDENTIAL_BYTES {
        return None;
    }
    let pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == TOKEN_COOKIE).map(|(_, value)| value.trim_matches('"')).find(|v| !v.is_empty())
}
