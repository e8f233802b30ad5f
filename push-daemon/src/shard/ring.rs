//! A slice of sends as one io_uring submission.
//!
//! Every send asks not to wait (MSG_DONTWAIT), so the kernel completes all of them while it takes the submission, and
//! nothing is under way when [`Ring::send_all`] returns: the bytes and the sockets need to live no longer than the call.
//! Completions are read for successes too: one that is skipped would hide a short send, after which the rest of a
//! packet is due.
#![allow(unsafe_code)] // The kernel reads memory by address; see each block.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;

use super::send::{Outcome, Outgoing, Pieces};

/// Do not wait, and no signal when the peer is gone.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// How often in a row the kernel may have no memory for a submission before the shard gives up.
const MOST_REFUSALS: u32 = 1_000;

/// How long it is left alone each time.
const REFUSAL_PAUSE: Duration = Duration::from_millis(1);

/// One ring, used by the thread that made it.
pub(crate) struct Ring {
    ring: IoUring,
    entries: usize,
}

impl Ring {
    /// A ring that takes `entries` sends at once.
    ///
    /// # Errors
    /// The kernel has no io_uring, has it switched off, or is older than 6.1.
    pub(crate) fn new(entries: u32) -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_submit_all().build(entries)?;
        Ok(Self { ring, entries: entries as usize })
    }

    /// Sends every connection of `slice` its piece and writes down what each took. Gives the number of submissions.
    ///
    /// # Errors
    /// A submission failed or a completion is missing: what was sent is not known.
    pub(crate) fn send_all(&mut self, pieces: &Pieces, slice: &mut [Outgoing]) -> io::Result<u64> {
        let mut submissions = 0;
        for part in slice.chunks_mut(self.entries) {
            self.submit(pieces, part)?;
            submissions += 1;
        }
        Ok(submissions)
    }

    fn enter(&self, awaited: usize) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(errno) = super::send_faults::next_submission() {
            return Err(errno.into());
        }
        self.ring.submit_and_wait(awaited)
    }

    fn submit(&mut self, pieces: &Pieces, part: &mut [Outgoing]) -> io::Result<()> {
        let mut queue = self.ring.submission();
        for (index, outgoing) in part.iter().enumerate() {
            let bytes = pieces.bytes(outgoing.piece);
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let entry = opcode::Send::new(types::Fd(outgoing.socket), bytes.as_ptr(), length)
                .flags(FLAGS)
                .build()
                .user_data(index as u64);
            // SAFETY: the bytes belong to `pieces` and the socket to a connection of this shard, both of which outlive
            // this call; all completions are awaited below, so the kernel is done with them when it returns.
            unsafe { queue.push(&entry) }.map_err(io::Error::other)?;
        }
        drop(queue);
        let mut missing = part.len();
        let mut refused = 0;
        while missing > 0 {
            match self.enter(missing) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What is queued cannot be taken back, so the shard waits: the alternative is to end, with all clients.
                Err(error) if is_want_of_memory(&error) && refused < MOST_REFUSALS => {
                    refused += 1;
                    thread::sleep(REFUSAL_PAUSE);
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            for completion in self.ring.completion() {
                let result = completion.result();
                let outcome = Outcome::of(match usize::try_from(result) {
                    Ok(taken) => Ok(taken),
                    Err(_) => Err(Errno::from_raw_os_error(-result)),
                });
                let index = usize::try_from(completion.user_data()).map_err(io::Error::other)?;
                let outgoing = part.get_mut(index).ok_or_else(|| io::Error::other("a completion of nothing"))?;
                outgoing.outcome = outcome;
                missing -= 1;
            }
        }
        Ok(())
    }
}

/// Whether the kernel could not take a submission now and may be able to in a moment (io_uring_enter(2)).
fn is_want_of_memory(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw_os_error).is_some_and(|errno| matches!(errno, Errno::AGAIN | Errno::NOMEM))
}

/// The socket of a slice's send.
pub(crate) fn borrow<'a>(socket: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the socket belongs to a connection of this shard, which closes none while a slice is under way.
    unsafe { BorrowedFd::borrow_raw(socket) }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::super::send::Piece;
    use super::*;
    use crate::block::{BlockPool, Run, View};
    use crate::compress::Compressed;
    use crate::format::{Format, Formats};

    /// Sends until nothing has been taken for a while: what the other end holds comes to be acknowledged in its own time.
    fn fill(socket: &mut TcpStream) {
        socket.set_nonblocking(true).unwrap();
        let mut refused = 0;
        while refused < 50 {
            match socket.write(&[0; 4096]) {
                Ok(taken) => {
                    assert!(taken > 0);
                    refused = 0;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    refused += 1;
                    thread::sleep(REFUSAL_PAUSE);
                }
            }
        }
    }

    #[test]
    fn each_send_of_a_submission_gets_the_answer_of_its_own_socket() {
        let Ok(mut ring) = Ring::new(8) else {
            println!("skipped: no io_uring here");
            return;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ours = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        let theirs = [(); 3].map(|()| listener.accept().unwrap());
        fill(&mut ours[1]);
        ours[2].shutdown(Shutdown::Write).unwrap();

        let packets = vec![7; 20].into();
        let run = Run { packets, count: 1, compressed: Compressed::default() };
        let formats: Formats = [Format::Goim].into_iter().collect();
        let blocks = vec![BlockPool::new().build([run].iter(), formats)];
        let pieces = Pieces { blocks, ..Pieces::default() };
        let view = View { format: Format::Goim, websocket: false };
        let outgoing = |socket: &TcpStream| Outgoing {
            slot: 0,
            socket: socket.as_raw_fd(),
            piece: Piece::Block(0, view),
            outcome: Outcome::NoMemory,
        };
        // More than the ring takes at once.
        let mut slice: Vec<Outgoing> = ours.iter().cycle().take(9).map(outgoing).collect();
        assert_eq!(ring.send_all(&pieces, &mut slice).unwrap(), 2);
        let outcomes: Vec<Outcome> = slice.iter().map(|outgoing| outgoing.outcome).collect();
        assert_eq!(outcomes, [Outcome::Taken(20), Outcome::Taken(0), Outcome::Broken].repeat(3));
        drop(theirs);
    }
}
