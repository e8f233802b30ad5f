//! Tests: another plan while clients wait.

use super::*;

#[test]
fn who_is_left_over_at_the_end_of_a_turn_has_the_next_at_once() {
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(1_000, 0));
        let mut viewers = by_hand.join_from(TELECOM, VIEWERS);
        by_hand.push(&body(0, 10_000));
        by_hand.turn(TURN);
        assert_eq!(waiting(by_hand, 1), VIEWERS as u64 - 1);
        by_hand.set_turn_sends(VIEWERS / 2);
        by_hand.set_lanes(at_rates(0, 0));
        by_hand.turn(Duration::ZERO);
        assert_eq!((waiting(by_hand, 1), by_hand.would_wait()), (VIEWERS as u64 / 2 - 1, Duration::ZERO));
        by_hand.turn(Duration::ZERO);
        assert!(viewers.iter_mut().all(|viewer| numbers(&viewer.hears(1)) == [0]));
        assert!(by_hand.would_wait() > Duration::ZERO);
    });
}

#[test]
fn a_rate_that_changes_takes_effect_at_once() {
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(1_000, 0));
        let mut viewers = by_hand.join_from(TELECOM, VIEWERS);
        by_hand.push(&body(0, 50_000));
        by_hand.turn(TURN);
        by_hand.turn(TURN);
        // One got it, and a minute is due for that.
        assert_eq!(waiting(by_hand, 1), VIEWERS as u64 - 1);
        by_hand.set_lanes(at_rates(1_000_000, 0));
        let before = wire_bytes(by_hand, 1);
        for _ in 0..TURNS_PER_SECOND / 2 {
            by_hand.turn_at_once(TURN);
        }
        let sent = wire_bytes(by_hand, 1) - before;
        assert!(sent.abs_diff(484_000) < 60_000, "{sent} in half a second");
        by_hand.set_lanes(at_rates(0, 0));
        by_hand.turn(Duration::ZERO);
        by_hand.turn(Duration::ZERO);
        assert_eq!(waiting(by_hand, 1), 0, "without a bound nobody waits");
        assert!(viewers.iter_mut().all(|viewer| numbers(&viewer.hears(1)) == [0]));
    });
}

#[test]
fn another_plan_moves_clients_to_other_lanes_and_none_takes_all_away() {
    let lane = |id, rate| Lane { id, name: format!("isp{id}"), rate, burst: 0 };
    let of_telecom = |id| {
        let prefix = ("127.0.1.0/24".parse().unwrap(), id);
        LanePlan::new(vec![lane(1, 1_000), lane(2, 0), lane(3, 1_000)], &[prefix]).unwrap()
    };
    let connections =
        |by_hand: &ByHand| [0, 1, 2, 3].map(|lane| by_hand.counters.lane(lane).unwrap().connections.get());
    let all = VIEWERS as u64;
    on_each_path(patient(), move |by_hand| {
        // Who was there before there were lanes is in them as well.
        let mut telecom = by_hand.join_from(TELECOM, VIEWERS);
        let mut others = by_hand.join_from(ELSEWHERE, VIEWERS);
        by_hand.set_lanes(of_telecom(1));
        by_hand.turn(Duration::ZERO);
        assert_eq!(connections(by_hand), [all, all, 0, 0]);
        by_hand.push(&body(0, 10_000));
        by_hand.turn(TURN);
        by_hand.turn(TURN);
        assert_eq!(waiting(by_hand, 1), all - 1);
        // To a lane that is as slow: nobody is forgotten, nobody waits twice.
        by_hand.set_lanes(of_telecom(3));
        by_hand.turn(TURN);
        by_hand.turn(TURN);
        assert_eq!(connections(by_hand), [all, 0, 0, all]);
        assert_eq!((waiting(by_hand, 1), waiting(by_hand, 3)), (0, all - 2));
        // To one without a bound.
        by_hand.set_lanes(of_telecom(2));
        by_hand.turn(TURN);
        by_hand.turn(TURN);
        assert_eq!((connections(by_hand), waiting(by_hand, 3)), ([all, 0, all, 0], 0));
        assert!(telecom.iter_mut().all(|viewer| numbers(&viewer.hears(1)) == [0]));
        by_hand.set_lanes(of_telecom(1));
        by_hand.turn(TURN);
        by_hand.push(&body(1, 10_000));
        by_hand.turn(TURN);
        assert!(waiting(by_hand, 1) > 0);
        by_hand.set_lanes(LanePlan::default());
        by_hand.turn(TURN);
        by_hand.turn(TURN);
        let before = wire_bytes(by_hand, 0) + wire_bytes(by_hand, 1);
        by_hand.push(&body(2, 10_000));
        by_hand.turn(TURN);
        assert!(telecom.iter_mut().all(|viewer| numbers(&viewer.hears(2)) == [1, 2]));
        assert!(others.iter_mut().all(|viewer| numbers(&viewer.hears(3)) == [0, 1, 2]));
        assert_eq!(wire_bytes(by_hand, 0) + wire_bytes(by_hand, 1), before, "without lanes nothing is counted");
        assert_eq!(by_hand.counters.debtors.get(), 0);
    });
}

#[test]
fn who_is_owed_much_has_one_send_a_turn_like_the_others() {
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(1, 0));
        let mut viewers = Listener::all(by_hand.join_from(TELECOM, VIEWERS));
        for number in 0..3 {
            by_hand.push(&body(number, 60_000));
            by_hand.turn(Duration::ZERO);
        }
        // The first went to one, beyond what the lane had.
        assert_eq!(waiting(by_hand, 1), VIEWERS as u64);
        by_hand.set_turn_sends(VIEWERS);
        by_hand.set_lanes(at_rates(0, 0));
        for turn in 1..=3 {
            by_hand.turn(Duration::ZERO);
            viewers.iter_mut().for_each(Listener::listen);
            let heard = viewers.iter().map(|listener| listener.heard.len());
            assert!(heard.clone().all(|heard| heard <= turn + 1), "{:?}", heard.collect::<Vec<_>>());
        }
        by_hand.turn_until("all have all", |_| {
            viewers.iter_mut().for_each(Listener::listen);
            viewers.iter().all(|listener| listener.heard == [0, 1, 2])
        });
    });
}
