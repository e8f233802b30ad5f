//! The system calls that no crate of ours offers safely.
//!
//! Each function says what its caller has to keep; nothing here decides anything.
#![allow(unsafe_code)] // The one place of this crate that may: few calls, each behind a safe signature.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

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
