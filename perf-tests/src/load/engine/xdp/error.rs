//! Why there are no clients made of XDP.

use std::io;
use std::path::PathBuf;

/// See the module. Each says what is missing.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// Not root.
    #[error("clients made of XDP need root, for network namespaces and eBPF (--engine socket needs none)")]
    NotRoot,
    /// Not built.
    #[error(
        "{name} is not in a directory bpf beside {executable}: build it (cargo xtask build-ebpf) or point PUSH_BPF_DIR at it"
    )]
    NoObject {
        /// The object.
        name: &'static str,
        /// Ours.
        executable: PathBuf,
    },
    /// The kernel does not take it.
    #[error("cannot load {object}: {reason}")]
    Load {
        /// The object.
        object: PathBuf,
        /// What the kernel or the loader said.
        reason: String,
    },
    /// No driver mode, or no permission.
    #[error("cannot attach {program} in driver mode: {reason} (--engine socket needs no XDP)")]
    Attach {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// A map did not do what maps do.
    #[error("cannot {doing} the table {table}: {reason}")]
    Table {
        /// What was being done.
        doing: &'static str,
        /// The map.
        table: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The scenario asks for what these clients cannot do.
    #[error("clients made of XDP cannot do this: {0}")]
    Beyond(String),
    /// A namespace, a link, a socket.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl XdpError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
