//! Clients made of XDP that do more than listen, against a server of plain kernel sockets: they leave, vanish, come back, do
//! not read, and the books say of it what those of clients with sockets say.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod clients_rig;
mod missing_part;
mod socket_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clients_rig::*;
use perf_tests::load::behaviour::{Acknowledging, Behaviour, Goodbye, Order};
use perf_tests::load::engine::socket::SocketEngine;
use perf_tests::load::engine::xdp::XdpEngine;
use perf_tests::load::engine::xdp::rig::{Rig, ServerEnd};
use perf_tests::load::engine::{Due, Engine};
use perf_tests::load::numbers::Numbers;
use perf_tests::load::scenario::Scenario;
use socket_server::{SocketServer, connections, eventually, message, message_of, unheard};

const CLIENTS: u32 = 40;
const ALL: u64 = CLIENTS as u64;

/// Everything that a test needs; its clients have joined, and the first phase is open.
struct Scene {
    engine: XdpEngine,
    server: SocketServer,
    numbers: Arc<Numbers>,
    rig: Rig,
}

/// `None` after saying why there can be no such clients.
fn begin(scenario: Scenario) -> Option<Scene> {
    let rig = bring_up(scenario.clients, &ServerEnd::Pass)?;
    let mut server = SocketServer::listen(&rig, scenario.connect[0], scenario.clients, FIRST_MID);
    let mut engine = XdpEngine::start(&scenario, &rig).unwrap();
    server.welcome(granted);
    let numbers = Arc::new(Numbers::new(ROOMS));
    open_with(&mut engine, u64::from(scenario.clients), &numbers);
    Some(Scene { engine, server, numbers, rig })
}

impl Scene {
    /// Says the next message of each room to all who are connected, or who were, as far as the server knows.
    fn say_next(&mut self, phase: u32) {
        let said: Vec<u32> = (0..ROOMS).map(|room| self.numbers.begin(room)).collect();
        for client in 0..CLIENTS {
            let room = client % ROOMS;
            if self.server.is_there(client) {
                self.server.say(client, &message_of(RUN, phase, room, u64::from(said[room as usize])), 1000);
            }
        }
        (0..ROOMS).for_each(|room| self.numbers.accept(room));
    }

    fn received(&self) -> u64 {
        self.engine.gauges().received
    }
}

#[test]
fn who_leaves_says_so_in_order_or_by_reset_and_the_others_miss_nothing() {
    let Some(mut scene) = begin(scenario(CLIENTS)) else { return };
    scene.say_next(0);
    eventually("all hear the first message", || scene.received() == ALL);
    let leave = Order::Leave { share: 0.5, goodbye: Goodbye::Mixed };
    assert_eq!(scene.engine.order(leave).unwrap(), ALL / 2);
    let (mut ended, mut reset) = (0, 0);
    eventually("half of them are gone", || {
        let attended = scene.server.attend(granted);
        (ended, reset) = (ended + attended.ended, reset + attended.reset);
        ended + reset == ALL / 2
    });
    assert_eq!((ended, reset), (ALL / 4, ALL / 4));
    eventually("the server holds the others only", || connections(&scene.rig) == CLIENTS as usize / 2);
    scene.say_next(0);
    eventually("the others hear the second message", || scene.received() == ALL + ALL / 2);
    let gauges = scene.engine.gauges();
    assert_eq!((gauges.present, gauges.closed, gauges.returning, gauges.faults), (ALL / 2, 0, 0, 0));
    assert_eq!(scene.engine.outstanding(&scene.numbers.accepted()).unwrap(), 0);
    let tally = scene.engine.settle(Due::Published(scene.numbers.accepted())).unwrap();
    assert_eq!((tally.counts.received, tally.balance.due, tally.balance.missing), (60, 60, 0));
    let returns = &tally.returns;
    assert_eq!((returns.left_orderly, returns.left_reset, returns.unanswered, returns.back), (10, 10, 0, 0));
    assert_eq!((tally.closed.total(), tally.balance.in_doubt), (0, 0));
}

