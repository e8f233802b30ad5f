//! Tests: lanes whose rate is less than what their clients are due.
//!
//! Layout: here what goes when · `bounds` who has to go · `changes` of the plan

mod bounds;
mod changes;

use std::net::Ipv4Addr;
use std::time::Duration;

use wire::goim::op;

use super::by_hand::{ByHand, Viewer, by_hand};
use crate::config::{Config, Limits, SendPath};
use crate::lanes::{Lane, LanePlan};

/// Where clients of the ISPs 1 and 2 are, and of none.
const TELECOM: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const UNICOM: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Clients of a lane.
const VIEWERS: usize = 20;

const TURN: Duration = Duration::from_millis(5);

const TURNS_PER_SECOND: usize = 200;

fn at_rates(telecom: u64, unicom: u64) -> LanePlan {
    let lane = |id, name: &str, rate| Lane { id, name: name.to_owned(), rate, burst: 0 };
    let prefixes = [("127.0.1.0/24".parse().unwrap(), 1), ("127.0.2.0/24".parse().unwrap(), 2)];
    LanePlan::new(vec![lane(1, "telecom", telecom), lane(2, "unicom", unicom)], &prefixes).unwrap()
}

/// Bounds that no test of patience reaches.
fn patient() -> Limits {
    let text = "limits.debt_bytes = 1073741824\nlimits.debt_age_ms = 600000\n";
    Config::parse(&settings::Source::new("test.toml", text)).unwrap().limits
}

fn on_each_path(limits: Limits, work: impl Fn(&mut ByHand) + Send + Copy) {
    by_hand(SendPath::Plain, limits, work);
    by_hand(SendPath::Auto, limits, work);
}

/// A body that says which it is, of `bytes`.
fn body(number: usize, bytes: usize) -> String {
    format!("{number:08}{}", "x".repeat(bytes - 8))
}

fn numbers(heard: &[(i32, String)]) -> Vec<usize> {
    let messages = heard.iter().filter(|(operation, _)| *operation == 1000);
    messages.map(|(_, body)| body[..8].parse().unwrap()).collect()
}

/// What a viewer has heard so far.
struct Listener {
    viewer: Viewer,
    heard: Vec<usize>,
}

impl Listener {
    fn all(viewers: Vec<Viewer>) -> Vec<Self> {
        viewers.into_iter().map(|viewer| Self { viewer, heard: Vec::new() }).collect()
    }

    fn listen(&mut self) {
        self.heard.extend(numbers(&self.viewer.heard()));
    }
}

fn wire_bytes(by_hand: &ByHand, lane: u8) -> u64 {
    by_hand.counters.lane(lane).unwrap().bytes_total.get()
}

fn waiting(by_hand: &ByHand, lane: u8) -> u64 {
    by_hand.counters.lane(lane).unwrap().waiting.get()
}

