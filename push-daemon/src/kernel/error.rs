//! What goes wrong in the kernel plane, in the words of the person who must act.

use std::{io, net::IpAddr, path::PathBuf};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};
use ipnet::IpNet;

use super::config::Mode;

/// Why the kernel plane could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The `[kernel]` section contradicts itself or a bound.
    #[error("the [kernel] section is wrong: {0}")]
    Config(String),

    /// The object file is not there or cannot be read.
    #[error("cannot read the filter's object {path}: {source} (build it with `cargo xtask build-ebpf`)")]
    Object {
        /// The path tried.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The pins would land on an ordinary file system.
    #[error("{path} is not on a bpffs, where pins must live (try `mount -t bpf bpf {mount_point}`)")]
    NotBpffs {
        /// The configured pin root.
        path: PathBuf,
        /// Where a bpffs would help.
        mount_point: PathBuf,
    },

    /// We may not.
    #[error("not permitted to {doing}: it needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    NotPermitted {
        /// What was being done.
        doing: String,
    },

    /// Nothing is pinned.
    #[error("no filter is pinned under {path} (start push-daemon with a [kernel] section, or use `pushctl attach`)")]
    NoPins {
        /// The pin root looked at.
        path: PathBuf,
    },

    /// Pins of a version that lays its maps out differently.
    #[error(
        "{path} holds pins of layout {found}, and this program speaks layout {ours}: they are left alone and still in force \
         (an earlier layout is taken over by `pushctl attach` or a daemon of this version, a later one belongs to a later version; `pushctl detach` removes it)"
    )]
    OtherLayout {
        /// The directory found.
        path: PathBuf,
        /// Its layout.
        found: String,
        /// Ours.
        ours: u32,
    },

    /// A pin that should be ours is something else.
    #[error("{path} is not the table that it should be: {source} (`pushctl detach` removes all pins)")]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// What does not fit.
        source: Box<MapError>,
    },

    /// Somebody else is bringing up or taking down right now.
    #[error("another process holds the lock on {path}: it is bringing the filter up or taking it down; try again")]
    Locked {
        /// The pin root.
        path: PathBuf,
    },

    /// The kernel refused the object or a program.
    #[error("the kernel refused the object {path}: {reason}")]
    Load {
        /// The object.
        path: PathBuf,
        /// Why, with the verifier's last words when there are any.
        reason: String,
    },

    /// No such interface here.
    #[error("there is no interface {interface} in this network namespace (see `ip link`)")]
    NoInterface {
        /// The name asked for.
        interface: String,
    },

    /// The interface exists and the filter did not get on it.
    #[error("cannot attach the filter to {interface} in {mode} mode: {reason}{consequence}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode asked for.
        mode: Mode,
        /// Why, and what to do.
        reason: String,
        /// What is in force now, when something else was before.
        consequence: String,
    },

    /// A rule that would lock out the people who administer the machine.
    #[error("{prefix} is not denied: it lies within the management prefix {management}, which always passes")]
    ManagementPrefix {
        /// The prefix asked for.
        prefix: IpNet,
        /// The management prefix that holds it.
        management: IpNet,
    },

    /// A rule that would lock out the one who gives it.
    #[error(
        "{prefix} would be denied, and you are connected from {operator}: allow that address first, or use --force"
    )]
    LockOut {
        /// Where the operator comes from.
        operator: IpAddr,
        /// The deny that would decide about him.
        prefix: IpNet,
    },

    /// `10.0.0.5/8` and its like.
    #[error("{prefix} has bits set beyond its length: did you mean {network} or {host}?")]
    HostBits {
        /// The prefix asked for.
        prefix: IpNet,
        /// The network that it names.
        network: IpNet,
        /// The host that it names.
        host: IpNet,
    },

    /// No room for another rule.
    #[error(
        "the table {table} is full with {max} rules: remove some, or raise [kernel] {key} (which takes a `pushctl detach` first)"
    )]
    TableFull {
        /// The map.
        table: &'static str,
        /// Its bound.
        max: u32,
        /// The config key that sets it.
        key: &'static str,
    },

    /// There is no such rule.
    #[error("there is no rule for {prefix} (see `pushctl filter list`)")]
    NoRule {
        /// The prefix asked for.
        prefix: IpNet,
    },

    /// A comment that does not fit beside a rule.
    #[error("the comment \"{comment}\" is not one line of at most {most} bytes")]
    Comment {
        /// The comment, or its beginning.
        comment: String,
        /// Bytes that fit.
        most: usize,
    },

    /// Limits that contradict themselves.
    #[error("the limits are wrong: {0}")]
    Limits(String),

    /// An ISP that cannot be.
    #[error("the ISP \"{name}\" is wrong: {what}")]
    Isp {
        /// The name given.
        name: String,
        /// What is wrong.
        what: String,
    },

    /// There is no such ISP.
    #[error("there is no ISP called {name} (see `pushctl isp list`)")]
    NoIsp {
        /// The name asked for.
        name: String,
    },

    /// No number left for another ISP.
    #[error(
        "there are 255 ISPs already, and a connection remembers its ISP in one byte: remove one (`pushctl isp del`)"
    )]
    TooManyIsps,

    /// A file says something twice.
    #[error("{prefix} is there twice, and only one of both can hold")]
    Twice {
        /// The prefix.
        prefix: IpNet,
    },

    /// A time for confirmation that cannot be.
    #[error("{seconds} s to confirm: from 1 second to 7 days can be given")]
    Trial {
        /// The time asked for.
        seconds: u64,
    },

    /// A transaction while another waits for its confirmation.
    #[error(
        "a change is on trial for {seconds} s more: `pushctl confirm` it or `pushctl rollback` first, else it ends by itself"
    )]
    OnTrial {
        /// How long the trial still takes.
        seconds: u64,
    },

    /// `confirm` without a trial.
    #[error(
        "there is nothing to confirm: no change is on trial, or its time was over and the set before is in force again"
    )]
    NothingToConfirm,

    /// `rollback` without a set to go to.
    #[error("there is nothing to go back to: no change was applied since, or it was confirmed")]
    NothingToRollBack,

    /// Two listeners.
    #[error("somebody else listens to the drops already, and each would hear a part: end that `pushctl events` first")]
    Listening,

    /// A system call on a map, a program or a link failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl KernelError {
    /// `source` while `doing`, in words of its own when it is about permission.
    pub(super) fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let (doing, source) = (doing.into(), source.into());
        match source.kind() {
            io::ErrorKind::PermissionDenied => KernelError::NotPermitted { doing },
            _ => KernelError::System { doing, source },
        }
    }

    pub(super) fn map(doing: impl Into<String>, error: MapError) -> Self {
        KernelError::system(doing, io_error_of_map(error))
    }

    pub(super) fn program(doing: impl Into<String>, error: ProgramError) -> Self {
        KernelError::system(doing, io_error_of_program(error))
    }

    pub(super) fn pin(doing: impl Into<String>, error: PinError) -> Self {
        let source = match error {
            PinError::SyscallError(error) => error.io_error,
            error => io::Error::other(error),
        };
        KernelError::system(doing, source)
    }

    pub(super) fn load(path: &std::path::Path, error: EbpfError) -> Self {
        let reason = match error {
            EbpfError::MapError(error) => return KernelError::map("create and pin the tables", error),
            EbpfError::ProgramError(error) => return KernelError::load_program(path, error),
            error => chain(&error),
        };
        KernelError::Load { path: path.into(), reason }
    }

    pub(super) fn load_program(path: &std::path::Path, error: ProgramError) -> Self {
        match error {
            // EACCES is the verifier's refusal; EPERM is about who we are.
            ProgramError::LoadError { io_error, verifier_log } if io_error.raw_os_error() != Some(libc::EPERM) => {
                let log = verifier_log.to_string();
                let last = log.lines().rev().take(6).collect::<Vec<_>>();
                let last = last.into_iter().rev().collect::<Vec<_>>().join(" | ");
                KernelError::Load {
                    path: path.into(),
                    reason: format!("{io_error}; the verifier's last lines: {last}"),
                }
            }
            error => KernelError::program("load a program", error),
        }
    }
}

/// The system's own error inside aya's, so that its kind can be told.
pub(super) fn io_error_of_map(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::CreateError { io_error, .. } | MapError::IoError(io_error) => io_error,
        MapError::PinError { error: PinError::SyscallError(error), .. } => error.io_error,
        error => io::Error::other(chain(&error)),
    }
}

/// As [`io_error_of_map`].
pub(super) fn io_error_of_program(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(error) => error.io_error,
        ProgramError::LoadError { io_error, .. } | ProgramError::IOError(io_error) => io_error,
        ProgramError::MapError(error) => io_error_of_map(error),
        error => io::Error::other(chain(&error)),
    }
}

/// An error and its sources in one line: aya's outer messages alone say too little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
