//! A slice of sends as one io_uring submission.
//!
//! Every send asks not to wait (MSG_DONTWAIT), so the kernel is done with all of them when it has taken the submission:
//! the bytes and the sockets need to live no longer than the call. A send that took everything makes no completion, which
//! would be most of what is written and read for it. A short one does: to be whole or to fail (MSG_WAITALL) is what was
//! asked, and the completion of the failure carries what was taken (io_send and io_sendrecv_fail in io_uring/net.c).
//!
//! The ring and the sockets are registered with the kernel, which then looks neither up (`files` keeps account). A kernel
//! that has no room for that, or no more, is asked without.
#![allow(unsafe_code)] // The kernel reads memory by address; see each block.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::thread;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, opcode, types};
use rustix::io::Errno;
use self_cell::{MutBorrow, self_cell};

use super::files::Files;
use super::send::{Outcome, Outgoing, Piece, Pieces};

/// See the module; no signal when the peer is gone.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// How often in a row the kernel may have no memory for a submission before the shard gives up.
const MOST_REFUSALS: u32 = 1_000;

/// How long it is left alone each time.
const REFUSAL_PAUSE: Duration = Duration::from_millis(1);

/// One ring, used by the thread that made it.
pub(crate) struct Ring {
    ring: Split,
    /// `None` if the kernel would not hold the sockets: each send then has its own looked up.
    files: Option<Files>,
    entries: usize,
}

self_cell!(
    /// A ring in its three parts for good: the submitter is what remembers that the ring is registered.
    struct Split {
        owner: MutBorrow<IoUring>,
        #[not_covariant]
        dependent: Parts,
    }
);

struct Parts<'a> {
    submitter: Submitter<'a>,
    queue: SubmissionQueue<'a>,
    completions: CompletionQueue<'a>,
}

impl Ring {
    /// A ring that takes `entries` sends at once, for a shard of so many `slots`.
    ///
    /// # Errors
    /// The kernel has no io_uring, has it switched off, or is older than 6.1.
    pub(crate) fn new(entries: u32, slots: u32) -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_submit_all().build(entries)?;
        let ring = Split::try_new(MutBorrow::new(ring), |ring| {
            let (mut submitter, queue, completions) = ring.borrow_mut().split();
            submitter.register_ring_fd()?;
            Ok::<_, io::Error>(Parts { submitter, queue, completions })
        })?;
        let files = ring.with_dependent(|_, parts| match parts.submitter.register_files_sparse(slots) {
            Ok(()) => Some(Files::new(slots)),
            Err(error) => {
                tracing::info!(%error, slots, "the kernel holds no sockets for io_uring: each send has its own looked up");
                None
            }
        });
        Ok(Self { ring, files, entries: entries as usize })
    }

    /// Connections whose sockets the ring holds by itself.
    pub(crate) fn held(&self) -> u32 {
        self.files.as_ref().map_or(0, Files::count)
    }

    /// A connection came to be in `slot`.
    pub(crate) fn opened(&mut self, slot: u32, socket: RawFd) {
        if self.files.as_mut().is_some_and(|files| files.opened(slot, socket)) {
            self.settle();
        }
    }

    /// The connection in `slot` is about to close its socket, which ends at the next [`Self::let_go`] if not before.
    pub(crate) fn closed(&mut self, slot: u32) {
        if self.files.as_mut().is_some_and(|files| files.closed(slot)) {
            self.settle();
        }
    }

    /// Lets go of the sockets of connections that are closed.
    pub(crate) fn let_go(&mut self) {
        if self.files.as_ref().is_some_and(Files::must_clear) {
            self.settle();
        }
    }

    /// Sends every connection of `slice` its piece and writes down what each took. Gives the number of submissions.
    ///
    /// # Errors
    /// A submission failed: what was sent is not known.
    pub(crate) fn send_all(&mut self, pieces: &Pieces, slice: &mut [Outgoing]) -> io::Result<u64> {
        // Not for the answer to a client's first words: a storm's newcomers are gathered until there are many.
        let is_new =
            |files: &Files| slice.iter().any(|out| matches!(out.piece, Piece::Block(..)) && !files.holds(out.slot));
        if self.files.as_ref().is_some_and(is_new) {
            self.settle();
        }
        let (files, entries) = (self.files.as_ref(), self.entries);
        self.ring.with_dependent_mut(|_, parts| {
            let mut submissions = 0;
            for part in slice.chunks_mut(entries) {
                parts.submit(pieces, part, files)?;
                submissions += 1;
            }
            Ok(submissions)
        })
    }

    /// Brings the kernel's table up to what the shard knows. If that fails, does without: whatever the table holds would
    /// stay open for good.
    fn settle(&mut self) {
        let Some(files) = &mut self.files else { return };
        let settled = self.ring.with_dependent(|_, parts| {
            let settled = files.settle(|first, row| parts.submitter.register_files_update(first, row));
            settled.inspect_err(|_| {
                // The table is empty afterwards, or there was none.
                let _gone = parts.submitter.unregister_files();
            })
        });
        if let Err(error) = settled {
            tracing::warn!(%error, "the kernel holds sockets for io_uring no more: each send has its own looked up");
            self.files = None;
        }
    }
}

