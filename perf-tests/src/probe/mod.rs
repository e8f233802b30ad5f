//! One simulated client at a time, blocking and with deadlines, for end-to-end tests.
//!
//! ```no_run
//! # use std::time::Duration;
//! use perf_tests::probe::{AuthRequest, TcpProbe};
//! # fn main() -> Result<(), perf_tests::probe::ProbeError> {
//! let mut viewer = TcpProbe::connect("127.0.0.1:3101".parse().expect("an address"))?;
//! viewer.auth(&AuthRequest::goim(7, "live://1000"))?;
//! let push = viewer.recv_push(Duration::from_secs(5))?;
//! assert_eq!(push.operation, 1000);
//! # Ok(()) }
//! ```
//!
//! A probe sends what it is told, right or wrong, and hides nothing that it hears: what arrives while a verb waits for
//! its own reply is kept, in order, for the next `recv`. It is no client library, and no load generator ([`crate::load`]).
//!
//! Layout: [`Probe`] the verbs, over a [`Transport`]: `tcp` or `ws`, both on a `stream` · `auth` what a client says of
//! itself · [`daemons`] the real binaries as child processes · [`publisher`] the HTTP side

mod auth;
pub mod daemons;
mod error;
pub mod publisher;
mod stream;
mod tcp;
mod verbs;
mod ws;

pub use auth::AuthRequest;
pub use error::{Closed, ProbeError};
pub use stream::ConnectOptions;
pub use tcp::Tcp;
pub use verbs::{Event, Packet, Probe, Transport};
pub use ws::WebSocket;

/// A client on plain TCP.
pub type TcpProbe = Probe<Tcp>;

/// A client on WebSocket, path `/sub` unless told otherwise.
pub type WsProbe = Probe<WebSocket>;

/// The longest body that a probe takes from a server: far above any batch, far below what would hurt the test's host.
pub const MAX_SERVER_BODY_BYTES: usize = 8 << 20;
