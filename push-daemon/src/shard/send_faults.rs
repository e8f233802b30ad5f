//! For tests: a kernel that has no memory for a send, whichever way the send goes.
//!
//! A kernel cannot be made short of memory for one test, so the small interface of `send` asks here first, in tests only:
//! sends that are struck come to what the kernel's answer would come to, and never reach it.

use std::cell::RefCell;
use std::collections::VecDeque;

use rustix::io::Errno;

use super::send::{Outcome, Outgoing};

thread_local! {
    /// What the next sends of this thread are answered.
    static ANSWERS: RefCell<VecDeque<Errno>> = const { RefCell::new(VecDeque::new()) };
}

thread_local! {
    /// What the next submissions of this thread to io_uring are answered.
    static REFUSALS: RefCell<VecDeque<Errno>> = const { RefCell::new(VecDeque::new()) };
}

/// The next `times` submissions of this thread are refused with `errno`, whole.
pub(crate) fn refuse_submissions(errno: Errno, times: usize) {
    REFUSALS.with_borrow_mut(|refusals| refusals.extend(std::iter::repeat_n(errno, times)));
}

/// How the next submission is refused, if it is.
pub(crate) fn next_submission() -> Option<Errno> {
    REFUSALS.with_borrow_mut(VecDeque::pop_front)
}

/// The next `times` sends of this thread are answered `errno`.
pub(crate) fn strike(errno: Errno, times: usize) {
    ANSWERS.with_borrow_mut(|answers| answers.extend(std::iter::repeat_n(errno, times)));
}

/// Sends that are still to be struck.
pub(crate) fn left() -> usize {
    ANSWERS.with_borrow(VecDeque::len)
}

/// What the next send comes to, if it is struck.
pub(crate) fn next() -> Option<Outcome> {
    ANSWERS.with_borrow_mut(VecDeque::pop_front).map(|errno| Outcome::of(Err(errno)))
}

/// Answers sends at the front of a slice, and gives the others.
pub(crate) fn struck(slice: &mut [Outgoing]) -> &mut [Outgoing] {
    let count = left().min(slice.len());
    let (struck, others) = slice.split_at_mut(count);
    for outgoing in struck {
        outgoing.outcome = next().expect("there are as many answers");
    }
    others
}

mod tests {
    use std::time::Duration;

    use wire::goim::op;

    use super::super::by_hand::{ByHand, Viewer, by_hand};
    use super::super::reason::CloseReason;
    use super::*;
    use crate::config::{Config, Limits, SendPath};

    /// Enough for a submission of io_uring.
    const VIEWERS: usize = 24;

    /// Of them, those whose sends fail.
    const STRUCK: usize = 10;

    /// A tick of the shard's liveness, and a bit.
    const TICK: Duration = Duration::from_millis(110);

    fn limits() -> Limits {
        Config::default().limits
    }

    /// On each send path that there is here.
    fn on_each_path(work: impl Fn(&mut ByHand) + Send + Copy) {
        by_hand(SendPath::Plain, limits(), work);
        // `Auto`: a machine without io_uring goes the plain path twice.
        by_hand(SendPath::Auto, limits(), work);
    }

    fn heard_by_all(viewers: &mut [Viewer], bodies: &[&str]) -> bool {
        viewers.iter_mut().all(|viewer| {
            let heard: Vec<_> = viewer.hears(bodies.len()).into_iter().map(|(_, body)| body).collect();
            heard == bodies
        })
    }

    #[test]
    fn the_kernels_answers() {
        let rows = [
            (Errno::NOBUFS, Outcome::NoMemory),
            (Errno::NOMEM, Outcome::NoMemory),
            (Errno::AGAIN, Outcome::Taken(0)),
            (Errno::CONNRESET, Outcome::Broken),
            (Errno::PIPE, Outcome::Broken),
            (Errno::TIMEDOUT, Outcome::Broken),
        ];
        for (errno, expected) in rows {
            assert_eq!(Outcome::of(Err(errno)), expected, "{errno:?}");
        }
    }

