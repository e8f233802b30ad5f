//! The system calls that no crate of ours offers safely.
//!
//! Each function says what its caller has to keep; nothing here decides anything.
#![allow(unsafe_code)] // The one place of this crate that may: a few calls, each behind a safe signature.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;
use socket2::{Domain, SockAddr, Socket, Type};

/// Gives the calling thread a private copy of the process's descriptor table, so that its descriptors count against
/// `RLIMIT_NOFILE` alone.
///
/// A descriptor opened afterwards means nothing in any other thread: it has to be closed where it was opened.
///
/// # Errors
/// What `unshare` says; the kernel needs memory for the copy and nothing else.
pub(crate) fn unshare_descriptor_table() -> io::Result<()> {
    // SAFETY: the danger of CLONE_FILES is that another thread uses a descriptor made here, or the reverse. The
    // caller's contract (above) forbids it, and the thread holds no owned descriptor that it did not inherit.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }.map_err(io::Error::from)
}

/// Lets a socket that is bound to an address choose its port only in `connect`, so that one source address serves
/// as many connections per destination as there are ephemeral ports (Linux 4.2).
///
/// # Errors
/// What `setsockopt` says.
pub(crate) fn bind_address_no_port(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of `on`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel kill the child when the *thread* that spawns it ends, however it ends.
pub(crate) fn die_with_spawner(command: &mut Command) {
    // SAFETY: between fork and exec only `prctl` is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from));
    }
}

/// CPU time that the process `pid` has used, all its threads together, those that have ended included. In nanoseconds.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub(crate) fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is to `clock`, which outlives the call.
    let result = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    // The one call of its family that returns the error's number.
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to `time`, which outlives the call.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // A clock of used time is never negative.
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Puts a TCP socket under repair, so that closing it says nothing to the other end: no FIN, no RST (tcp(7), `TCP_REPAIR`).
///
/// # Errors
/// What `setsockopt` says: without `CAP_NET_ADMIN`, `EPERM`.
pub(crate) fn close_without_a_word(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of `on`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling thread, for good, into a network namespace that is new and empty. It goes with the last thread or
/// descriptor that holds it.
///
/// # Errors
/// What `unshare` says: `EPERM` without root.
pub(crate) fn enter_new_network_namespace() -> io::Result<()> {
    // SAFETY: what makes `unshare` unsafe is CLONE_FILES, which is not asked for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// A socket that sends whole frames out of an interface of this thread's network namespace, and receives none.
///
/// # Errors
/// What `socket` and `bind` say: `EPERM` without root.
pub(crate) fn frame_socket(interface_index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    // SAFETY: the storage is larger than a `sockaddr_ll` and as strictly aligned, and all zero is a valid value of either.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*address).sll_ifindex = interface_index as libc::c_int;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    Ok(socket)
}

/// Memory that the kernel, or another process, reads and writes at the same time.
#[derive(Debug)]
pub(crate) struct Shared {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: it owns its pages as a box does, and nothing but atomics is handed out.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the first `words` words of what `file` holds.
    ///
    /// # Errors
    /// What `mmap` says: `EPERM` or `ENOTSUPP` when `file` is no such thing.
    pub(crate) fn map(file: impl AsFd, words: usize) -> io::Result<Self> {
        let bytes = words * size_of::<u64>();
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, words })
    }

    /// All of it.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped for as long as this lives, a page is as strictly aligned as they are, any bits
        // are a number, and whoever else writes them does so as with atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nobody borrows from it any more. A mapping that cannot be taken away stays, which harms nobody.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}
