//! A sandbox that forbids io_uring, as those of containers do: a filter of system calls (seccomp(2)).
#![allow(unsafe_code)] // No crate of ours offers the call.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io;

/// Answers `EPERM` to `io_uring_setup` of the calling thread, and of whatever it starts from now on. For good: use a
/// thread of its own.
pub(crate) fn forbid_io_uring() {
    rustix::thread::set_no_new_privs(true).unwrap();
    let rows = [
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the call's number
        (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        (libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        (libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let mut rows = rows.map(|(code, jt, jf, k)| libc::sock_filter { code: code as u16, jt, jf, k });
    let program = libc::sock_fprog { len: rows.len() as u16, filter: rows.as_mut_ptr() };
    // SAFETY: the pointer is to `program`, whose rows are as many as it says; the kernel copies both before it returns.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    assert_eq!(result, 0, "cannot filter system calls: {}", io::Error::last_os_error());
}