#[test]
fn whose_goodbye_is_not_answered_resets_in_the_end() {
    let Some(mut scene) = begin(scenario(CLIENTS)) else { return };
    let leave = Order::Leave { share: 0.1, goodbye: Goodbye::Orderly };
    assert_eq!(scene.engine.order(leave).unwrap(), 4);
    eventually("the server holds the others only", || connections(&scene.rig) == CLIENTS as usize - 4);
    let tally = scene.engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
    assert_eq!((tally.returns.left_orderly, tally.returns.unanswered, tally.returns.left_reset), (4, 4, 0));
}

#[test]
fn who_reconnects_is_back_with_another_connection_and_owed_what_follows() {
    for goodbye in [Goodbye::Orderly, Goodbye::Reset] {
        let Some(mut scene) = begin(scenario(CLIENTS)) else { return };
        scene.say_next(0);
        eventually("all hear the first message", || scene.received() == ALL);
        assert_eq!(scene.engine.order(Order::Reconnect { share: 0.5, goodbye, away_ms: 0 }).unwrap(), ALL / 2);
        eventually("all are back", || {
            scene.server.attend(granted);
            scene.engine.gauges().returning == 0
        });
        assert_eq!(scene.engine.gauges().present, ALL);
        scene.server.attend(granted);
        scene.say_next(0);
        scene.say_next(0);
        eventually("all hear what follows", || scene.received() == 3 * ALL);
        let ends = scene.numbers.accepted();
        assert_eq!(scene.engine.outstanding(&ends).unwrap(), 0);
        let tally = scene.engine.settle(Due::Published(ends)).unwrap();
        assert_eq!((tally.balance.due, tally.balance.missing, tally.counts.gaps), (3 * ALL, 0, 0), "{goodbye:?}");
        let returns = &tally.returns;
        assert_eq!((returns.left_orderly + returns.left_reset, returns.back, returns.not_back), (20, 20, 0));
        assert_eq!((returns.back_us.len(), returns.failed.total(), tally.joined), (20, 0, 0));
        assert_eq!(tally.begun_by_second.iter().sum::<u32>(), 20);
        assert_eq!(connections(&scene.rig), CLIENTS as usize);
    }
}

#[test]
fn what_was_said_while_somebody_was_away_is_not_owed_and_what_followed_is() {
    let Some(mut scene) = begin(scenario(CLIENTS)) else { return };
    assert_eq!(scene.engine.order(Order::Leave { share: 0.5, goodbye: Goodbye::Orderly }).unwrap(), ALL / 2);
    let mut ended = 0;
    eventually("half of them are gone", || {
        ended += scene.server.attend(granted).ended;
        ended == ALL / 2
    });
    scene.say_next(0);
    assert_eq!(scene.engine.order(Order::ComeBack).unwrap(), ALL / 2);
    eventually("all are back", || {
        scene.server.attend(granted);
        scene.engine.gauges().returning == 0
    });
    // One that is lost to the server: those who came back are owed it as well.
    (0..ROOMS).for_each(|room| {
        scene.numbers.begin(room);
        scene.numbers.accept(room);
    });
    scene.say_next(0);
    eventually("all hear the last", || scene.received() == ALL / 2 + ALL);
    let ends = scene.numbers.accepted();
    assert_eq!(scene.engine.outstanding(&ends).unwrap(), ALL);
    let tally = scene.engine.settle(Due::Published(ends)).unwrap();
    assert_eq!((tally.balance.due, tally.balance.missing), (ALL / 2 + 2 * ALL, ALL));
    assert_eq!(tally.balance.incomplete_clients, ALL);
}

#[test]
fn who_vanishes_answers_nothing_until_it_is_back() {
    let Some(mut scene) = begin(scenario(CLIENTS)) else { return };
    assert_eq!(scene.engine.order(Order::Vanish { share: 0.1 }).unwrap(), 4);
    assert_eq!(scene.engine.gauges().present, ALL - 4);
    scene.say_next(0);
    eventually("the others hear", || scene.received() == ALL - 4);
    eventually("four do not", || unheard(&scene.rig) == 4);
    assert_eq!(connections(&scene.rig), CLIENTS as usize, "the server knows of nothing");
    assert_eq!(scene.engine.order(Order::ComeBack).unwrap(), 4);
    eventually("all are back", || {
        scene.server.attend(granted);
        scene.engine.gauges().returning == 0
    });
    eventually("the server has let the old ones go", || {
        scene.server.attend(granted);
        connections(&scene.rig) == CLIENTS as usize && unheard(&scene.rig) == 0
    });
    scene.say_next(0);
    eventually("all hear", || scene.received() == 2 * ALL - 4);
    let tally = scene.engine.settle(Due::Published(scene.numbers.accepted())).unwrap();
    assert_eq!((tally.astray.vanished, tally.returns.back, tally.balance.missing), (4, 4, 0));
    assert_eq!(tally.balance.due, 2 * ALL - 4);
}

