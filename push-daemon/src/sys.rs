//! The system calls that no safe wrapper offers.
//!
//! It holds what must be `unsafe` for the data plane, and nothing that decides anything.
#![allow(unsafe_code)] // `unshare` and `close_range` act on the whole descriptor table; see each block.

use std::io;
use std::os::fd::RawFd;

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

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
