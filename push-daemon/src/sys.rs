//! The system calls that no safe wrapper offers.
//!
//! It holds what must be `unsafe` for the data plane, and nothing that decides anything.
#![allow(unsafe_code)] // Calls that act on a whole descriptor table, or take an address; see each block.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use socket2::Socket;

/// Highest descriptor of the standard streams, which every thread keeps.
const LAST_STANDARD: u32 = 2;

/// Gives the calling thread a descriptor table of its own, which holds the standard streams and `keep`.
///
/// The limit RLIMIT_NOFILE counts per table, so a process of n such threads may hold n times as many
/// descriptors, and look-ups in a table with one user need no atomic. What other threads have open is
/// closed in the copy only: a socket that they drop later ends then, not when this thread ends.
///
/// # Errors
/// `unshare(CLONE_FILES)` or `close_range` failed (Linux 5.9 and newer have both; a seccomp filter may forbid them).
pub(crate) fn own_descriptor_table(keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: the new table is a copy, so every descriptor that this thread owns stays valid under its number.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })?;
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.unsigned_abs()).collect();
    keep.sort_unstable();
    let mut first = LAST_STANDARD + 1;
    for fd in keep {
        close_between(first, fd.checked_sub(1))?;
        first = fd + 1;
    }
    close_between(first, Some(u32::MAX))
}

fn close_between(first: u32, last: Option<u32>) -> io::Result<()> {
    let Some(last) = last.filter(|last| *last >= first) else { return Ok(()) };
    // SAFETY: the table was made private above; nothing in this thread owns a descriptor outside `keep`, and the
    // owners in other threads look their descriptors up in another table.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } as libc::c_int)
}

/// Has a listening socket hold a connection back until its first bytes are there, so that a shard wakes once for both.
/// Who says nothing is handed over after `seconds` all the same, when the kernel repeats its SYN+ACK.
///
/// Clients of this protocol always speak first (tcp(7), TCP_DEFER_ACCEPT).
///
/// # Errors
/// `setsockopt` failed.
pub(crate) fn defer_accept(listener: &Socket, seconds: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&seconds) as libc::socklen_t;
    // SAFETY: the option takes an int, which lives through the call.
    check(unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            length,
        )
    })
}

/// Has a TCP socket tell of what it received only when there are so many bytes, or its peer is done (tcp(7), SO_RCVLOWAT).
/// If there are so many already, it tells at once.
///
/// # Errors
/// `setsockopt` failed.
pub(crate) fn tell_of_received(socket: impl AsFd, bytes: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the option takes an int, which lives through the call; the descriptor is borrowed for its time.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            length,
        )
    })
}

/// Gives the kernel back what the allocator has free, which it otherwise keeps for good (malloc_trim(3)). Threads that
/// allocate meanwhile wait for some milliseconds.
pub(crate) fn give_heap_back() {
    // SAFETY: it touches nothing but memory that the allocator itself holds, under the allocator's locks.
    #[cfg(target_env = "gnu")]
    let _released = unsafe { libc::malloc_trim(0) };
}

/// Bytes that the socket has taken and the peer has not acknowledged.
///
/// # Errors
/// The socket is none, or does not know.
pub(crate) fn unacknowledged_bytes(socket: impl AsFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one `int` at the address (tcp(7), SIOCOUTQ, which is TIOCOUTQ), and `bytes` is one that
    // outlives the call; the descriptor is borrowed for its time.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes.unsigned_abs())
}

/// Has the CPU fetch what is about to be read, while the caller does something else.
#[inline]
pub(crate) fn prefetch<T>(soon: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint. It reads nothing that a program could see, and the address is that of a reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(soon).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = soon;
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