/// Clients with room for 4096 bytes when they do not read.
fn with_little_room() -> Scenario {
    let behaviour = Behaviour { slow_buffer_bytes: 2048, ..Behaviour::default() };
    Scenario { behaviour, heartbeat: Duration::from_millis(200), ..scenario(4) }
}

#[test]
fn who_stops_reading_takes_what_it_has_room_for_and_the_rest_when_it_reads_again() {
    const MESSAGES: u64 = 200;
    let Some(mut scene) = begin(with_little_room()) else { return };
    assert_eq!(scene.engine.order(Order::StopReading { share: 1.0 }).unwrap(), 4);
    assert_eq!((scene.engine.gauges().astray, scene.engine.gauges().present), (4, 4));
    for client in 0..4 {
        let stream: Vec<u8> = (0..MESSAGES).flat_map(|number| message(RUN, client % ROOMS, number)).collect();
        scene.server.say(client, &stream, stream.len());
    }
    eventually("the server's sockets hold the rest", || unheard(&scene.rig) == 4);
    for client in 0..4 {
        // They go on to say that they are alive, again and again.
        (0..5).for_each(|_| scene.server.await_heartbeat(client));
    }
    assert_eq!(unheard(&scene.rig), 4, "nobody has read meanwhile");
    assert_eq!(scene.received(), 0);
    assert_eq!(scene.engine.order(Order::Resume).unwrap(), 4);
    eventually("all has come", || unheard(&scene.rig) == 0);
    let tally = scene.engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
    assert_eq!((tally.astray.counts.received, tally.astray.counts.gaps, tally.counts.received), (800, 0, 0));
    assert_eq!((tally.astray.stopped.clients, tally.astray.stopped.stuck), (4, 0));
    assert_eq!((tally.balance.due, tally.delay_us.len()), (0, 0), "nobody was owed anything");
    let numbers = Arc::new(Numbers::new(ROOMS));
    assert_eq!(open_phase(&mut scene.engine, 1, &numbers), [2, 1, 1], "from now on they are");
    (0..4).for_each(|client| scene.server.say(client, &message_of(RUN, 1, client % ROOMS, 0), 1000));
    eventually("they hear", || scene.received() == 4);
    let tally = scene.engine.settle(Due::Published(vec![1; ROOMS as usize])).unwrap();
    assert_eq!((tally.balance.due, tally.balance.missing, tally.counts.received), (4, 0, 4));
}

#[test]
fn a_close_behind_what_was_not_read_is_seen_when_somebody_looks() {
    // Without heartbeats, which the server would have to read, or its close is a reset.
    let quiet = Scenario { heartbeat: Duration::ZERO, ..with_little_room() };
    let Some(mut scene) = begin(quiet) else { return };
    scene.engine.order(Order::StopReading { share: 0.5 }).unwrap();
    scene.engine.order(Order::GoSilent { share: 0.5 }).unwrap();
    for client in 0..4 {
        let stream: Vec<u8> = (0..200).flat_map(|number| message(RUN, client % ROOMS, number)).collect();
        scene.server.say(client, &stream, stream.len());
        scene.server.close(client);
    }
    eventually("the server's sockets hold the rest", || unheard(&scene.rig) == 4);
    assert_eq!((scene.engine.gauges().astray, scene.engine.gauges().closed_astray), (4, 0));
    scene.engine.look_into_unread().unwrap();
    eventually("all ends are seen", || scene.engine.gauges().closed_astray == 4);
    let tally = scene.engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
    for fate in [&tally.astray.stopped, &tally.astray.silent] {
        assert_eq!((fate.clients, fate.stuck), (2, 0));
        assert_eq!(fate.closed.clone().into_map(), [("closed".to_owned(), 2)].into());
    }
    let gauges = scene.engine.gauges();
    assert_eq!((gauges.astray, gauges.present, gauges.closed), (0, 0, 0));
    assert_eq!(tally.astray.counts.received, 800);
}

