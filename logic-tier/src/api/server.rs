//! HTTP connections: how many at once, how long a request may take to arrive, and how they end.
//!
//! hyper by itself, because `axum::serve` bounds none of that. What the requests mean is the router's business.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config;

/// The longest head of a request, and what hyper buffers of a body: a URL as long as it may be, and headers.
const BUFFER_BYTES: usize = 128 << 10;

/// How long requests under way may take once the tier stops.
const GRACE: Duration = Duration::from_secs(10);

/// Serves `router` until `stop`, then lets requests under way finish.
pub async fn serve(listener: TcpListener, router: Router, config: Arc<config::Http>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(config.max_connections.count()));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.request_timeout_ms.get()))
        .max_buf_size(BUFFER_BYTES);
    loop {
        // A place first: connections that have none wait in the listener's backlog.
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((Ok(place), accepted)) = stop.run_until_cancelled(next).await else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // A failure to set this only delays answers.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection failed");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some HTTP requests did not end in time");
    }
}
