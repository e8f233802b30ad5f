//! The edge as a process: its runtime, the signals that end it, and what the service manager is told.

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::appliance::{Appliance, ApplianceError, notify};
use crate::config::Config;

/// Serves clients until the process is asked to stop, and says goodbye to them. A second signal cuts that short. What
/// goes wrong stands in the log.
///
/// # Errors
/// The edge cannot start, or a part of it has ended by itself: the process is to end with a code other than 0, so that
/// it is started again.
pub fn serve(config: &Config) -> Result<(), ApplianceError> {
    let host = |what| move |error| ApplianceError::Host { what, error };
    // For operators only: trunk and shards have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(host("start the runtime"))?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(host("listen for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(host("listen for SIGINT"))?;
        let appliance = Appliance::start(config).await.inspect_err(|error| tracing::error!("{error}"))?;
        notify(NotifyState::Ready);
        let watched = appliance.watch(asked_to_stop(&mut terminate, &mut interrupt)).await;
        // Before the drain, which takes its time.
        let watched = watched.inspect_err(|error| tracing::error!("{error}"));
        notify(NotifyState::Stopping);
        appliance.stop(asked_to_stop(&mut terminate, &mut interrupt)).await;
        watched
    })
}

async fn asked_to_stop(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
