//! Tests: what clients of a full lane may be owed, and what becomes of those who are owed more.

use super::super::reason::CloseReason;
use super::*;

/// The operation of the last packet before the shard ends the connection.
fn last_words(by_hand: &mut ByHand, viewer: &mut Viewer) -> i32 {
    let mut last = None;
    by_hand.turn_until("the end", |_| {
        let (heard, is_over) = viewer.heard_or_over();
        last = heard.last().map(|(operation, _)| *operation).or(last);
        is_over
    });
    last.unwrap()
}

#[test]
fn who_waits_too_long_is_closed_for_the_lane_told_so_and_counted_until_the_rest_fits() {
    on_each_path(Config::default().limits, |by_hand| {
        by_hand.set_lanes(at_rates(220_000, 0));
        let mut telecom = by_hand.join_from(TELECOM, VIEWERS);
        let mut others = by_hand.join_from(UNICOM, VIEWERS);
        let mut ended = Vec::new();
        let mut still_there = vec![Vec::new(); VIEWERS];
        // Twice as much is due to the lane. What one is owed until its time is up is less than the bound in bytes.
        for number in 0..40 * TURNS_PER_SECOND / 10 {
            by_hand.push(&body(number, 1_000));
            for _ in 0..10 {
                by_hand.turn_at_once(TURN);
            }
            others.iter_mut().for_each(|viewer| assert_eq!(numbers(&viewer.hears(1)), [number]));
            for (at, viewer) in telecom.iter_mut().enumerate().filter(|(at, _)| !ended.contains(at)).collect::<Vec<_>>()
            {
                let (heard, is_over) = viewer.heard_or_over();
                still_there[at].extend(numbers(&heard));
                if is_over {
                    let (operation, words) = heard.last().unwrap();
                    assert_eq!(*operation, op::DISCONNECT_REPLY);
                    assert!(words.contains("the way to your provider is full"), "{words}");
                    ended.push(at);
                }
            }
        }
        let counters = &by_hand.counters;
        let closed = counters.closed(CloseReason::LaneAge).get();
        assert_eq!(closed, counters.lane(1).unwrap().closed_total.get());
        assert_eq!(
            (counters.closed(CloseReason::DebtAge).get(), counters.closed(CloseReason::DebtBytes).get()),
            (0, 0)
        );
        assert_eq!(closed, ended.len() as u64);
        assert!((VIEWERS / 3..VIEWERS).contains(&ended.len()), "{closed} of {VIEWERS}, of whom half fit");
        for heard in &still_there {
            assert!(heard.iter().copied().eq(0..heard.len()), "each once and in order, as far as it got");
        }
    });
}

#[test]
fn who_is_owed_too_much_is_closed_for_the_lane_and_what_it_was_owed_is_counted() {
    on_each_path(Config::default().limits, |by_hand| {
        by_hand.set_lanes(at_rates(1_000, 0));
        let mut telecom = by_hand.join_from(TELECOM, VIEWERS);
        let mut pushed = 0;
        while by_hand.counters.joined.get() > 0 {
            by_hand.push(&body(pushed, 60_000));
            by_hand.turn_at_once(Duration::ZERO);
            pushed += 1;
            assert!(pushed < 10, "a debt of {} bytes is enough", Config::default().limits.debt_bytes.count());
        }
        let counters = &by_hand.counters;
        assert_eq!(counters.closed(CloseReason::LaneBytes).get(), VIEWERS as u64);
        assert_eq!(counters.lane(1).unwrap().closed_total.get(), VIEWERS as u64);
        assert_eq!((waiting(by_hand, 1), counters.owed_bytes.get()), (0, 0));
        let sent = counters.delivered_packets_total.get() - counters.dropped_packets_total.get();
        assert!(sent <= 1, "{sent} went");
        telecom.iter_mut().for_each(|viewer| assert_eq!(last_words(by_hand, viewer), op::DISCONNECT_REPLY));
    });
}

#[test]
fn who_is_sent_away_while_it_waits_is_told_at_once() {
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(1_000, 0));
        let mut viewers = by_hand.join_from(TELECOM, VIEWERS);
        by_hand.push(&body(0, 10_000));
        by_hand.turn(TURN);
        by_hand.turn(TURN);
        assert_eq!(waiting(by_hand, 1), VIEWERS as u64 - 1);
        by_hand.kick_all();
        by_hand.turn(Duration::ZERO);
        viewers.iter_mut().for_each(|viewer| assert_eq!(last_words(by_hand, viewer), op::DISCONNECT_REPLY));
        let counters = &by_hand.counters;
        assert_eq!((waiting(by_hand, 1), counters.owed_bytes.get(), counters.debtors.get()), (0, 0, 0));
        assert_eq!(counters.dropped_packets_total.get(), VIEWERS as u64 - 1);
        drop(viewers);
        by_hand.turn_until("they are gone", |by_hand| by_hand.counters.connections.get() == 0);
        assert_eq!(by_hand.counters.lane(1).unwrap().connections.get(), 0);
    });
}
