//! A scenario as a run of one phase: everybody joins, messages are published and heard, the books are settled.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::conduct::{Conductor, Phase, RunError};
use super::engine::{Engine, EngineError};
use super::report::Report;
use super::scenario::Scenario;
use super::watch::Watch;

/// The name of the one phase.
const NAME: &str = "run";

/// Runs `scenario` on the engine that `start` makes, until it is done or `stop` is set.
///
/// # Errors
/// [`RunError`] when the generator itself breaks; whatever the servers do is a result.
pub fn run(
    scenario: Scenario,
    start: impl FnOnce(&Scenario) -> Result<Box<dyn Engine>, EngineError>,
    stop: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<Report, RunError> {
    let orders = scenario.behaviour.orders();
    let closes_within = Duration::from_millis(u64::from(scenario.behaviour.closes_within_ms));
    let (publish, listen_for) = (scenario.publish.clone(), scenario.listen_for);
    let mut conductor = Conductor::start(scenario, start, stop, watch)?;
    conductor.build()?;
    match publish {
        Some(publish) => conductor.publish(&Phase { name: NAME.to_owned(), publish, orders, closes_within })?,
        None => conductor.listen(NAME, listen_for, &orders, closes_within)?,
    };
    conductor.finish()
}
