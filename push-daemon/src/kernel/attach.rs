//! From the loaded program to the interface, in exactly the mode asked for, through a pinned link.
//!
//! The link keeps the filter attached without any process. A link that is at the right place gets a new program in one
//! step, with no packet unjudged. It does not decide whether to attach: `plane` does.

use std::{fs, io, path::Path};

use aya::programs::{
    ProgramError, Xdp, XdpError, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};

use super::{
    config::Mode,
    error::{KernelError, io_error_of_program},
    netlink,
};

/// An interface in this thread's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    /// Inode of the namespace; an index means nothing without it.
    pub(super) namespace: u64,
}

impl Interface {
    pub(super) fn find(name: &str) -> Result<Self, KernelError> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
        let failed = |error| KernelError::system(format!("look up the interface {name}"), error);
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
        match netdevice::name_to_index(&socket, name) {
            Ok(index) => Ok(Self { name: name.into(), index, namespace: namespace_inode()? }),
            Err(rustix::io::Errno::NODEV) => Err(KernelError::NoInterface { interface: name.into() }),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Inode of this thread's network namespace.
pub(super) fn namespace_inode() -> Result<u64, KernelError> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/thread-self/ns/net")
        .map(|metadata| metadata.ino())
        .map_err(|source| KernelError::system("look at this thread's network namespace", source))
}

/// Attaches `program` and pins the link at `pin`. On an error nothing is attached.
pub(super) fn attach(program: &mut Xdp, interface: &Interface, mode: Mode, pin: &Path) -> Result<(), KernelError> {
    let asked = match mode {
        Mode::Driver => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = program
        .attach_to_if_index(interface.index, asked)
        .map_err(|error| refused(interface, mode, reason_of(error, interface, mode)))?;
    let link = program.take_link(id).map_err(|error| KernelError::program("take hold of the link", error))?;
    let link: FdLink = link.try_into().map_err(|_| {
        refused(interface, mode, "this kernel cannot pin an XDP link (it takes Linux 5.9 or later)".into())
    })?;
    link.pin(pin).map(drop).map_err(|error| KernelError::pin(format!("pin the link at {}", pin.display()), error))
}

/// Swaps the program of the link pinned at `pin` in one step.
pub(super) fn replace_program(program: &mut Xdp, pin: &Path) -> Result<(), KernelError> {
    let doing = "swap the program of the pinned link";
    let broken = |error| KernelError::system(doing, io::Error::other(error));
    let link = FdLink::from(PinnedLink::from_pin(pin).map_err(broken)?);
    let link = XdpLink::try_from(link).map_err(broken)?;
    program.attach_to_link(link).map(drop).map_err(|error| KernelError::program(doing, error))
}

fn refused(interface: &Interface, mode: Mode, reason: String) -> KernelError {
    KernelError::Attach { interface: interface.name.clone(), mode, reason, consequence: String::new() }
}

/// The kernel's refusal in words that say what to do.
fn reason_of(error: ProgramError, interface: &Interface, mode: Mode) -> String {
    let error = match error {
        ProgramError::XdpError(XdpError::NetlinkError(error)) => return format!("the kernel said: {error}"),
        error => io_error_of_program(error),
    };
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) if mode == Mode::Driver => {
            format!("the driver has no XDP support (use mode = \"{}\")", mode.other())
        }
        Some(libc::EBUSY | libc::EEXIST) => match netlink::xdp_at(interface.index) {
            Ok(Some(other)) => format!(
                "another XDP program (id {}) runs there in {} mode (`ip link show {}`); it has to go first",
                other.program_id, other.mode, interface.name
            ),
            _ => "another XDP program is attached there; it has to go first".into(),
        },
        Some(libc::ERANGE) => {
            format!(
                "the driver says that an MTU is too large for XDP (see `ip link show {}`, its peer included)",
                interface.name
            )
        }
        Some(libc::EPERM | libc::EACCES) => {
            "not permitted: it needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON".into()
        }
        _ => format!("the kernel said: {error}"),
    }
}
