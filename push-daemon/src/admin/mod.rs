//! What operators see: the live page, `/stats`, `/metrics`, `/healthz`.
//!
//! It reads figures that shards and the trunk keep anyway, and changes nothing. It has no access control, so it
//! listens on loopback unless told otherwise.
//!
//! Layout: `page` the embedded files · `stats` one snapshot as JSON · `metrics` the same for Prometheus · `lanes` the lanes
//! for both · `isps` what the kernel plane tells by ISP

mod isps;
mod lanes;
mod metrics;
mod page;
mod stats;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::kernel::KernelPlane;
use crate::kernel::steer::Steering;
use crate::lanes::LaneOrder;
use crate::shard::counters::Counters;
use crate::trunk::TrunkStatus;
pub use lanes::LaneStatus;
use stats::Stats;

/// How often the load of each shard is taken.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A shard that made no turn for this long is stuck: an idle one makes one a second.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// What there is to see.
pub struct Sources {
    /// The edge's name.
    pub node: String,
    /// Ports that clients come in on, for the page.
    pub tcp_port: u16,
    /// As above.
    pub ws_port: u16,
    /// One per shard.
    pub shards: Vec<ShardView>,
    /// The upstream link.
    pub trunk: Arc<TrunkStatus>,
    /// The filter, if one was configured. Only this side takes the lock.
    pub kernel: Option<Mutex<KernelPlane>>,
    /// The lanes that shards keep to. Shards have copies of their own.
    pub lanes: Mutex<LaneOrder>,
    /// Where connections are steered, if they are.
    pub steering: Option<Arc<Steering>>,
    /// When the daemon began.
    pub started: Instant,
}

/// One shard, seen from outside.
pub struct ShardView {
    /// What it counts.
    pub counters: Arc<Counters>,
    /// The CPU that it stays on, if any.
    pub cpu: Option<usize>,
    load: Load,
}

/// The load of a shard between the last two samples.
#[derive(Default)]
struct Load {
    busy_ns: AtomicU64,
    turns: AtomicU64,
    /// Part of the time that the loop worked, in thousandths.
    permille: AtomicU32,
    /// Samples in a row without a turn.
    still: AtomicU32,
}

impl ShardView {
    /// A shard with these counters on this CPU.
    #[must_use]
    pub fn new(counters: Arc<Counters>, cpu: Option<usize>) -> Self {
        Self { counters, cpu, load: Load::default() }
    }

    fn sample(&self, elapsed: Duration) {
        let busy = self.counters.busy_ns_total.get();
        let worked = busy - self.load.busy_ns.swap(busy, Relaxed);
        let permille = u128::from(worked) * 1000 / elapsed.as_nanos().max(1);
        self.load.permille.store(permille.min(1000) as u32, Relaxed);
        let turns = self.counters.turns_total.get();
        if self.load.turns.swap(turns, Relaxed) == turns {
            self.load.still.fetch_add(1, Relaxed);
        } else {
            self.load.still.store(0, Relaxed);
        }
    }

    fn is_stuck(&self) -> bool {
        SAMPLE_INTERVAL * self.load.still.load(Relaxed) >= STUCK_AFTER
    }
}

impl Sources {
    /// Whether every shard still turns: the condition of the watchdog.
    #[must_use]
    pub fn shards_turn(&self) -> bool {
        !self.shards.iter().any(ShardView::is_stuck)
    }

    /// Takes a sample of every shard's load, `elapsed` after the last.
    pub fn sample(&self, elapsed: Duration) {
        for shard in &self.shards {
            shard.sample(elapsed);
        }
    }

    /// Sees to it that egress is shaped as the rates in force say, and takes what connections see for the trunk's reports.
    pub fn look_after_kernel(&self) {
        let looked = self.kernel(|plane| (plane.keep_shaping(), plane.tables().measurements()));
        let Some((shaping, measurements)) = looked else { return };
        match shaping {
            Ok(Some(changed)) => tracing::warn!("{changed}"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot look after shaping"),
        }
        match measurements {
            Ok(measurements) => self.trunk.report_isps(&measurements),
            Err(error) => tracing::debug!(%error, "cannot read what was measured"),
        }
    }

    fn stats(&self) -> Stats {
        Stats::of(self)
    }

    fn kernel<T>(&self, look: impl FnOnce(&mut KernelPlane) -> T) -> Option<T> {
        // A panic while somebody looked leaves the tables as they were.
        self.kernel.as_ref().map(|kernel| look(&mut kernel.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[derive(Clone)]
struct Admin {
    sources: Arc<Sources>,
    registry: Arc<Registry>,
}

/// Listens on `address`; what comes there is answered by [`serve`].
///
/// # Errors
/// The address cannot be listened on.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves operators until `stop` fires.
///
/// # Errors
/// The listener broke.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>, stop: oneshot::Receiver<()>) -> io::Result<()> {
    let mut registry = Registry::with_prefix("push");
    registry.register_collector(Box::new(metrics::Figures(Arc::clone(&sources))));
    let admin = Admin { sources, registry: Arc::new(registry) };
    let routes = Router::new()
        .route("/", get(|| async { page::file("index.html") }))
        .route("/{file}", get(|Path(file): Path<String>| async move { page::file(&file) }))
        .route("/stats", get(|State(admin): State<Admin>| async move { Json(admin.sources.stats()) }))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(health))
        .with_state(admin);
    axum::serve(listener, routes)
        .with_graceful_shutdown(async {
            // Dropping the sender means to stop as well.
            let _stopped = stop.await;
        })
        .await
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")).into_response()
        }
    }
}

/// 200 while the edge can let clients in: every loop turns and a line of the trunk is up.
async fn health(State(admin): State<Admin>) -> Response {
    if !admin.sources.shards_turn() {
        return (StatusCode::SERVICE_UNAVAILABLE, "a shard is stuck\n").into_response();
    }
    if !admin.sources.trunk.is_up() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no line of the trunk is up\n").into_response();
    }
    "ok\n".into_response()
}
