//! The operations of `bpf(2)` that aya does not offer. Links: open a pinned one, ask where it is attached, swap its program, detach
//! it now. And the cookie of a network namespace, by which programs know it.
//!
//! aya's own `PinnedLink` tells neither the interface of a link nor its descriptor, and dropping a pin detaches only
//! once the last descriptor anywhere is closed.
//!
//! Layout: `maps` maps made by hand, and many entries at once · here: links.
#![allow(unsafe_code)] // `bpf(2)` has no safe wrapper; this module is one.

pub(in crate::kernel) mod maps;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `bpf_link_type` of a link to a control group.
const LINK_TYPE_CGROUP: u32 = 3;

/// The kinds of links to interfaces, as `bpf_link_type` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::kernel) enum LinkKind {
    /// Before the network stack.
    Xdp = 6,
    /// Traffic control.
    Tcx = 11,
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET` and `BPF_OBJ_PIN` read.
#[repr(C)]
#[derive(Default)]
struct ObjectGet {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
#[repr(C)]
#[derive(Default)]
struct InfoGet {
    descriptor: u32,
    info_bytes: u32,
    info: u64,
}

/// The part of `union bpf_attr` that `BPF_LINK_DETACH` reads.
#[repr(C)]
#[derive(Default)]
struct LinkDetach {
    descriptor: u32,
}

/// The part of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// The beginning of `struct bpf_link_info`, up to what these links fill in. The kernel copies no more than we have room for.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    link_id: u32,
    program_id: u32,
    // The union that follows is 8-byte aligned.
    padding: u32,
    /// Of a link to an interface its index, and for traffic control the hook; of one to a control group its number in both halves.
    place: [u32; 2],
}

const _: () = assert!(size_of::<RawLinkInfo>() == 24);

/// Where a link is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct LinkInfo {
    /// The program that it runs.
    pub(in crate::kernel) program_id: u32,
    /// The interface, in the namespace where it was attached; 0 when that interface is gone.
    pub(in crate::kernel) interface_index: u32,
}

/// Opens what is pinned at `path`.
pub(in crate::kernel) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attributes = ObjectGet { path: path.as_ptr() as u64, ..ObjectGet::default() };
    let descriptor = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Pins `object` at `path`.
pub(in crate::kernel) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let descriptor = object.as_fd().as_raw_fd() as u32;
    let mut attributes = ObjectGet { path: path.as_ptr() as u64, descriptor, ..ObjectGet::default() };
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Where a link to a control group is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct CgroupLink {
    /// The program that it runs.
    pub(in crate::kernel) program_id: u32,
    /// The group; 0 when it is gone.
    pub(in crate::kernel) cgroup_id: u64,
}

/// What `link` runs and where.
pub(in crate::kernel) fn link_info(link: impl AsFd, kind: LinkKind) -> io::Result<LinkInfo> {
    let info = raw_link_info(link, kind as u32)?;
    Ok(LinkInfo { program_id: info.program_id, interface_index: info.place[0] })
}

/// What `link` to a control group runs and where.
pub(in crate::kernel) fn cgroup_link_info(link: impl AsFd) -> io::Result<CgroupLink> {
    let info = raw_link_info(link, LINK_TYPE_CGROUP)?;
    let [low, high] = info.place.map(u32::to_ne_bytes);
    let mut number = [0; 8];
    number[..4].copy_from_slice(&low);
    number[4..].copy_from_slice(&high);
    Ok(CgroupLink { program_id: info.program_id, cgroup_id: u64::from_ne_bytes(number) })
}

fn raw_link_info(link: impl AsFd, kind: u32) -> io::Result<RawLinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attributes = InfoGet {
        descriptor: link.as_fd().as_raw_fd() as u32,
        info_bytes: size_of::<RawLinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    if info.kind != kind {
        return Err(io::Error::other(format!("the link is of type {}, and should be of type {kind}", info.kind)));
    }
    Ok(info)
}

/// Puts `program` in the place of the one that `link` runs, in one step.
pub(in crate::kernel) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link: link.as_fd().as_raw_fd() as u32,
        program: program.as_fd().as_raw_fd() as u32,
        ..LinkUpdate::default()
    };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Cookie of this thread's network namespace. (Linux 5.14.)
pub(in crate::kernel) fn namespace_cookie() -> io::Result<u64> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, both of which outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// libc does not name it for every target.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Detaches at once, whoever else holds the link open.
pub(in crate::kernel) fn detach_link(link: impl AsFd) -> io::Result<()> {
    let mut attributes = LinkDetach { descriptor: link.as_fd().as_raw_fd() as u32 };
    bpf(BPF_LINK_DETACH, &mut attributes).map(drop)
}

fn bpf<Attributes>(command: libc::c_int, attributes: &mut Attributes) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are one of the `repr(C)` structs above, made for this command, and their size is passed along;
    // the pointers inside point to values that outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
