//! Tests: more clients at once than admission can be asked about.

use std::time::Duration;

use super::by_hand::{ByHand, MOST_ASKING, by_hand};
use super::reason::CloseReason;
use crate::config::{Config, SendPath};

const STORM: usize = 100;
const _: () = assert!(STORM > MOST_ASKING as usize);

/// More than it takes to accept everybody who may be.
const TURNS: u32 = 20;

fn all_asked_after_some_turns(by_hand: &mut ByHand) -> Vec<wire::key::Place> {
    let mut asked = Vec::new();
    for _ in 0..TURNS {
        by_hand.turn(Duration::ZERO);
        asked.extend(by_hand.asked());
    }
    asked
}

#[test]
fn who_admission_cannot_be_asked_about_yet_waits_and_is_not_refused() {
    by_hand(SendPath::Plain, Config::default().limits, |by_hand| {
        let viewers = by_hand.knock(STORM);
        let first = all_asked_after_some_turns(by_hand);
        assert_eq!(first.len(), MOST_ASKING as usize);
        // A no makes room just as a yes does.
        let (denied, granted) = first.split_at(10);
        denied.iter().for_each(|place| by_hand.deny(*place));
        granted.iter().for_each(|place| by_hand.grant(*place));
        let then = all_asked_after_some_turns(by_hand);
        assert_eq!(first.len() + then.len(), STORM);
        then.iter().for_each(|place| by_hand.grant(*place));
        by_hand.turn(Duration::ZERO);
        assert_eq!(by_hand.counters.joined.get(), (STORM - denied.len()) as u64);
        assert_eq!(by_hand.counters.closed(CloseReason::AuthUnavailable).get(), 0);
        drop(viewers);
    });
}

#[test]
fn who_gives_up_while_admission_is_asked_makes_room() {
    by_hand(SendPath::Plain, Config::default().limits, |by_hand| {
        let impatient = by_hand.knock(MOST_ASKING as usize);
        assert_eq!(all_asked_after_some_turns(by_hand).len(), MOST_ASKING as usize);
        drop(impatient);
        by_hand.turn_until("they are gone", |by_hand| by_hand.counters.connections.get() == 0);
        assert_eq!(by_hand.join(10).len(), 10);
    });
}
