//! The whole edge inside the test's process, so that its threads can be looked into, and a tier that does what the
//! test says.
//!
//! Layout: [`Edge`] starts and stops · `tier` the other end of the trunk · `client` one client
#![allow(dead_code)] // Each test binary uses its own part of it.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod client;
mod tier;

use std::time::{Duration, Instant};

use push_daemon::appliance::Appliance;
use push_daemon::config::Config;
use push_daemon::lanes::LanePlan;
use settings::Source;
use tokio::runtime::Runtime;

pub(crate) use client::Client;
pub(crate) use tier::Tier;

/// How long anything may take that has to happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Looks again and again until `look` finds something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} for {what}, in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The settings of an edge on these ports whose trunk ends at `tier`, with others behind them.
pub(crate) fn settings([tcp, websocket]: [u16; 2], tier: &Tier, toml: &str) -> String {
    format!(
        "listen.tcp = [\"127.0.0.1:{tcp}\"]\nlisten.websocket = [\"127.0.0.1:{websocket}\"]\n\
         admin.listen = \"127.0.0.1:0\"\ntrunk.lines = [{{ name = \"A\", address = \"{}\" }}]\n{toml}",
        tier.address()
    )
}

/// An edge on ports of the kernel's choice, whose trunk ends in the test.
pub(crate) struct Edge {
    pub(crate) runtime: Runtime,
    pub(crate) appliance: Appliance,
    pub(crate) tier: Tier,
}

impl Edge {
    /// With these settings behind the addresses.
    pub(crate) fn start(toml: &str) -> Self {
        Self::start_on([0, 0], toml)
    }

    /// The same on these ports, of plain TCP and of WebSocket.
    pub(crate) fn start_on(ports: [u16; 2], toml: &str) -> Self {
        let tier = Tier::start();
        let text = settings(ports, &tier, toml);
        let config = Config::parse(&Source::new("test.toml", &text)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let appliance = runtime.block_on(Appliance::start(&config)).unwrap();
        Self { runtime, appliance, tier }
    }

    /// A client that is in, in `live://ROOM`.
    pub(crate) fn join(&self, websocket: bool, mid: i64, room: u32) -> Client {
        let ports = self.tier.ports();
        let mut client = Client::connect(if websocket { ports.1 } else { ports.0 }, websocket);
        client.ask_in(mid, room);
        client.next(1);
        client
    }

    /// Has the shards keep to this plan of lanes.
    pub(crate) fn set_lanes(&self, plan: LanePlan) {
        self.runtime.block_on(self.appliance.set_lanes(plan));
    }

    /// Says goodbye to all in the time that the settings give it, and ends every part.
    pub(crate) fn drain(self) {
        self.runtime.block_on(self.appliance.stop(std::future::pending()));
    }

    /// Ends every part at once.
    pub(crate) fn stop(self) {
        self.runtime.block_on(self.appliance.stop(async {}));
    }
}