#[test]
fn a_lane_keeps_to_its_rate_loses_nothing_and_its_neighbours_notice_nothing() {
    const RATE: u64 = 1_000_000;
    const SECONDS: usize = 5;
    // Each of the lane's clients is due a kilobyte a turn: four times what the lane may take.
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(RATE, 0));
        let mut telecom = Listener::all(by_hand.join_from(TELECOM, VIEWERS));
        let mut others = by_hand.join_from(UNICOM, VIEWERS);
        others.extend(by_hand.join_from(ELSEWHERE, VIEWERS));
        // So that the burst of the beginning is gone.
        let settle = 40;
        let mut before = 0;
        for number in 0..settle + SECONDS * TURNS_PER_SECOND {
            if number == settle {
                before = wire_bytes(by_hand, 1);
            }
            // To the room, and now and then to all: one order for each client.
            let text = body(number, 1_000);
            if number % 10 == 9 {
                by_hand.push_to_all(&text)
            } else {
                by_hand.push(&text)
            }
            by_hand.turn_at_once(TURN);
            for viewer in &mut others {
                assert_eq!(numbers(&viewer.hears(1)), [number], "in the round that it was due");
            }
            telecom.iter_mut().for_each(Listener::listen);
        }
        let sent = wire_bytes(by_hand, 1) - before;
        let due = RATE * SECONDS as u64 * 31 / 32;
        assert!(sent.abs_diff(due) < due / 50, "{sent} of {due} bytes");
        assert!(waiting(by_hand, 1) > 0);
        assert!(by_hand.counters.lane(1).unwrap().delayed_total.get() > 0);
        let all = settle + SECONDS * TURNS_PER_SECOND;
        for _ in 0..60 * TURNS_PER_SECOND {
            if by_hand.counters.debtors.get() == 0 {
                break;
            }
            by_hand.turn_at_once(TURN);
            telecom.iter_mut().for_each(Listener::listen);
        }
        for listener in &mut telecom {
            while listener.heard.len() < all {
                let heard = listener.viewer.hears(1);
                listener.heard.extend(numbers(&heard));
            }
            assert!(listener.heard.iter().copied().eq(0..all), "each once and in order");
        }
        let counters = &by_hand.counters;
        assert_eq!((counters.dropped_packets_total.get(), counters.owed_bytes.get(), waiting(by_hand, 1)), (0, 0, 0));
        assert_eq!(counters.delivered_packets_total.get(), (3 * VIEWERS * all) as u64);
    });
}

#[test]
fn a_lane_that_is_asked_for_less_than_its_rate_delays_nobody() {
    on_each_path(patient(), |by_hand| {
        let lane = Lane { id: 1, name: "telecom".to_owned(), rate: 1_000_000, burst: 100_000 };
        by_hand.set_lanes(LanePlan::new(vec![lane], &[("127.0.1.0/24".parse().unwrap(), 1)]).unwrap());
        let mut viewers = by_hand.join_from(TELECOM, VIEWERS);
        // In two turns of twenty, four fifths of what flows in.
        for number in 0..100 {
            by_hand.push(&body(number, 1_900));
            by_hand.turn_at_once(if number % 2 == 0 { TURN } else { 19 * TURN });
            assert!(viewers.iter_mut().all(|viewer| numbers(&viewer.hears(1)) == [number]));
        }
        assert_eq!(by_hand.counters.lane(1).unwrap().delayed_total.get(), 0);
    });
}

#[test]
fn messages_that_come_while_a_client_waits_ride_together() {
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(20_000, 0));
        let mut viewers = by_hand.join_from(TELECOM, VIEWERS);
        // Nothing is left of the burst.
        by_hand.push(&body(0, 1_000));
        for _ in 0..4 * TURNS_PER_SECOND {
            by_hand.turn_at_once(TURN);
        }
        let before = wire_bytes(by_hand, 1);
        by_hand.push(&body(1, 1_000));
        by_hand.turn_at_once(Duration::ZERO);
        assert!(waiting(by_hand, 1) > 0);
        for number in 2..12 {
            by_hand.push(&body(number, 8));
            by_hand.turn_at_once(Duration::ZERO);
        }
        by_hand.turn_until("nobody waits", |by_hand| {
            by_hand.turn_at_once(TURN);
            by_hand.counters.debtors.get() == 0
        });
        assert!(viewers.iter_mut().all(|viewer| numbers(&viewer.hears(12)).into_iter().eq(0..12)));
        let sent = wire_bytes(by_hand, 1) - before;
        let payload = VIEWERS as u64 * (1_016 + 10 * 24);
        let headers = (sent - payload) / 66;
        assert!(headers < 2 * VIEWERS as u64 + VIEWERS as u64 / 2, "{headers} segments for {VIEWERS} clients");
    });
}

