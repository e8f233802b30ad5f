//! The real binaries as child processes: started, awaited, killed, restarted on the same directories, and never left
//! behind.
//!
//! Each [`Stack`] lives on a loopback address of its own (127.a.b.c, drawn from the process and a counter), so that
//! tests in parallel never meet on a port. Its files live in one temporary directory that goes with it. When the test
//! fails, the tail of each log is printed.
//!
//! It does not build the binaries: they are looked for beside the test's executable, or in `PUSH_BIN_DIR`.
//!
//! Layout: [`Stack`] a tier and an edge that know each other · `process` one child · `namespace` where it runs · `config`
//! their TOML

mod config;
mod namespace;
mod process;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

pub use namespace::in_namespace;
pub use process::{Daemon, Ready, binary};

use super::publisher::Publisher;
use super::{AuthRequest, ProbeError, TcpProbe, WsProbe};

/// How long a daemon may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Why the real thing is not there to test with.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Not built, or built elsewhere.
    #[error("{name} is not in {looked_in:?}: build it (cargo build -p {name}) or point PUSH_BIN_DIR at it")]
    NoBinary {
        /// The binary.
        name: String,
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
    },
    /// The child ended before it was ready.
    #[error("{name} ended with {status} before it was ready; its log ends:\n{log}")]
    Ended {
        /// The binary.
        name: String,
        /// Its exit status.
        status: String,
        /// The tail of its log.
        log: String,
    },
    /// The child runs but does not answer.
    #[error("{name} did not answer on {ready} within {within:?}; its log ends:\n{log}")]
    NotReady {
        /// The binary.
        name: String,
        /// What was asked.
        ready: String,
        /// How long.
        within: Duration,
        /// The tail of its log.
        log: String,
    },
    /// The child did not end after SIGTERM.
    #[error("{name} still runs {within:?} after SIGTERM")]
    NotStopped {
        /// The binary.
        name: String,
        /// How long.
        within: Duration,
    },
    /// A TOML fragment of the test does not parse.
    #[error("the test's own configuration for {name} is no TOML: {source}")]
    Fragment {
        /// The binary.
        name: String,
        /// Where and why.
        source: toml::de::Error,
    },
    /// The test's host failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl DaemonError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// The addresses of one stack.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The edge's plain goim port.
    pub tcp: SocketAddr,
    /// The edge's WebSocket port.
    pub websocket: SocketAddr,
    /// The edge's page, metrics and health.
    pub admin: SocketAddr,
    /// The tier's publisher API.
    pub http: SocketAddr,
    /// The tier's end of the trunk.
    pub trunk: SocketAddr,
    /// Where the edge thinks the tier's trunk is: the same, unless the test puts itself between.
    pub trunk_as_dialled: SocketAddr,
}

/// What a test wants different from the plain stack.
#[derive(Debug, Clone, Default)]
pub struct StackOptions {
    /// TOML laid over the edge's generated configuration, table by table.
    pub push_daemon_toml: String,
    /// TOML laid over the tier's generated configuration.
    pub logic_tier_toml: String,
    /// Where the edge dials the trunk instead of at the tier, to cut or delay it.
    pub trunk_through: Option<SocketAddr>,
    /// The network namespace that both run in (`/run/netns/NAME`). Their addresses are then the test's to choose
    /// ([`Stack::start_on`]), and its clients' to reach.
    pub namespace: Option<PathBuf>,
}

/// A logic tier and an edge on loopback.
#[derive(Debug)]
pub struct Stack {
    // Declared, and so dropped, before the directory that they write to. The edge first: it then drains in peace.
    edge: Daemon,
    tier: Daemon,
    addresses: Addresses,
    directory: TempDir,
}

impl Stack {
    /// Both daemons, plainly configured, ready.
    ///
    /// # Errors
    /// [`DaemonError`] when a binary is missing or does not come up; nothing is left running then.
    pub fn start() -> Result<Self, DaemonError> {
        Self::start_with(&StackOptions::default())
    }

