//! A round as io_uring submissions of 256 sends on registered files.
//!
//! A send that took everything makes no completion. One that did not, does, because of two flags: `MSG_WAITALL` makes a
//! short send a failure, whose completion carries what was taken, and `MSG_DONTWAIT` keeps the kernel from finishing it
//! later (io_send in io_uring/net.c). So every send is done when the submission is, and what is not complained of is whole.
#![allow(unsafe_code)] // The kernel reads memory by address; see the block.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;

use super::outlet::Troubles;

/// Sends of one submission.
const ENTRIES: u32 = 256;

/// See the module; no signal when the peer is gone.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// One ring, used by the thread that made it.
pub(super) struct Ring {
    ring: IoUring,
    /// Files registered, in the order of the thread's sockets.
    registered: u32,
}

impl Ring {
    /// # Errors
    /// The kernel has no io_uring, has it switched off, or is older than 6.1.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_submit_all().build(ENTRIES)?;
        Ok(Self { ring, registered: 0 })
    }

    /// Gives the ring its own hold of `sockets`, so that a send need not look its socket up.
    pub(super) fn register(&mut self, sockets: &[OwnedFd]) -> io::Result<()> {
        self.unregister()?;
        if sockets.is_empty() {
            return Ok(());
        }
        let files: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        self.ring.submitter().register_files(&files)?;
        self.registered = files.len() as u32;
        Ok(())
    }

    /// Lets go of the sockets; one that is closed before that stays open.
    pub(super) fn unregister(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.registered) > 0 {
            self.ring.submitter().unregister_files()?;
        }
        Ok(())
    }

    /// Sends `block` to every registered socket and notes those that did not take all. Says how many system calls it took.
    pub(super) fn send_to_all(&mut self, block: &[u8], troubles: &mut Troubles) -> io::Result<u64> {
        let length = u32::try_from(block.len()).map_err(io::Error::other)?;
        let mut calls = 0;
        let mut next = 0;
        while next < self.registered {
            let end = self.registered.min(next + ENTRIES);
            let mut queue = self.ring.submission();
            for socket in next..end {
                let entry = opcode::Send::new(types::Fixed(socket), block.as_ptr(), length)
                    .flags(FLAGS)
                    .build()
                    .flags(Flags::SKIP_SUCCESS)
                    .user_data(u64::from(socket));
                // SAFETY: the kernel is done with the bytes when the submission below returns, because a request with
                // MSG_DONTWAIT is never put off, and `block` is borrowed for longer. The queue was empty and holds
                // ENTRIES.
                unsafe { queue.push(&entry) }.map_err(io::Error::other)?;
            }
            drop(queue);
            calls += self.submit(end - next)?;
            next = end;
            self.complaints(block.len(), troubles)?;
        }
        Ok(calls)
    }

    /// Hands `wanted` entries to the kernel.
    fn submit(&mut self, wanted: u32) -> io::Result<u64> {
        let (mut taken, mut calls) = (0, 0);
        while taken < wanted as usize {
            calls += 1;
            match self.ring.submit() {
                Ok(0) => return Err(io::Error::other("io_uring took none of a submission")),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(calls)
    }

    fn complaints(&mut self, length: usize, troubles: &mut Troubles) -> io::Result<()> {
        for completion in self.ring.completion() {
            let result = completion.result();
            let taken = usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
            let socket = u32::try_from(completion.user_data()).map_err(io::Error::other)?;
            troubles.note(socket, taken, length);
        }
        Ok(())
    }
}
