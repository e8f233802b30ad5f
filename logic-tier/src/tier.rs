//! The whole tier: builds the parts, starts them, and stops them in the order in which they depend on each other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Api};
use crate::bus::{Bus, BusCloser, BusError};
use crate::config::{Config, default_bus_directory};
use crate::job::Job;
use crate::metrics::Metrics;
use crate::trunk::Trunk;

/// Why the tier cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither the config nor the environment names a directory.
    #[error("there is no place for the bus: set [bus] directory, or one of STATE_DIRECTORY, XDG_STATE_HOME and HOME")]
    NoDirectory,
    /// The bus cannot be opened.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// An address cannot be bound.
    #[error("cannot listen on {address} ([{section}] listen): {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Whose it is.
        section: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A tier that runs.
#[derive(Debug)]
pub struct Tier {
    http_address: SocketAddr,
    trunk_address: SocketAddr,
    bus_directory: PathBuf,
    bus: Arc<Bus>,
    closer: BusCloser,
    stop_api: CancellationToken,
    api: JoinHandle<()>,
    stop_rest: CancellationToken,
    rest: TaskTracker,
    failure: watch::Receiver<Option<String>>,
}

impl Tier {
    /// Opens the bus and serves.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way; nothing runs then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let configured = config.bus.directory.clone();
        let directory = configured.or_else(|| default_bus_directory(|name| std::env::var(name).ok()));
        let bus_directory = directory.ok_or(StartError::NoDirectory)?;
        let http = bind("http", config.http.listen.0).await?;
        let trunk_listener = bind("trunk", config.trunk.listen.0).await?;
        let (http_address, trunk_address) = (local(&http, "http")?, local(&trunk_listener, "trunk")?);
        let metrics = Arc::new(Metrics::default());
        let (bus, closer) = Bus::open(&bus_directory, &config.bus, metrics.clone())?;
        let bus = Arc::new(bus);
        let job = Arc::new(Job::new(bus.clone(), &config.job));
        let trunk = Arc::new(Trunk::new(bus.clone(), job.clone(), &config, metrics.clone()));
        let (stop_api, stop_rest, rest) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let (failed, failure) = watch::channel(None);
        for partition in 0..bus.partitions() {
            let (job, stop, failed) = (job.clone(), stop_rest.clone(), failed.clone());
            rest.spawn(async move {
                if let Err(error) = job.follow(partition, stop).await {
                    failed.send_replace(Some(error.to_string()));
                }
            });
        }
        let (mut bus_failure, stop) = (bus.failure(), stop_rest.clone());
        rest.spawn(async move {
            match stop.run_until_cancelled(bus_failure.wait_for(Option::is_some)).await {
                Some(Ok(reason)) => drop(failed.send_replace(reason.clone())),
                // It ends after this task when all is well.
                Some(Err(_)) => drop(failed.send_replace(Some("the writer of the bus has ended".to_owned()))),
                None => {}
            }
        });
        rest.spawn(trunk.clone().serve(trunk_listener, stop_rest.clone()));
        rest.spawn(trunk.clone().housekeep(stop_rest.clone()));
        let settings = Arc::new(config.http);
        let api = Api { bus: bus.clone(), trunk, metrics, http: settings.clone(), nodes: Arc::new(config.nodes) };
        let api = tokio::spawn(api::serve(http, api::router(api), settings, stop_api.clone()));
        Ok(Self { http_address, trunk_address, bus_directory, bus, closer, stop_api, api, stop_rest, rest, failure })
    }

    /// Where publishers reach it.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Where edges reach it.
    #[must_use]
    pub fn trunk_address(&self) -> SocketAddr {
        self.trunk_address
    }

    /// Where the bus lives.
    #[must_use]
    pub fn bus_directory(&self) -> &Path {
        &self.bus_directory
    }

    /// The bus, to append and to read without HTTP.
    #[must_use]
    pub fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// Set once when a part has failed that the tier cannot go on without. It is to be stopped then, and started anew.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Stops: publishers get their answers, then lines end, then the bus is closed.
    pub async fn stop(self) {
        self.stop_api.cancel();
        log_panic(self.api.await);
        self.stop_rest.cancel();
        self.rest.close();
        self.rest.wait().await;
        let closer = self.closer;
        log_panic(tokio::task::spawn_blocking(move || closer.close()).await);
    }
}

async fn bind(section: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, section, source })
}

fn local(listener: &TcpListener, section: &'static str) -> Result<SocketAddr, StartError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|source| StartError::Listen { address: unknown, section, source })
}

fn log_panic(outcome: Result<(), tokio::task::JoinError>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "a part of the tier did not end well");
    }
}
