//! The publisher's side: goim's HTTP API, as an application server calls it.
//!
//! Blocking, one request at a time per clone; connections are kept alive between requests.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use ureq::Agent;

/// How long a request may take as a whole.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// What the tier answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status: 200 for whatever goim's API answers itself.
    pub status: u16,
    /// goim's code: 0 when the push was accepted. `None` when the body is not goim's JSON.
    pub code: Option<i64>,
    /// Why not, or the whole body when it is not goim's JSON.
    pub message: String,
    /// What a query asked for.
    pub data: Option<Value>,
}

impl Answer {
    /// Whether the tier took the push.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.status == 200 && self.code == Some(0)
    }
}

/// The request got no answer, so nobody knows whether the push was accepted.
#[derive(Debug, thiserror::Error)]
#[error("no answer to {request} from {at}: {source}")]
pub struct NoAnswer {
    request: String,
    at: SocketAddr,
    source: Box<ureq::Error>,
}

/// An application server's HTTP client.
#[derive(Debug, Clone)]
pub struct Publisher {
    agent: Agent,
    at: SocketAddr,
    api_key: Option<String>,
}

#[derive(Deserialize)]
struct Goim {
    code: i64,
    #[serde(default)]
    message: String,
    data: Option<Value>,
}

impl Publisher {
    /// A publisher to the tier's HTTP address.
    #[must_use]
    pub fn new(at: SocketAddr) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_WITHIN))
            // A test's or a proxy's environment must not send loopback traffic elsewhere.
            .proxy(None);
        Self { agent: config.build().new_agent(), at, api_key: None }
    }

    /// Sends this key as a bearer token with each request.
    #[must_use]
    pub fn with_api_key(mut self, key: &str) -> Self {
        self.api_key = Some(key.to_owned());
        self
    }

    /// A push to the members of a room.
    ///
    /// # Errors
    /// [`NoAnswer`]; a refusal is an [`Answer`].
    pub fn push_room(&self, operation: i32, kind: &str, room: &str, message: &[u8]) -> Result<Answer, NoAnswer> {
        let operation = operation.to_string();
        self.post("/goim/push/room", &[("operation", &operation), ("type", kind), ("room", room)], message)
    }

    /// A push to connections.
    ///
    /// # Errors
    /// As [`Publisher::push_room`].
    pub fn push_keys(&self, operation: i32, keys: &[&str], message: &[u8]) -> Result<Answer, NoAnswer> {
        let operation = operation.to_string();
        let mut query = vec![("operation", operation.as_str())];
        query.extend(keys.iter().map(|key| ("keys", *key)));
        self.post("/goim/push/keys", &query, message)
    }

    /// A push to users.
    ///
    /// # Errors
    /// As [`Publisher::push_room`].
    pub fn push_mids(&self, operation: i32, mids: &[i64], message: &[u8]) -> Result<Answer, NoAnswer> {
        let (operation, mids) = (operation.to_string(), mids.iter().map(i64::to_string).collect::<Vec<_>>());
        let mut query = vec![("operation", operation.as_str())];
        query.extend(mids.iter().map(|mid| ("mids", mid.as_str())));
        self.post("/goim/push/mids", &query, message)
    }

    /// A push to everybody, at `speed` connections per second and edge (0: as fast as it goes).
    ///
    /// # Errors
    /// As [`Publisher::push_room`].
    pub fn push_all(&self, operation: i32, speed: u32, message: &[u8]) -> Result<Answer, NoAnswer> {
        let (operation, speed) = (operation.to_string(), speed.to_string());
        self.post("/goim/push/all", &[("operation", &operation), ("speed", &speed)], message)
    }

    /// Any POST, well-formed or not.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub fn post(&self, path: &str, query: &[(&str, &str)], body: &[u8]) -> Result<Answer, NoAnswer> {
        let mut request = self.agent.post(self.url(path)).query_pairs(query.iter().copied());
        if let Some(key) = &self.api_key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        self.read(&format!("POST {path}"), request.send(body))
    }

    /// Any GET: the queries of the API, `/metrics`, `/healthz`.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, NoAnswer> {
        let mut request = self.agent.get(self.url(path)).query_pairs(query.iter().copied());
        if let Some(key) = &self.api_key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        self.read(&format!("GET {path}"), request.call())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    fn read(
        &self,
        request: &str,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, NoAnswer> {
        let no_answer =
            |source: ureq::Error| NoAnswer { request: request.to_owned(), at: self.at, source: Box::new(source) };
        let mut response = response.map_err(no_answer)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(no_answer)?;
        Ok(match serde_json::from_str::<Goim>(&text) {
            Ok(Goim { code, message, data }) => Answer { status, code: Some(code), message, data },
            Err(_) => Answer { status, code: None, message: text, data: None },
        })
    }
}
