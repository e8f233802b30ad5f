//! Tests: a socket that io_uring holds ends with its connection.

use std::time::Duration;

use super::by_hand::by_hand;
use crate::config::{Config, SendPath};

const VIEWERS: usize = 24;

/// Longer than a client that was told goodbye is waited for.
const LATER: Duration = Duration::from_secs(3);

#[test]
fn a_socket_ends_with_its_connection_and_the_next_one_in_the_slot_has_its_own() {
    by_hand(SendPath::Auto, Config::default().limits, |by_hand| {
        let mut first = by_hand.join(VIEWERS);
        by_hand.push("to the first");
        by_hand.turn(Duration::ZERO);
        assert!(first.iter_mut().all(|viewer| viewer.hears(1) == [(1000, "to the first".to_owned())]));
        let held = |count: usize, by_hand: &super::by_hand::ByHand| {
            let expected = if by_hand.counters.io_uring.get() == 1 { count as u64 } else { 0 };
            assert_eq!(by_hand.counters.held_sockets.get(), expected);
        };
        held(VIEWERS, by_hand);
        by_hand.kick_all();
        by_hand.turn(Duration::ZERO);
        by_hand.turn(LATER);
        assert_eq!(by_hand.counters.connections.get(), 0);
        held(0, by_hand);
        first.iter_mut().for_each(|viewer| viewer.is_refused_what_it_sends());

        let mut second = by_hand.join(VIEWERS);
        by_hand.push("to the second");
        by_hand.turn(Duration::ZERO);
        assert!(second.iter_mut().all(|viewer| viewer.hears(1) == [(1000, "to the second".to_owned())]));
        held(VIEWERS, by_hand);
    });
}