#[test]
fn who_reads_slowly_is_never_ahead_of_its_rate_and_gets_all_in_the_end() {
    const RATE: u32 = 20_000;
    const MESSAGES: u64 = 400;
    let Some(mut scene) = begin(with_little_room()) else { return };
    let told = Instant::now();
    let order = Order::ReadSlowly { share: 0.5, bytes_per_second: RATE };
    assert_eq!(scene.engine.order(order).unwrap(), 2);
    for client in 0..4 {
        let stream: Vec<u8> = (0..MESSAGES).flat_map(|number| message(RUN, client % ROOMS, number)).collect();
        assert!(stream.len() > 3 * 4096, "it does not fit into the room");
        scene.server.say(client, &stream, stream.len());
    }
    eventually("who reads has it all", || scene.received() == 2 * MESSAGES);
    let mut heard = 0;
    eventually("who reads slowly has it all", || {
        let tally = scene.engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
        heard += tally.astray.counts.received;
        // What was read until a moment later, and what lies in the rooms of two.
        let most = 2.0 * (4096.0 + f64::from(RATE) * told.elapsed().as_secs_f64());
        assert!(heard as f64 * 76.0 <= most, "{heard} messages after {:?}", told.elapsed());
        heard == 2 * MESSAGES
    });
    assert_eq!(scene.engine.gauges().astray, 2);
}

#[test]
fn who_is_silent_sends_no_heartbeats_and_is_there() {
    let Some(mut scene) = begin(with_little_room()) else { return };
    assert_eq!(scene.engine.order(Order::GoSilent { share: 0.5 }).unwrap(), 2);
    let mut beats = [0; 4];
    eventually("twenty heartbeats have come", || {
        (0..4).for_each(|client| beats[client as usize] += scene.server.take_heartbeats(client));
        beats.iter().sum::<usize>() >= 20
    });
    // One may have been under way.
    let silent = beats.iter().filter(|beats| **beats <= 1).count();
    assert_eq!(silent, 2, "{beats:?}");
    let gauges = scene.engine.gauges();
    assert_eq!((gauges.present, gauges.astray), (4, 2));
    let tally = scene.engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
    assert_eq!((tally.astray.silent.clients, tally.astray.silent.stuck), (2, 2));
}

#[test]
fn a_churn_goes_on_until_it_is_told_to_end_and_everybody_is_back() {
    let Some(mut scene) = begin(scenario(CLIENTS)) else { return };
    let churn = |per_second| Order::Churn { per_second, goodbye: Goodbye::Mixed, away_ms: 10 };
    scene.engine.order(churn(200.0)).unwrap();
    let mut came = 0;
    eventually("a hundred have come back", || {
        came += scene.server.attend(granted).came;
        came >= 100
    });
    scene.engine.order(churn(0.0)).unwrap();
    eventually("all are back", || {
        scene.server.attend(granted);
        scene.engine.gauges().returning == 0
    });
    let tally = scene.engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
    let returns = &tally.returns;
    let left = returns.left_orderly + returns.left_reset;
    assert!(left >= 100 && returns.left_orderly.abs_diff(returns.left_reset) <= 1, "{returns:?}");
    assert_eq!((returns.back, returns.not_back, returns.unanswered, returns.failed.total()), (left, 0, 0, 0));
    assert_eq!((scene.engine.gauges().present, connections(&scene.rig)), (ALL, CLIENTS as usize));
}