    #[test]
    fn a_block_that_the_kernel_had_no_memory_for_goes_at_the_next_tick_and_in_order() {
        for errno in [Errno::NOBUFS, Errno::NOMEM] {
            on_each_path(|by_hand| {
                let mut viewers = by_hand.join(VIEWERS);
                strike(errno, STRUCK);
                by_hand.push("first");
                by_hand.turn(Duration::ZERO);
                assert_eq!((left(), by_hand.counters.debtors.get()), (0, STRUCK as u64), "owed, not lost");
                by_hand.push("second");
                by_hand.turn(Duration::ZERO);
                assert_eq!(by_hand.counters.debtors.get(), STRUCK as u64, "no socket made an event");
                by_hand.turn(TICK);
                assert_eq!((by_hand.counters.debtors.get(), by_hand.counters.owed_bytes.get()), (0, 0));
                assert!(heard_by_all(&mut viewers, &["first", "second"]));
                let counters = &by_hand.counters;
                assert_eq!(counters.delivered_packets_total.get(), 2 * VIEWERS as u64);
                assert_eq!(counters.sends_without_memory_total.get(), STRUCK as u64);
                assert_eq!((counters.dropped_packets_total.get(), counters.joined.get()), (0, VIEWERS as u64));
            });
        }
    }

    #[test]
    fn the_attempts_go_on_as_long_as_the_kernel_has_no_memory() {
        on_each_path(|by_hand| {
            let mut viewers = by_hand.join(VIEWERS);
            // The block, and one attempt at each of five ticks, for each of them.
            strike(Errno::NOBUFS, VIEWERS * 6);
            by_hand.push("late");
            by_hand.turn(Duration::ZERO);
            for _ in 0..5 {
                by_hand.turn(TICK);
                assert_eq!(by_hand.counters.debtors.get(), VIEWERS as u64);
            }
            by_hand.turn(TICK);
            assert_eq!((left(), by_hand.counters.debtors.get()), (0, 0));
            assert!(heard_by_all(&mut viewers, &["late"]));
        });
    }

    #[test]
    fn a_submission_that_the_kernel_had_no_memory_for_is_made_again() {
        for errno in [Errno::AGAIN, Errno::NOMEM] {
            by_hand(SendPath::Auto, limits(), |by_hand| {
                let mut viewers = by_hand.join(VIEWERS);
                refuse_submissions(errno, 5);
                by_hand.push("a little late");
                by_hand.turn(Duration::ZERO);
                assert!(heard_by_all(&mut viewers, &["a little late"]));
                let submits = by_hand.counters.io_uring.get() == 1;
                assert_eq!(next_submission().is_none(), submits, "refused only where there are submissions");
                assert_eq!(by_hand.counters.debtors.get(), 0);
            });
        }
    }

    #[test]
    fn an_answer_that_the_kernel_had_no_memory_for_goes_at_the_next_tick() {
        on_each_path(|by_hand| {
            let mut viewers = by_hand.join(1);
            strike(Errno::NOMEM, 1);
            viewers[0].send(op::HEARTBEAT, b"");
            by_hand.turn_until("the answer fails", |_| left() == 0);
            assert!(viewers[0].heard().is_empty());
            by_hand.push("behind it");
            by_hand.turn(Duration::ZERO);
            by_hand.turn(TICK);
            let operations: Vec<i32> = viewers[0].hears(2).into_iter().map(|(operation, _)| operation).collect();
            assert_eq!(operations, [op::HEARTBEAT_REPLY, 1000]);
        });
    }

    #[test]
    fn a_socket_that_was_full_for_want_of_memory_and_makes_no_event_is_not_taken_for_a_slow_client() {
        on_each_path(|by_hand| {
            let mut viewers = by_hand.join(VIEWERS);
            // tcp(7) says no more than this when it cannot get memory, and an empty socket has nothing to become free.
            strike(Errno::AGAIN, STRUCK);
            by_hand.push("late");
            by_hand.turn(Duration::ZERO);
            assert_eq!(by_hand.counters.debtors.get(), STRUCK as u64);
            for _ in 0..=limits().debt_age_ms.get() / 1_000 {
                by_hand.turn(Duration::from_secs(1));
            }
            assert_eq!(by_hand.counters.closed(CloseReason::DebtAge).get(), 0);
            assert!(heard_by_all(&mut viewers, &["late"]));
        });
    }

    #[test]
    fn clients_whose_kernel_never_gets_memory_are_closed_for_what_they_owe_and_counted() {
        on_each_path(|by_hand| {
            let mut viewers = by_hand.join(VIEWERS);
            strike(Errno::NOBUFS, 100_000);
            by_hand.push("never");
            by_hand.turn(Duration::ZERO);
            for _ in 0..=limits().debt_age_ms.get() / 1_000 {
                by_hand.turn(Duration::from_secs(1));
            }
            let counters = &by_hand.counters;
            assert_eq!(counters.closed(CloseReason::DebtAge).get(), VIEWERS as u64);
            assert_eq!((counters.dropped_packets_total.get(), counters.owed_bytes.get()), (VIEWERS as u64, 0));
            assert_eq!(counters.connections.get(), 0);
            viewers.clear();
        });
    }
}