    /// Both daemons, ready, with what the test wants different.
    ///
    /// # Errors
    /// As [`Stack::start`], and when a fragment of `options` is no TOML.
    pub fn start_with(options: &StackOptions) -> Result<Self, DaemonError> {
        let mut addresses = Self::reserve()?;
        if let Some(through) = options.trunk_through {
            addresses.trunk_as_dialled = through;
        }
        Self::start_on(addresses, options)
    }

    /// Addresses of a stack that is to be started with [`Stack::start_on`], for a test that has to know them before.
    ///
    /// # Errors
    /// [`DaemonError::Io`] when loopback has no port left.
    pub fn reserve() -> Result<Addresses, DaemonError> {
        let host = own_loopback_address();
        let mut held = Vec::new();
        let mut port = || -> Result<SocketAddr, DaemonError> {
            // Held until all are drawn, so that no two are the same.
            let listener = TcpListener::bind((host, 0)).map_err(DaemonError::io(format!("find a port on {host}")))?;
            let address = listener.local_addr().map_err(DaemonError::io("read a port"))?;
            held.push(listener);
            Ok(address)
        };
        let (tcp, websocket, admin, http, trunk) = (port()?, port()?, port()?, port()?, port()?);
        Ok(Addresses { tcp, websocket, admin, http, trunk, trunk_as_dialled: trunk })
    }

    /// Both daemons on addresses drawn before.
    ///
    /// # Errors
    /// As [`Stack::start_with`].
    pub fn start_on(addresses: Addresses, options: &StackOptions) -> Result<Self, DaemonError> {
        let directory = tempfile::Builder::new()
            .prefix("push-stack-")
            .tempdir()
            .map_err(DaemonError::io("make a temporary directory"))?;
        let tier_toml = config::logic_tier(&addresses, directory.path(), &options.logic_tier_toml)?;
        let edge_toml = config::push_daemon(&addresses, directory.path(), &options.push_daemon_toml)?;
        let namespace = options.namespace.as_deref();
        let mut tier =
            Daemon::new("logic-tier", directory.path(), &tier_toml, Ready::Port(addresses.http))?.inside(namespace);
        let ready = Ready::Http(addresses.admin, "/healthz".to_owned());
        let mut edge = Daemon::new("push-daemon", directory.path(), &edge_toml, ready)?.inside(namespace);
        tier.start(READY_WITHIN)?;
        edge.start(READY_WITHIN)?;
        Ok(Self { edge, tier, addresses, directory })
    }

    /// The edge's process.
    pub fn edge(&mut self) -> &mut Daemon {
        &mut self.edge
    }

    /// The tier's process.
    pub fn tier(&mut self) -> &mut Daemon {
        &mut self.tier
    }

    /// Where everything listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Configurations, data and logs of both.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A publisher to the tier.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.addresses.http)
    }

    /// A client on TCP that the edge has let in.
    ///
    /// # Errors
    /// [`ProbeError`], the refusal included.
    pub fn join_tcp(&self, request: &AuthRequest) -> Result<TcpProbe, ProbeError> {
        let mut probe = TcpProbe::connect(self.addresses.tcp)?;
        probe.auth(request).map(|()| probe)
    }

    /// A client on WebSocket that the edge has let in.
    ///
    /// # Errors
    /// [`ProbeError`], the refusal included.
    pub fn join_ws(&self, request: &AuthRequest) -> Result<WsProbe, ProbeError> {
        let mut probe = WsProbe::connect(self.addresses.websocket)?;
        probe.auth(request).map(|()| probe)
    }
}

/// An address in 127.0.0.0/8 that is hardly any other stack's: drawn from the pid and a counter. Two that do meet still
/// have ports of their own, because a port is only drawn when it is free.
fn own_loopback_address() -> Ipv4Addr {
    static STACKS: AtomicU32 = AtomicU32::new(0);
    let number = STACKS.fetch_add(1, Ordering::Relaxed) % 1024;
    // 24 bits are left below 127/8; the multiplier spreads pids that follow one another.
    let drawn = std::process::id().wrapping_mul(1024).wrapping_add(number).wrapping_mul(0x9e37_79b1) >> 8;
    let [_, a, b, c] = drawn.to_be_bytes();
    // Away from 127.0.0.x, where load generators and people are, and from .0 and .255.
    Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))
}
