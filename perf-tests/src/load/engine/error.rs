//! Why an engine cannot go on.

use super::xdp::error::XdpError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A system call that every client needs.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system forbids what an order asks for.
    #[error("cannot {doing}: {source} (it needs CAP_NET_ADMIN)")]
    Forbidden {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine without sockets.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// The scenario asks for what only the other engine can do.
    #[error("clients with sockets cannot {0} (--engine xdp can)")]
    NoSuchSocket(&'static str),
    /// A thread is gone, and its clients with it.
    #[error("a client thread panicked")]
    Panicked,
}

impl EngineError {
    pub(super) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