impl Parts<'_> {
    fn submit(&mut self, pieces: &Pieces, part: &mut [Outgoing], files: Option<&Files>) -> io::Result<()> {
        for (index, outgoing) in part.iter_mut().enumerate() {
            let bytes = pieces.bytes(outgoing.piece);
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let send = if files.is_some_and(|files| files.holds(outgoing.slot)) {
                opcode::Send::new(types::Fixed(outgoing.slot), bytes.as_ptr(), length)
            } else {
                opcode::Send::new(types::Fd(outgoing.socket), bytes.as_ptr(), length)
            };
            let entry = send.flags(FLAGS).build().flags(Flags::SKIP_SUCCESS).user_data(index as u64);
            // SAFETY: the bytes belong to `pieces` and the socket to a connection of this shard, both of which outlive
            // this call; the kernel is done with them when it has taken the entry, which is awaited below.
            unsafe { self.queue.push(&entry) }.map_err(io::Error::other)?;
            outgoing.outcome = Outcome::Taken(bytes.len());
        }
        self.queue.sync();
        self.hand_over()?;
        for completion in &mut self.completions {
            let result = completion.result();
            let index = usize::try_from(completion.user_data()).map_err(io::Error::other)?;
            let outgoing = part.get_mut(index).ok_or_else(|| io::Error::other("a completion of nothing"))?;
            let taken = usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
            outgoing.outcome = Outcome::of(taken);
        }
        self.completions.sync();
        Ok(())
    }

    /// Has the kernel take all entries.
    fn hand_over(&mut self) -> io::Result<()> {
        let mut refused = 0;
        while !self.queue.is_empty() {
            match self.enter() {
                Ok(0) => return Err(io::Error::other("io_uring took none of a submission")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What is queued cannot be taken back, so the shard waits: the alternative is to end, with all clients.
                Err(error) if is_want_of_memory(&error) && refused < MOST_REFUSALS => {
                    refused += 1;
                    thread::sleep(REFUSAL_PAUSE);
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            self.queue.sync();
        }
        self.completions.sync();
        Ok(())
    }

    fn enter(&self) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(errno) = super::send_faults::next_submission() {
            return Err(errno.into());
        }
        self.submitter.submit()
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
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::super::send::Piece;
    use super::*;
    use crate::block::{Audience, BlockPool, Run, View};
    use crate::compress::Compressed;
    use crate::format::Format;

    /// How long an end may take to be noticed.
    const PATIENCE: Duration = Duration::from_secs(10);

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

    /// A socket that takes bytes, one that is full, and one that takes none any more; and their peers.
    fn sockets() -> ([TcpStream; 3], [TcpStream; 3]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ours = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        let theirs = [(); 3].map(|()| listener.accept().unwrap().0);
        fill(&mut ours[1]);
        ours[2].shutdown(Shutdown::Write).unwrap();
        (ours, theirs)
    }

    /// A packet of 20 bytes to each of the sockets, three times, from slots of their own.
    fn slice(ours: &[TcpStream; 3]) -> (Pieces, Vec<Outgoing>) {
        let packets = vec![7; 20].into();
        let run = Run { packets, count: 1, compressed: Compressed::default() };
        let audience = Audience { formats: [Format::Goim].into_iter().collect(), receivers: 9 };
        let blocks = vec![BlockPool::new().build([run].iter(), audience)];
        let piece = Piece::Block(0, View { format: Format::Goim, websocket: false });
        let sockets = ours.iter().map(AsRawFd::as_raw_fd).cycle().take(9);
        let outgoing = |(slot, socket)| Outgoing { slot, socket, piece, outcome: Outcome::NoMemory };
        (Pieces { blocks, ..Pieces::default() }, (0..).zip(sockets).map(outgoing).collect())
    }

    fn assert_each_gets_its_own(ring: &mut Ring, pieces: &Pieces, slice: &mut [Outgoing]) {
        // More than the ring takes at once.
        assert_eq!(ring.send_all(pieces, slice).unwrap(), 2);
        let outcomes: Vec<Outcome> = slice.iter().map(|outgoing| outgoing.outcome).collect();
        assert_eq!(outcomes, [Outcome::Taken(20), Outcome::Taken(0), Outcome::Broken].repeat(3));
    }

    #[test]
    fn each_send_of_a_submission_gets_the_answer_of_its_own_socket() {
        let Ok(mut ring) = Ring::new(8, 9) else {
            println!("skipped: no io_uring here");
            return;
        };
        let (ours, _theirs) = sockets();
        let (pieces, mut slice) = slice(&ours);
        assert_each_gets_its_own(&mut ring, &pieces, &mut slice);
        for (held, newcomers) in [(3, 0..3), (6, 3..6), (9, 6..9)] {
            slice[newcomers].iter().for_each(|outgoing| ring.opened(outgoing.slot, outgoing.socket));
            assert_each_gets_its_own(&mut ring, &pieces, &mut slice);
            assert_eq!(ring.held(), held);
        }
    }

    #[test]
    fn a_send_that_is_taken_in_part_says_how_much() {
        let Ok(mut ring) = Ring::new(8, 9) else {
            println!("skipped: no io_uring here");
            return;
        };
        let (ours, [mut peer, ..]) = sockets();
        let bytes = 64 << 20;
        let pieces = Pieces { answers: vec![7; bytes], ..Pieces::default() };
        let (socket, piece) = (ours[0].as_raw_fd(), Piece::Answer(0, bytes as u32));
        let mut slice = [Outgoing { slot: 0, socket, piece, outcome: Outcome::Broken }];
        ring.send_all(&pieces, &mut slice).unwrap();
        let Outcome::Taken(taken) = slice[0].outcome else { panic!("{:?}", slice[0].outcome) };
        assert!(0 < taken && taken < bytes, "{taken} bytes taken");
        drop(ours);
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), taken);
    }

    #[test]
    fn a_kernel_that_will_not_hold_sockets_sends_to_them_all_the_same() {
        // More than it has places for.
        let Ok(mut ring) = Ring::new(8, u32::MAX) else {
            println!("skipped: no io_uring here");
            return;
        };
        let (ours, _theirs) = sockets();
        let (pieces, mut slice) = slice(&ours);
        ring.opened(slice[0].slot, slice[0].socket);
        assert_each_gets_its_own(&mut ring, &pieces, &mut slice);
        assert_eq!(ring.held(), 0);
    }

    #[test]
    fn a_kernel_that_holds_no_more_sockets_lets_go_of_those_it_has() {
        let Ok(mut ring) = Ring::new(8, 10) else {
            println!("skipped: no io_uring here");
            return;
        };
        let (ours, theirs) = sockets();
        let (pieces, mut slice) = slice(&ours);
        slice[..3].iter().for_each(|outgoing| ring.opened(outgoing.slot, outgoing.socket));
        assert_each_gets_its_own(&mut ring, &pieces, &mut slice);
        assert_eq!(ring.held(), 3);
        let no_socket = RawFd::MAX;
        ring.opened(9, no_socket);
        ring.opened(3, slice[3].socket);
        assert_each_gets_its_own(&mut ring, &pieces, &mut slice);
        assert_eq!(ring.held(), 0);
        drop(ours);
        for mut peer in theirs {
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            // An end of stream, or a reset: either way nobody has the other end any more.
            match peer.read_to_end(&mut Vec::new()) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "somebody still has the other end"),
            }
        }
    }
}
