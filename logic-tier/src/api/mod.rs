//! goim's HTTP API: what publishers and operators ask (goim: `internal/logic/http`).
//!
//! The bodies and codes are goim's: HTTP 200 with `code` 0, -400 or -500. What goim has no answer for gets an ordinary
//! HTTP status: 401 without the key, 413 for a message that is too long, 404 and 405 for what is no route.
//!
//! It does not decide where a message goes; that is in its target. It keeps nothing.
//!
//! Layout: `server` connections and their bounds · `query` parameters · `body` bytes · `reply` answers · `push` messages in
//! · `online` who is online · this file has the routes and the key

mod body;
mod online;
mod push;
mod query;
mod reply;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

pub use server::serve;

use crate::bus::Bus;
use crate::config;
use crate::metrics::{Kind, Metrics, RequestRefusal};
use crate::trunk::Trunk;
use reply::Reply;

/// A writer that has not been seen for this long is stuck at its disk, or gone.
const WRITER_SILENCE: Duration = Duration::from_secs(10);

/// What every handler may use.
#[derive(Clone)]
pub struct Api {
    /// Where messages go.
    pub bus: Arc<Bus>,
    /// Who is online, and by which edges.
    pub trunk: Arc<Trunk>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// `[http]`
    pub http: Arc<config::Http>,
    /// `[nodes]`
    pub nodes: Arc<config::Nodes>,
}

/// All routes.
pub fn router(api: Api) -> Router {
    let keyed = Router::new()
        .route("/goim/push/keys", post(|api: State<Api>, request: Request| push::push(api, Kind::Keys, request)))
        .route("/goim/push/mids", post(|api: State<Api>, request: Request| push::push(api, Kind::Mids, request)))
        .route("/goim/push/room", post(|api: State<Api>, request: Request| push::push(api, Kind::Room, request)))
        .route("/goim/push/all", post(|api: State<Api>, request: Request| push::push(api, Kind::All, request)))
        .route("/goim/online/top", get(online::top))
        .route("/goim/online/room", get(online::room))
        .route("/goim/online/total", get(online::total))
        .route("/goim/nodes/instances", get(online::instances))
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(api.clone(), ask_for_key));
    // Clients ask where to connect before anybody knows them, and a balancer asks for health.
    keyed.route("/goim/nodes/weighted", get(online::weighted)).route("/healthz", get(health)).with_state(api)
}

async fn ask_for_key(State(api): State<Api>, request: Request, next: Next) -> Response {
    let keys = &api.http.api_keys;
    let given = key(request.headers());
    // Every key is compared, so that the time does not tell which one was nearly right.
    let known = keys.iter().fold(false, |known, key| known | key.matches(given));
    if keys.is_empty() || known {
        return next.run(request).await;
    }
    api.metrics.refuse(RequestRefusal::ApiKey);
    body::discard(request.into_body(), &api.http).await;
    let message = "the API key is missing or wrong; send it as X-Api-Key or as Authorization: Bearer";
    let reply = Reply::refused(-401, message).with_status(StatusCode::UNAUTHORIZED);
    ([(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))], reply).into_response()
}

/// The key that a request carries; empty when it carries none.
fn key(headers: &HeaderMap) -> &[u8] {
    if let Some(key) = headers.get("x-api-key") {
        return key.as_bytes();
    }
    let Some(authorization) = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) else { return b"" };
    match authorization.split_at_checked(b"Bearer ".len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"Bearer ") => key.trim_ascii(),
        _ => b"",
    }
}

async fn metrics(State(api): State<Api>) -> Response {
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(CONTENT_TYPE, kind)], api.metrics.text()).into_response()
}

async fn health(State(api): State<Api>) -> Response {
    if let Some(failure) = &*api.bus.failure().borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("the bus failed: {failure}\n")).into_response();
    }
    if Instant::now().saturating_duration_since(api.bus.writer_seen()) > WRITER_SILENCE {
        return (StatusCode::SERVICE_UNAVAILABLE, "the bus is stuck at its disk\n").into_response();
    }
    "ok\n".into_response()
}
