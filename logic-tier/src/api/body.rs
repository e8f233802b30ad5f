//! The body of a request: read whole within its bounds, or read and dropped.
//!
//! A body is never left unread when it is short: a server that answers and closes while its client still writes resets
//! the connection, and the client sees that instead of the answer.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;

use crate::config;

/// Bytes that are read of a body although nobody wants them.
const DISCARD_BYTES: usize = config::MAX_MESSAGE_BYTES as usize;

/// Why there is no body.
#[derive(Debug)]
pub(super) enum BodyError {
    /// It is longer than the config allows.
    TooLarge,
    /// It did not arrive whole, or not in time.
    Incomplete(String),
}

/// The body, if it is no longer than a message may be.
pub(super) async fn read(body: Body, config: &config::Http) -> Result<Bytes, BodyError> {
    within(config, keep(body, config.max_body_bytes.count())).await
}

/// Drops the body of a request that is refused anyway.
pub(super) async fn discard(body: Body, config: &config::Http) {
    // Whatever is wrong with it, something else is already said.
    let _ = within(config, keep(body, 0)).await;
}

async fn within(
    config: &config::Http,
    body: impl Future<Output = Result<Bytes, BodyError>>,
) -> Result<Bytes, BodyError> {
    let timeout = Duration::from_millis(config.request_timeout_ms.get());
    let late = |_| BodyError::Incomplete(format!("it took longer than {} ms", timeout.as_millis()));
    tokio::time::timeout(timeout, body).await.map_err(late)?
}

async fn keep(mut body: Body, max_bytes: usize) -> Result<Bytes, BodyError> {
    let mut kept = Vec::new();
    let mut total_bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Incomplete(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        total_bytes += data.len();
        if total_bytes <= max_bytes {
            kept.extend_from_slice(&data);
        } else {
            kept = Vec::new();
        }
        if total_bytes > max_bytes.max(DISCARD_BYTES) {
            break;
        }
    }
    if total_bytes > max_bytes { Err(BodyError::TooLarge) } else { Ok(kept.into()) }
}
