//! Who is online, and by which edges.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use serde::Serialize;
use wire::room::RoomId;

use super::Api;
use super::query::{Query, QueryError};
use super::reply::{BAD_REQUEST, Reply};
use crate::metrics::RequestRefusal;
use crate::nodes;

/// Rooms in one answer at most.
const MAX_ROOMS: usize = 1_000;

/// One of `/goim/online/top`. The id stands without its type, as in goim.
#[derive(Serialize)]
struct Top {
    room_id: String,
    count: u32,
}

/// `/goim/online/total`
#[derive(Serialize)]
struct Total {
    conn_count: usize,
    ip_count: usize,
}

pub(super) async fn top(State(api): State<Api>, RawQuery(query): RawQuery) -> Reply {
    answer(&api, query, |query| {
        let kind = query.text("type")?;
        let limit = query.number::<usize>("limit", Some(1))?.filter(|limit| *limit > 0);
        let limit = limit.ok_or(QueryError::Missing("limit"))?.min(MAX_ROOMS);
        let top = api.trunk.sessions().top(kind, limit);
        Ok(Reply::data(top.into_iter().map(|(room_id, count)| Top { room_id, count }).collect::<Vec<_>>()))
    })
}

pub(super) async fn room(State(api): State<Api>, RawQuery(query): RawQuery) -> Reply {
    answer(&api, query, |query| {
        let kind = query.text("type")?;
        let rooms = query.list("rooms", MAX_ROOMS)?;
        let names: Result<Vec<_>, _> = rooms.iter().map(|id| RoomId::new(kind, id)).collect();
        let names = names?;
        let sessions = api.trunk.sessions();
        let counts: BTreeMap<&str, u32> =
            rooms.into_iter().zip(&names).map(|(id, name)| (id, sessions.online(name.as_str()))).collect();
        Ok(Reply::data(counts))
    })
}

pub(super) async fn total(State(api): State<Api>) -> Reply {
    let sessions = api.trunk.sessions();
    Reply::data(Total { conn_count: sessions.total(), ip_count: sessions.addresses() })
}

pub(super) async fn weighted(State(api): State<Api>, RawQuery(query): RawQuery) -> Reply {
    answer(&api, query, |query| {
        let platform = query.optional("platform").unwrap_or("");
        let (answer, first) = nodes::weighted(&api.trunk.edges().connected(), platform, &api.nodes);
        if let Some(first) = first {
            api.trunk.edges().hand_out(&first);
        }
        Ok(Reply::data(answer))
    })
}

pub(super) async fn instances(State(api): State<Api>) -> Reply {
    Reply::data(nodes::instances(api.trunk.edges().connected()))
}

fn answer(api: &Api, query: Option<String>, reply: impl FnOnce(&Query<'_>) -> Result<Reply, QueryError>) -> Reply {
    Query::parse(query.as_deref()).and_then(|query| reply(&query)).unwrap_or_else(|error| {
        api.metrics.refuse(RequestRefusal::Parameter);
        Reply::refused(BAD_REQUEST, error.to_string())
    })
}
