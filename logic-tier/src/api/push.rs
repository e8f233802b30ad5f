//! Messages in: a push is answered with code 0 when the bus has it on disk, and not before.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use bytes::BytesMut;
use http_body_util::BodyExt;
use wire::auth::MAX_KEY_BYTES;
use wire::room::RoomId;

use super::Api;
use super::query::{Query, QueryError};
use super::reply::{BAD_REQUEST, Reply, SERVER_ERROR};
use crate::bus::{AppendError, Origin, Record};
use crate::config;
use crate::metrics::{Kind, PushLabels, PushResult, RequestRefusal};

/// Of a message that is too long, what is taken and thrown away so that its sender gets to read why.
const MAX_DISCARDED_BYTES: usize = 16 << 20;

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
    // Judged before the body is read: a wrong request costs little.
    let target = Target::parse(kind, parts.uri.query(), &api.http)?;
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let message = read(body, announced, &api.http).await?;
    api.bus.append(target.record(message))?.durable().await?;
    Ok(())
}

async fn read(body: Body, announced: Option<u64>, config: &config::Http) -> Result<Bytes, PushError> {
    let max = config.max_body_bytes;
    let timeout = Duration::from_millis(config.request_timeout_ms.get());
    let too_large = |rest: Body| {
        // Besides the answer: most publishers send all of it before they listen, and would find a broken connection.
        tokio::spawn(tokio::time::timeout(timeout, discard(rest)));
        let reply = Reply::refused(BAD_REQUEST, format!("the message has more than {} bytes", max.get()));
        PushError::Refused(RequestRefusal::TooLarge, reply.with_status(StatusCode::PAYLOAD_TOO_LARGE))
    };
    if announced.is_some_and(|length| length > max.get()) {
        return Err(too_large(body));
    }
    let incomplete = |why: String| {
        let reply = Reply::refused(BAD_REQUEST, format!("the message did not arrive whole: {why}"));
        PushError::Refused(RequestRefusal::Incomplete, reply.with_status(StatusCode::REQUEST_TIMEOUT))
    };
    let mut body = body;
    match tokio::time::timeout(timeout, collect(&mut body, max.count())).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(too_large(body)),
        Ok(Err(error)) => Err(incomplete(error.to_string())),
        Err(_elapsed) => Err(incomplete(format!("it took longer than {} ms", timeout.as_millis()))),
    }
}

/// The whole of `body`; `None` once it has more than `max_bytes`.
async fn collect(body: &mut Body, max_bytes: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut message = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if message.len() + data.len() > max_bytes {
            return Ok(None);
        }
        message.extend_from_slice(&data);
    }
    Ok(Some(message.freeze()))
}

/// Takes what still comes of a refused message, up to [`MAX_DISCARDED_BYTES`]; then the connection breaks after all.
async fn discard(mut body: Body) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > MAX_DISCARDED_BYTES {
            break;
        }
    }
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
