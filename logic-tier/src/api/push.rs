//! Messages in: a push is answered with code 0 when the bus has it on disk, and not before.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use wire::auth::MAX_KEY_BYTES;
use wire::room::RoomId;

use super::Api;
use super::body::{self, BodyError};
use super::query::{Query, QueryError};
use super::reply::{BAD_REQUEST, Reply, SERVER_ERROR};
use crate::bus::{AppendError, Origin, Record};
use crate::config;
use crate::metrics::{Kind, PushLabels, PushResult, RequestRefusal};

pub(super) async fn push(State(api): State<Api>, kind: Kind, request: Request) -> Reply {
    let (result, reply) = match accept(&api, kind, request).await {
        Ok(()) => (PushResult::Accepted, Reply::done()),
        Err(PushError::Failed(reason, reply)) => {
            api.metrics.refuse(reason);
            (PushResult::Failed, reply)
        }
        Err(PushError::Refused(reason, reply)) => {
            api.metrics.refuse(reason);
            (PushResult::Refused, reply)
        }
    };
    api.metrics.pushes.get_or_create(&PushLabels { kind, result }).inc();
    reply
}

/// Whose fault it was, and what is said.
enum PushError {
    /// The publisher's.
    Refused(RequestRefusal, Reply),
    /// Ours.
    Failed(RequestRefusal, Reply),
}

impl From<QueryError> for PushError {
    fn from(error: QueryError) -> Self {
        let reason = match error {
            QueryError::NoOperation | QueryError::ProtocolOperation(_) => RequestRefusal::Operation,
            _ => RequestRefusal::Parameter,
        };
        Self::Refused(reason, Reply::refused(BAD_REQUEST, error.to_string()))
    }
}

impl From<AppendError> for PushError {
    fn from(error: AppendError) -> Self {
        let reason = if error == AppendError::Busy { RequestRefusal::Busy } else { RequestRefusal::Bus };
        Self::Failed(reason, Reply::refused(SERVER_ERROR, error.to_string()))
    }
}

async fn accept(api: &Api, kind: Kind, request: Request) -> Result<(), PushError> {
    let (parts, body) = request.into_parts();
    let target = match Target::parse(kind, parts.uri.query(), &api.http) {
        Ok(target) => target,
        Err(error) => {
            body::discard(body, &api.http).await;
            return Err(error.into());
        }
    };
    let message = body::read(body, &api.http).await.map_err(|error| refuse_body(error, &api.http))?;
    api.bus.append(target.record(message))?.durable().await?;
    Ok(())
}

fn refuse_body(error: BodyError, config: &config::Http) -> PushError {
    let (reason, status, message) = match error {
        BodyError::TooLarge => (
            RequestRefusal::TooLarge,
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the message has more than {} bytes", config.max_body_bytes.get()),
        ),
        BodyError::Incomplete(why) => (
            RequestRefusal::Incomplete,
            StatusCode::REQUEST_TIMEOUT,
            format!("the message did not arrive whole: {why}"),
        ),
    };
    PushError::Refused(reason, Reply::refused(BAD_REQUEST, message).with_status(status))
}

/// What the parameters say; the message is yet to come.
struct Target {
    operation: i32,
    whom: Whom,
}

enum Whom {
    Keys(Vec<String>),
    Mids(Vec<i64>),
    Room(RoomId),
    All { speed: u32 },
}

impl Target {
    fn parse(kind: Kind, query: Option<&str>, config: &config::Http) -> Result<Self, QueryError> {
        let query = Query::parse(query)?;
        let operation = query.operation()?;
        let max_targets = config.max_targets.count();
        let whom = match kind {
            Kind::Keys => {
                let keys = query.list("keys", max_targets)?;
                if keys.iter().any(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
                    return Err(QueryError::Length { name: "keys", max_bytes: MAX_KEY_BYTES });
                }
                Whom::Keys(keys.into_iter().map(str::to_owned).collect())
            }
            Kind::Mids => Whom::Mids(query.numbers("mids", max_targets)?),
            Kind::Room => Whom::Room(RoomId::new(query.text("type")?, query.text("room")?)?),
            Kind::All => Whom::All { speed: query.number("speed", Some(0))?.unwrap_or(0) },
        };
        Ok(Self { operation, whom })
    }

    fn record(self, body: Bytes) -> Record {
        match self.whom {
            Whom::Keys(keys) => Record::keys(keys, self.operation, body),
            Whom::Mids(mids) => Record::mids(mids, self.operation, body),
            Whom::Room(room) => Record::room(&room, self.operation, body, Origin::Publisher),
            Whom::All { speed } => Record::all(speed, self.operation, body),
        }
    }
}