#[test]
fn control_is_never_behind_what_a_lane_holds_back() {
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(1_000, 0));
        let mut viewers = by_hand.join_from(TELECOM, VIEWERS);
        by_hand.push(&body(0, 1_000));
        by_hand.push(&body(1, 1_000));
        by_hand.turn(Duration::ZERO);
        by_hand.turn(Duration::ZERO);
        assert!(waiting(by_hand, 1) > VIEWERS as u64 / 2);
        for viewer in &mut viewers {
            let before = viewer.heard();
            viewer.send(op::HEARTBEAT, b"");
            by_hand.turn_until("the heartbeat is answered", |_| {
                let heard = viewer.heard();
                heard.iter().any(|(operation, _)| *operation == op::HEARTBEAT_REPLY)
            });
            assert!(before.len() <= 2);
        }
        assert!(waiting(by_hand, 1) > VIEWERS as u64 / 2, "the data waits as before");
        // And so is the answer to who comes now.
        assert_eq!(by_hand.join_from(TELECOM, 1).len(), 1);
    });
}

#[test]
fn what_control_took_is_made_up_for_by_data_but_not_for_long() {
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(10_000, 0));
        let mut viewers = by_hand.join_from(TELECOM, VIEWERS);
        for viewer in &mut viewers {
            (0..40).for_each(|_| viewer.send(op::HEARTBEAT, b""));
        }
        let mut answers = 0;
        by_hand.turn_until("every heartbeat is answered", |_| {
            answers += viewers.iter_mut().map(|viewer| viewer.heard().len()).sum::<usize>();
            answers == 40 * VIEWERS
        });
        by_hand.push(&body(0, 8));
        by_hand.turn(Duration::ZERO);
        assert_eq!(waiting(by_hand, 1), VIEWERS as u64);
        assert!(by_hand.would_wait() > Duration::ZERO && by_hand.would_wait() <= Duration::from_millis(50));
        // Seven seconds' worth of answers, and a tenth of a second that they may hold back data.
        by_hand.turn(Duration::from_millis(150));
        by_hand.turn(Duration::from_millis(150));
        assert!(waiting(by_hand, 1) < VIEWERS as u64 / 2);
    });
}

#[test]
fn a_client_that_reads_slowly_gets_all_in_order_and_keeps_nobody_of_its_lane_waiting() {
    on_each_path(patient(), |by_hand| {
        by_hand.set_lanes(at_rates(20_000_000, 0));
        let mut slow = Listener::all(by_hand.join_from(TELECOM, 1));
        let mut fast = Listener::all(by_hand.join_from(TELECOM, 3));
        let mut pushed = 0;
        // Until its socket takes no more.
        while by_hand.counters.debtors.get() == 0 || waiting(by_hand, 1) > 0 || pushed < 20 {
            by_hand.push(&body(pushed, 60_000));
            pushed += 1;
            for _ in 0..10 {
                by_hand.turn_at_once(TURN);
                fast.iter_mut().for_each(Listener::listen);
            }
            assert!(pushed < 1_000);
        }
        // Its turn comes, its socket is full, and the lane goes on with the others.
        for _ in 0..20 {
            by_hand.push(&body(pushed, 60_000));
            pushed += 1;
            by_hand.turn_at_once(10 * TURN);
            fast.iter_mut().for_each(Listener::listen);
        }
        slow[0].viewer.send(op::HEARTBEAT, b"");
        for listener in slow.iter_mut().chain(&mut fast) {
            by_hand.turn_until("everything has come", |by_hand| {
                by_hand.turn_at_once(TURN);
                listener.listen();
                listener.heard.len() == pushed
            });
            assert!(listener.heard.iter().copied().eq(0..pushed), "each once and in order");
        }
        let payload = 4 * pushed as u64 * (60_000 + 16);
        let segments = (wire_bytes(by_hand, 1) - payload) / 66;
        // A segment for the end of each message, and some for where a socket took a part.
        assert!(
            segments <= payload / 1_448 + 5 * pushed as u64,
            "{segments} segments: what was not taken was not spent"
        );
    });
}
