//! `perf-tests clients --engine xdp-or-socket`: sockets where clients made of XDP cannot be had, and loud words about it.

use std::error::Error;
use std::sync::atomic::AtomicBool;

use perf_tests::load::engine::Engine;
use perf_tests::load::engine::socket::SocketEngine;
use perf_tests::load::engine::xdp::error::XdpError;
use perf_tests::load::report::Report;
use perf_tests::load::run::run as conduct;
use perf_tests::load::scenario::Scenario;
use perf_tests::load::watch::Display;
use perf_tests::probe::daemons::{Stack, in_namespace};

use super::clients::CLIENTS_PER_SOURCE;
use super::xdp::{Server, lead_to, namespace, options_for};

/// Runs `scenario` with a socket for each client. `why` is what the other engine said of itself.
///
/// # Errors
/// `why`, when what was asked for cannot be had with sockets either; and what the run says.
pub(super) fn run(
    mut scenario: Scenario,
    server: Server<'_>,
    why: XdpError,
    stop: &AtomicBool,
    display: &mut Display,
) -> Result<Report, Box<dyn Error>> {
    // The scenario, or the place that it names, is at fault: nothing that sockets would be without.
    if matches!(why, XdpError::Beyond(_)) || matches!(server, Server::Ours { is_ipv6: true }) {
        return Err(why.into());
    }
    eprintln!("perf-tests: NO CLIENTS MADE OF XDP: {why}");
    eprintln!(
        "perf-tests: FALLING BACK to one kernel socket for each client, as --engine xdp-or-socket allows. They cost this host \
         as much as the server does: figures are not comparable with those of --engine xdp"
    );
    let engine = |scenario: &Scenario| Ok(Box::new(SocketEngine::start(scenario)?) as Box<dyn Engine>);
    match server {
        Server::Ours { .. } => {
            let stack = Stack::start_with(&options_for(&scenario))?;
            lead_to(&mut scenario, stack.addresses());
            scenario.sources = scenario.clients.div_ceil(CLIENTS_PER_SOURCE);
            Ok(conduct(scenario, engine, stop, display)?)
        }
        Server::Theirs(name) => {
            let path = namespace(name);
            let done = in_namespace(&path, || conduct(scenario, engine, stop, display));
            Ok(done.map_err(|error| format!("cannot enter the network namespace {}: {error}", path.display()))??)
        }
    }
}
