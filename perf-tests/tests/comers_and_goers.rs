//! What clients are owed that come and go in the middle of a phase, to the message, against a server whose every fault is
//! known.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod tiny_goim;

use std::sync::Arc;
use std::time::{Duration, Instant};

use perf_tests::load::behaviour::{Goodbye, Order};
use perf_tests::load::engine::socket::SocketEngine;
use perf_tests::load::engine::{Books, Due, Engine, Gauges, Tally};
use perf_tests::load::numbers::Numbers;
use perf_tests::load::scenario::Scenario;
use perf_tests::load::stamp::{STAMP_BYTES, Stamp, monotonic_ns};
use perf_tests::load::target::Target;
use perf_tests::probe::publisher::Publisher;
use tiny_goim::{Act, Mischief, TinyGoim};

const CLIENTS: u64 = 4;
const RUN: u32 = 7;

/// Clients in one room, and a publisher who waits for them.
struct Room {
    engine: Box<dyn Engine>,
    numbers: Arc<Numbers>,
    publisher: Publisher,
    phase: u32,
}

impl Room {
    fn open(mischief: Mischief) -> Self {
        let server = TinyGoim::start(mischief);
        let scenario =
            Scenario { connect: vec![server.tcp], clients: CLIENTS as u32, threads: 2, ..Scenario::default() };
        let engine = Box::new(SocketEngine::start(&scenario).unwrap());
        let numbers = Arc::new(Numbers::new(1));
        let mut room = Self { engine, numbers, publisher: Publisher::new(server.http), phase: 0 };
        room.wait("all to join", |gauges| gauges.joined == CLIENTS);
        assert_eq!(room.engine.seal().unwrap(), CLIENTS);
        room.begin_phase(0);
        room
    }

    fn begin_phase(&mut self, phase: u32) {
        self.numbers = Arc::new(Numbers::new(1));
        let numbers = Some(Arc::clone(&self.numbers));
        let books = Books { run: RUN, phase, target: Target::Rooms, numbers };
        assert_eq!(self.engine.open(&books).unwrap(), [CLIENTS as u32]);
        self.phase = phase;
    }

    fn wait(&mut self, what: &str, holds: impl Fn(&Gauges) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(&self.engine.gauges()) {
            self.engine.check().unwrap();
            assert!(Instant::now() < deadline, "waited for {what}: {:?}", self.engine.gauges());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn publish(&self) {
        let number = u64::from(self.numbers.begin(0));
        let mut body = [0; STAMP_BYTES];
        Stamp { run: RUN, room: 0, phase: self.phase, number, sent_ns: monotonic_ns() }.write(&mut body);
        assert!(self.publisher.push_room(1000, "live", "1000", &body).unwrap().is_accepted());
        self.numbers.accept(0);
    }

    /// Publishes, and waits until so many have heard it.
    fn publish_to(&mut self, hearers: u64) {
        let before = self.engine.gauges().received;
        self.publish();
        self.wait("a message", |gauges| gauges.received == before + hearers);
    }

    fn all_go(&mut self) {
        let order = Order::Reconnect { share: 1.0, goodbye: Goodbye::Reset, away_ms: 0 };
        assert_eq!(self.engine.order(order).unwrap(), CLIENTS);
    }

    fn all_are_back(&mut self) {
        self.wait("all to be back", |gauges| gauges.returning == 0 && gauges.present == CLIENTS);
    }

    fn settle(mut self) -> Tally {
        let tally = self.engine.settle(Due::Published(self.numbers.accepted())).unwrap();
        self.engine.finish().unwrap();
        tally
    }
}

/// Due, missing, received, in doubt.
fn books(tally: &Tally) -> (u64, u64, u64, u64) {
    let balance = tally.balance;
    (balance.due, balance.missing, tally.counts.received, balance.in_doubt)
}

#[test]
fn what_is_published_while_one_is_away_is_not_owed() {
    let mut room = Room::open(|_, _| Act::Send);
    room.publish_to(CLIENTS);
    let order = Order::Leave { share: 1.0, goodbye: Goodbye::Reset };
    assert_eq!(room.engine.order(order).unwrap(), CLIENTS);
    room.publish();
    assert_eq!(room.engine.order(Order::ComeBack).unwrap(), CLIENTS);
    room.all_are_back();
    room.publish_to(CLIENTS);
    let tally = room.settle();
    assert_eq!(books(&tally), (2 * CLIENTS, 0, 2 * CLIENTS, 0));
    assert_eq!((tally.returns.left_reset, tally.returns.back), (CLIENTS, CLIENTS));
}

#[test]
fn what_was_under_way_when_one_went_is_in_doubt() {
    // The second message to client 3 is held back until a third one.
    let mut room = Room::open(|mid, count| if mid == 3 && count == 1 { Act::Late } else { Act::Send });
    room.publish_to(CLIENTS);
    room.publish_to(CLIENTS - 1);
    room.all_go();
    room.all_are_back();
    room.publish_to(CLIENTS);
    assert_eq!(books(&room.settle()), (3 * CLIENTS - 1, 0, 3 * CLIENTS - 1, 1));
}

#[test]
fn a_hole_before_one_went_is_a_loss() {
    let mut room = Room::open(|mid, count| if mid == 3 && count == 1 { Act::Lose } else { Act::Send });
    room.publish_to(CLIENTS);
    room.publish_to(CLIENTS - 1);
    room.publish_to(CLIENTS);
    room.all_go();
    room.all_are_back();
    let tally = room.settle();
    assert_eq!(books(&tally), (3 * CLIENTS, 1, 3 * CLIENTS - 1, 0));
    assert_eq!(tally.balance.incomplete_clients, 1);
}

#[test]
fn what_one_missed_that_the_server_closed_is_a_loss_though_it_comes_back() {
    // Client 3 is closed instead of its second message; its next connection gets everything.
    let mut room = Room::open(|mid, count| if mid == 3 && count == 1 { Act::Close } else { Act::Send });
    room.publish_to(CLIENTS);
    room.publish_to(CLIENTS - 1);
    room.publish_to(CLIENTS - 1);
    room.wait("the close", |gauges| gauges.closed == 1);
    assert_eq!(room.engine.order(Order::ComeBack).unwrap(), 1);
    room.all_are_back();
    room.publish_to(CLIENTS);
    let tally = room.settle();
    assert_eq!(books(&tally), (4 * CLIENTS, 2, 4 * CLIENTS - 2, 0));
    assert_eq!((tally.closed.total(), tally.returns.back), (1, 1));
}

#[test]
fn a_message_of_an_earlier_phase_is_a_straggler() {
    // The first message to client 3 comes behind its second one, which belongs to the next phase.
    let mut room = Room::open(|mid, count| if mid == 3 && count == 0 { Act::Late } else { Act::Send });
    room.publish_to(CLIENTS - 1);
    let first = room.engine.settle(Due::Published(vec![1])).unwrap();
    assert_eq!(books(&first), (CLIENTS, 1, CLIENTS - 1, 0));
    room.begin_phase(1);
    room.publish_to(CLIENTS);
    room.publish_to(CLIENTS);
    let second = room.settle();
    assert_eq!(books(&second), (2 * CLIENTS, 0, 2 * CLIENTS, 0));
    assert_eq!((second.stragglers, second.foreign, second.counts.order_faults), (1, 0, 0));
}