#[test]
fn who_finds_nobody_tries_until_somebody_is_there_again() {
    let Some(mut scene) = begin(scenario(CLIENTS)) else { return };
    scene.server.stop_listening();
    (0..CLIENTS).for_each(|client| scene.server.close(client));
    eventually("all are closed", || scene.engine.gauges().closed == ALL);
    assert_eq!(scene.engine.order(Order::ComeBack).unwrap(), ALL);
    let mut refused = 0;
    eventually("all are refused once at least", || {
        let tally = scene.engine.settle(Due::Published(vec![0; ROOMS as usize])).unwrap();
        assert_eq!(tally.returns.not_back, ALL);
        let failed = tally.returns.failed.into_map();
        assert!(failed.keys().all(|reason| reason == "connection refused"), "{failed:?}");
        refused += failed.values().sum::<u64>();
        refused >= ALL
    });
    scene.server.listen_again(&scene.rig, scenario(CLIENTS).connect[0]);
    eventually("all are back", || {
        scene.server.attend(granted);
        scene.engine.gauges().returning == 0
    });
    assert_eq!(scene.engine.gauges().present, ALL);
}

/// With this share of the segments lost, and the others acknowledged so much later.
fn acknowledging(lost_share: f64, delay_ms: u32) -> Scenario {
    let acknowledging = Acknowledging { lost_share, delay_ms };
    Scenario { behaviour: Behaviour { acknowledging, ..Behaviour::default() }, ..scenario(CLIENTS) }
}

#[test]
fn what_gets_lost_is_said_again_until_all_have_it() {
    let Some(mut scene) = begin(acknowledging(0.1, 0)) else { return };
    for _ in 0..10 {
        scene.say_next(0);
    }
    eventually("all hear all", || scene.received() == 10 * ALL);
    eventually("the server knows", || unheard(&scene.rig) == 0);
    let tally = scene.engine.settle(Due::Published(scene.numbers.accepted())).unwrap();
    assert_eq!((tally.balance.due, tally.balance.missing, tally.counts.received), (10 * ALL, 0, 10 * ALL));
    assert_eq!((tally.counts.gaps, tally.counts.duplicates, tally.counts.order_faults), (0, 0, 0));
    assert!(tally.segments.lost > 0 && tally.segments.late == 0, "{:?}", tally.segments);
}

#[test]
fn what_is_acknowledged_late_is_heard_at_once_and_never_acknowledged_before_its_time() {
    const DELAY_MS: u32 = 100;
    let Some(mut scene) = begin(acknowledging(0.0, DELAY_MS)) else { return };
    eventually("the grants are acknowledged", || unheard(&scene.rig) == 0);
    let said = Instant::now();
    scene.say_next(0);
    eventually("all hear", || scene.received() == ALL);
    eventually("the server knows", || unheard(&scene.rig) == 0);
    assert!(said.elapsed() >= Duration::from_millis(u64::from(DELAY_MS)), "after {:?}", said.elapsed());
    let tally = scene.engine.settle(Due::Published(scene.numbers.accepted())).unwrap();
    assert_eq!((tally.balance.missing, tally.counts.received, tally.counts.duplicates), (0, ALL, 0));
    assert!(tally.segments.late >= ALL && tally.segments.lost == 0, "{:?}", tally.segments);
}

#[test]
fn in_the_end_goodbyes_are_neither_lost_nor_late() {
    let Some(scene) = begin(acknowledging(0.1, 300)) else { return };
    let Scene { engine, mut server, rig, .. } = scene;
    std::thread::scope(|scope| {
        let seen_off = scope.spawn(|| (0..CLIENTS).for_each(|client| server.see_off(client)));
        Box::new(engine).finish().unwrap();
        seen_off.join().unwrap();
    });
    eventually("no connection is left", || connections(&rig) == 0);
}

#[test]
fn clients_with_sockets_say_that_they_cannot_lose_anything() {
    let refused = SocketEngine::start(&acknowledging(0.1, 0)).err().unwrap().to_string();
    assert!(refused.contains("--engine xdp"), "{refused}");
}

#[test]
fn more_speeds_than_there_is_room_for_are_refused_in_words() {
    let Some(mut scene) = begin(scenario(CLIENTS)) else { return };
    let slowly = |bytes_per_second| Order::ReadSlowly { share: 0.01, bytes_per_second };
    for rate in 1..=7 {
        scene.engine.order(slowly(rate)).unwrap();
        scene.engine.order(slowly(rate)).unwrap();
    }
    let said = scene.engine.order(slowly(8)).unwrap_err().to_string();
    assert!(said.contains("8 bytes a second"), "{said}");
}
