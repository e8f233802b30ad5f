//! Tests: a loop that stood still, or whose clock was set, closes nobody for it.

use std::time::Duration;

use wire::goim::op;

use super::by_hand::by_hand;
use super::reason::CloseReason;
use crate::config::{Config, SendPath};

const VIEWERS: usize = 50;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_day_of_standstill_closes_nobody_and_is_counted() {
    by_hand(SendPath::Plain, Config::default().limits, |by_hand| {
        let mut viewers = by_hand.join(VIEWERS);
        by_hand.turn(24 * 3_600 * SECOND);
        assert_eq!(by_hand.counters.joined.get(), VIEWERS as u64);
        assert_eq!(by_hand.counters.standstills_total.get(), 1);
        by_hand.push("still here");
        by_hand.turn(SECOND);
        assert!(viewers.iter_mut().all(|viewer| viewer.hears(1) == [(1000, "still here".to_owned())]));
        assert_eq!(by_hand.counters.standstills_total.get(), 1, "a second is no standstill");
    });
}

#[test]
fn who_falls_silent_is_closed_by_the_time_that_passed_and_the_others_are_not() {
    let limits = Config::default().limits;
    by_hand(SendPath::Plain, limits, |by_hand| {
        let mut viewers = by_hand.join(VIEWERS);
        by_hand.turn(24 * 3_600 * SECOND);
        let timeout_s = limits.heartbeat_timeout_ms.get() / 1_000;
        // Two seconds are the most that a turn counts, and the sweep passes all within an eighth of the time-out.
        for second in (0..timeout_s + timeout_s / 4).step_by(2) {
            if second % 60 == 0 {
                viewers[0].send(op::HEARTBEAT, b"");
                by_hand.turn_until("the heartbeat is answered", |_| !viewers[0].heard().is_empty());
            }
            by_hand.turn(2 * SECOND);
        }
        assert_eq!(by_hand.counters.closed(CloseReason::HeartbeatTimeout).get(), VIEWERS as u64 - 1);
        assert_eq!(by_hand.counters.joined.get(), 1);
    });
}
