//! What leaves for an ISP's clients: packets to departure times, classes and counts, real streams at their rates, and queues of
//! others left alone.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod netns;
mod packets;
mod shaped;

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use abi::shaping::{CLASSES, DEPARTURES, class_of};
use netns::{Bpffs, Namespace, Pair, SERVER_INTERFACE, config, eventually, object};
use packets::{Frame, tcp};
use push_daemon::kernel::{Backend, IspRate, KernelConfig, KernelPlane, Mode, WholeSet, take_down};
use shaped::{Stream, count, isp, leave, program, sent_again, set_shaping, tc};

const GO_ON: i32 = -1;
const REFUSE: i32 = 2;

/// To a client of an ISP with a rate, of one without, of none; from another port than ours.
const TO_SLOW: &str = "10.0.0.1:3101 > 203.0.113.9:4000";
const TO_SLOW_V6: &str = "[2001:db8:ffff::1]:3101 > [2001:db8::9]:4000";
const TO_FREE: &str = "10.0.0.1:3101 > 198.51.100.9:4000";
const TO_NOBODY: &str = "10.0.0.1:3101 > 192.0.2.9:4000";
const FROM_ELSEWHERE: &str = "10.0.0.1:22 > 203.0.113.9:4000";

/// Headers of a TCP packet without options, from Ethernet on.
const HEADERS: usize = 54;

/// A packet of an open connection.
fn data(line: &str) -> Frame {
    const ACK: u8 = 0x10;
    tcp(line).tcp_byte(13, ACK)
}

struct Egress {
    plane: KernelPlane,
    slow: u32,
    free: u32,
    _namespace: Namespace,
    _bpffs: Bpffs,
}

/// The program at a loopback, in the given way, with the slow ISP at a thousand bytes per second.
fn egress(backend: u32, change: impl FnOnce(&mut KernelConfig)) -> Option<Egress> {
    let object = object()?;
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
    let mut config = config(&object, &bpffs, "lo", Mode::Generic);
    (config.shape, config.measure) = (true, false);
    change(&mut config);
    let mut plane = namespace.run(|| KernelPlane::bring_up(&config)).unwrap();
    let slow = plane.tables_mut().set_isp(&isp("slow", "203.0.113.0/24", 1_000, 1_500)).unwrap();
    let both = isp("slow", "2001:db8::/64", 1_000, 1_500);
    assert_eq!(plane.tables_mut().set_isp(&both).unwrap(), slow);
    let free = plane.tables_mut().set_isp(&isp("free", "198.51.100.0/24", 0, 0)).unwrap();
    set_shaping(plane.pin_dir(), |shaping| shaping.backend = backend);
    Some(Egress { plane, slow, free, _namespace: namespace, _bpffs: bpffs })
}

#[test]
fn with_classes_each_isp_with_a_rate_has_his_own() {
    let Some(egress) = egress(CLASSES, |_| {}) else { return };
    let program = program(&egress.plane);
    for (line, priority, number) in [
        (TO_SLOW, class_of(egress.slow), Some(egress.slow)),
        (TO_SLOW_V6, class_of(egress.slow), Some(egress.slow)),
        (TO_FREE, 0, Some(egress.free)),
        (TO_NOBODY, 0, Some(0)),
        (FROM_ELSEWHERE, 0, None),
    ] {
        let before = number.map(|number| count(egress.plane.tables(), number));
        let frame = data(line).payload(100).build();
        let left = leave(&program, &frame, None);
        assert_eq!((left.action, left.priority, left.departure_ns), (GO_ON, priority, 0), "{line}");
        if let (Some(number), Some(before)) = (number, before) {
            let after = count(egress.plane.tables(), number);
            let moved = (after.packets - before.packets, after.bytes - before.bytes);
            assert_eq!(moved, (1, frame.len() as u64), "{line}");
        }
    }
    let total: u64 = egress.plane.tables().shape_counters().unwrap().iter().map(|count| count.packets).sum();
    assert_eq!(total, 4, "what is not ours is not counted");
}

#[test]
fn with_departure_times_packets_go_at_once_then_later_then_not_at_all() {
    let Some(egress) = egress(DEPARTURES, |config| config.drop_horizon_ms = 2_000) else { return };
    let program = program(&egress.plane);
    // A packet takes a second and a half at the rate, which is what may go ahead.
    let frame = data(TO_SLOW).payload(1_500 - HEADERS).build();
    let fates: Vec<_> = (0..4).map(|_| leave(&program, &frame, None)).collect();
    assert_eq!((fates[0].action, fates[0].departure_ns), (GO_ON, 0), "the burst goes at once");
    assert_eq!((fates[1].action, fates[1].departure_ns), (GO_ON, 0), "what the burst paid for as well");
    assert_eq!(fates[2].action, GO_ON);
    assert_ne!(fates[2].departure_ns, 0, "the third waits");
    assert_eq!(fates[3].action, REFUSE, "the fourth would wait too long");

    let counted = count(egress.plane.tables(), egress.slow);
    assert_eq!((counted.packets, counted.delayed_packets, counted.dropped_packets), (3, 1, 1));
    assert_eq!((counted.bytes, counted.dropped_bytes), (4_500, 1_500));
    assert_eq!(leave(&program, &data(TO_FREE).build(), None).departure_ns, 0, "his neighbour does not wait");
}

#[test]
fn the_answer_to_a_new_connection_does_not_wait() {
    const SYN_ACK: u8 = 0x12;
    for backend in [DEPARTURES, CLASSES] {
        let Some(egress) = egress(backend, |_| {}) else { return };
        let program = program(&egress.plane);
        let full = data(TO_SLOW).payload(1_500 - HEADERS).build();
        (0..4).for_each(|_| drop(leave(&program, &full, None)));
        let left = leave(&program, &tcp(TO_SLOW).tcp_byte(13, SYN_ACK).build(), None);
        assert_eq!((left.action, left.priority, left.departure_ns), (GO_ON, 0, 0));
    }
}

#[test]
fn a_packet_that_waits_is_marked_where_its_connection_takes_marks() {
    const TYPE_OF_SERVICE: usize = 15;
    for (capable, marked) in [(0, 0), (2, 3)] {
        let Some(egress) = egress(DEPARTURES, |config| config.drop_horizon_ms = 2_000) else { return };
        let program = program(&egress.plane);
        let frame = data(TO_SLOW).payload(1_500 - HEADERS).ip_byte(1, capable).build();
        let fates: Vec<_> = (0..3).map(|_| leave(&program, &frame, None)).collect();
        assert_eq!(fates[0].frame[TYPE_OF_SERVICE], capable, "what does not wait is not marked");
        assert_eq!(fates[2].frame[TYPE_OF_SERVICE], marked, "the third waits");
        assert_eq!(count(egress.plane.tables(), egress.slow).marked_packets, u64::from(marked == 3));
    }
}

#[test]
fn another_rate_lets_no_packet_overtake_one_that_waits() {
    let Some(mut egress) = egress(DEPARTURES, |config| config.drop_horizon_ms = 2_000) else { return };
    let program = program(&egress.plane);
    // Room for a machine that takes a second for this.
    let frame = data(TO_SLOW).payload(600 - HEADERS).build();
    egress.plane.tables_mut().set_isp(&isp("slow", "203.0.113.0/24", 1_000, 1)).unwrap();
    let [_, _, last] = [(); 3].map(|()| leave(&program, &frame, None));
    assert_ne!(last.departure_ns, 0);
    for (bytes_per_s, burst_bytes) in [(1_000_000, 1_500), (1_000_000, 1_000_000)] {
        let spec = isp("slow", "203.0.113.0/24", bytes_per_s, burst_bytes);
        egress.plane.tables_mut().set_isp(&spec).unwrap();
        let next = leave(&program, &data(TO_SLOW).build(), None);
        assert_eq!(next.action, GO_ON);
        assert!(next.departure_ns >= last.departure_ns, "{} before {}", next.departure_ns, last.departure_ns);
    }
}

#[test]
fn an_aggregate_counts_as_its_packets_on_the_wire() {
    let Some(egress) = egress(CLASSES, |_| {}) else { return };
    let frame = data(TO_SLOW).payload(3_000).build();
    leave(&program(&egress.plane), &frame, Some((3, 3_162)));
    let counted = count(egress.plane.tables(), egress.slow);
    assert_eq!((counted.packets, counted.bytes), (3, 3_162));
}

#[test]
fn the_kill_switch_passes_everything_uncounted() {
    let Some(mut egress) = egress(CLASSES, |_| {}) else { return };
    egress.plane.tables_mut().set_kill_switch(true).unwrap();
    let left = leave(&program(&egress.plane), &data(TO_SLOW).build(), None);
    assert_eq!((left.action, left.priority), (GO_ON, 0));
    assert_eq!(count(egress.plane.tables(), egress.slow).packets, 0);
}

#[test]
fn only_listed_addresses_are_shaped_when_some_are_listed() {
    let Some(egress) = egress(CLASSES, |config| config.protected_addresses = vec!["10.0.0.2".parse().unwrap()]) else {
        return;
    };
    let program = program(&egress.plane);
    assert_eq!(leave(&program, &data(TO_SLOW).build(), None).priority, 0);
    let listed = data("10.0.0.2:3101 > 203.0.113.9:4000").build();
    assert_eq!(leave(&program, &listed, None).priority, class_of(egress.slow));
}

/// Streams are timed, so no two tests of them run at once.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const MBIT: u64 = 125_000;

struct Shaped {
    pair: Pair,
    plane: KernelPlane,
    limited: u32,
    neighbour: u32,
    _bpffs: Bpffs,
}

fn shaped_pair(object: &Path, mode: Mode, by: Option<Backend>) -> Option<Shaped> {
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    let mut config = config(object, &bpffs, SERVER_INTERFACE, mode);
    (config.shape, config.shape_by) = (true, by);
    let mut plane = pair.server.run(|| KernelPlane::bring_up(&config)).unwrap();
    if let (Some(by), Some(Err(reason))) = (by, plane.shaping()) {
        eprintln!("skipped: {}: shaping by {by}: {reason}", thread::current().name().unwrap_or("a test"));
        return None;
    }
    let specs = [isp("limited", "10.77.0.2/32", 50 * MBIT, 0), isp("neighbour", "10.77.0.3/32", 0, 0)];
    let [limited, neighbour] = specs.map(|spec| pair.server.run(|| plane.tables_mut().set_isp(&spec)).unwrap());
    Some(Shaped { pair, plane, limited, neighbour, _bpffs: bpffs })
}

impl Shaped {
    fn stream(&self, port: u16, to: &str) -> Stream {
        let from = format!("{}:{port}", netns::SERVER_V4).parse().unwrap();
        Stream::start(&self.pair.server, &self.pair.client, from, to)
    }

    fn set_rate(&mut self, mbit_per_s: u64) {
        let spec = isp("limited", "10.77.0.2/32", mbit_per_s * MBIT, 0);
        self.pair.server.run(|| self.plane.tables_mut().set_isp(&spec)).unwrap();
    }
}

/// Mbit/s on the wire that arrive of a stream within `window`, once a twentieth of a second's burst is over.
fn wire_rate(stream: &Stream, window: Duration) -> f64 {
    let before = stream.received();
    eventually("the stream flows", || stream.received() > before + 1_000_000);
    let (start, from) = (Instant::now(), stream.received());
    thread::sleep(window);
    let (bytes, seconds) = ((stream.received() - from) as f64, start.elapsed().as_secs_f64());
    // Of 1,514 bytes on the wire 1,448 are the stream's.
    bytes * 1_514.0 / 1_448.0 * 8.0 / 1e6 / seconds
}

fn an_isp_gets_his_rate(mode: Mode, by: Backend) {
    let Some(object) = object() else { return };
    let _alone = alone();
    let Some(shaped) = shaped_pair(&object, mode, Some(by)) else { return };
    assert_eq!(shaped.plane.shaping(), Some(Ok(by)));
    let limited = shaped.stream(3101, "10.77.0.2");
    let rate = wire_rate(&limited, Duration::from_secs(10));
    eprintln!("{mode} mode, {by}: {rate:.2} Mbit/s of 50; {:?}", count(shaped.plane.tables(), shaped.limited));
    assert!((47.5..=52.5).contains(&rate), "{rate} Mbit/s");
    assert_eq!(sent_again(&shaped.pair.server), 0, "segments were lost");

    // Beside it the neighbour gets many times as much, and nothing of his waits.
    let neighbour = shaped.stream(3102, "10.77.0.3");
    let (start, from) = (Instant::now(), limited.received());
    eventually("the neighbour gets 200 MB", || neighbour.received() > 200_000_000);
    let seconds = start.elapsed().as_secs_f64();
    let times = neighbour.received() as f64 / (limited.received() - from).max(1) as f64;
    eprintln!("the neighbour: {:.0} Mbit/s, {times:.0} times as much", 1600.0 / seconds);
    assert!(times > 4.0, "the neighbour got {times} times as much");
    let counted = count(shaped.plane.tables(), shaped.neighbour);
    assert_eq!((counted.delayed_packets, counted.dropped_packets), (0, 0));
}

#[test]
fn an_isp_gets_his_rate_by_htb_in_driver_mode() {
    an_isp_gets_his_rate(Mode::Driver, Backend::Htb);
}

#[test]
fn an_isp_gets_his_rate_by_htb_in_generic_mode() {
    an_isp_gets_his_rate(Mode::Generic, Backend::Htb);
}

#[test]
fn an_isp_gets_his_rate_by_fq_in_driver_mode() {
    an_isp_gets_his_rate(Mode::Driver, Backend::Fq);
}

#[test]
fn an_isp_gets_his_rate_by_fq_in_generic_mode() {
    an_isp_gets_his_rate(Mode::Generic, Backend::Fq);
}

fn a_rate_changes_under_way(by: Backend) {
    let Some(object) = object() else { return };
    let _alone = alone();
    let Some(mut shaped) = shaped_pair(&object, Mode::Driver, Some(by)) else { return };
    let stream = shaped.stream(3101, "10.77.0.2");
    for mbit_per_s in [50, 20, 80] {
        shaped.set_rate(mbit_per_s);
        let rate = wire_rate(&stream, Duration::from_secs(2));
        let wanted = mbit_per_s as f64;
        assert!((wanted * 0.9..=wanted * 1.1).contains(&rate), "{rate} Mbit/s of {wanted}");
    }
    assert_eq!(sent_again(&shaped.pair.server), 0, "segments were lost");
}

#[test]
fn a_rate_changes_under_way_by_htb() {
    a_rate_changes_under_way(Backend::Htb);
}

#[test]
fn a_rate_changes_under_way_by_fq() {
    a_rate_changes_under_way(Backend::Fq);
}

/// More than the horizon has room for, so some are refused, which is no loss to any.
fn many_streams_share_a_rate(by: Backend) {
    let Some(object) = object() else { return };
    let _alone = alone();
    let Some(shaped) = shaped_pair(&object, Mode::Driver, Some(by)) else { return };
    let streams: Vec<_> = (0..STREAMS).map(|_| shaped.stream(3101, "10.77.0.2")).collect();
    let received = || streams.iter().map(Stream::received).sum::<u64>();
    eventually("all of them flow", || streams.iter().all(|stream| stream.received() > 0));
    let (start, from) = (Instant::now(), received());
    thread::sleep(Duration::from_secs(3));
    let rate = (received() - from) as f64 * 1_514.0 / 1_448.0 * 8.0 / 1e6 / start.elapsed().as_secs_f64();
    let counted = count(shaped.plane.tables(), shaped.limited);
    let queue = tc(&shaped.pair.server, &format!("-s qdisc show dev {SERVER_INTERFACE}"));
    eprintln!("{STREAMS} streams, {by}: {rate:.2} Mbit/s of 50; {counted:?}\n{queue}");
    assert!((45.0..=55.0).contains(&rate), "{rate} Mbit/s");
    // Refusals are many, and would be as many losses. A probe that TCP sends when an answer is late may be among so many streams.
    let again = sent_again(&shaped.pair.server);
    assert!(again * 1_000 < counted.packets, "{again} segments were sent again");
}

const STREAMS: usize = 100;

#[test]
fn many_streams_share_a_rate_by_htb() {
    many_streams_share_a_rate(Backend::Htb);
}

#[test]
fn many_streams_share_a_rate_by_fq() {
    many_streams_share_a_rate(Backend::Fq);
}

#[test]
fn a_rate_that_whole_sets_bring_and_take_is_followed() {
    let Some(object) = object() else { return };
    let Some(mut shaped) = shaped_pair(&object, Mode::Generic, Some(Backend::Htb)) else { return };
    let classes = |shaped: &Shaped| tc(&shaped.pair.server, &format!("class show dev {SERVER_INTERFACE}"));
    assert!(classes(&shaped).contains("rate 50Mbit"), "{}", classes(&shaped));
    let set = WholeSet { isps: vec![isp("limited", "10.77.0.2/32", 7 * MBIT, 0)], ..WholeSet::default() };
    let server = &shaped.pair.server;
    server.run(|| shaped.plane.tables_mut().apply(&set, None)).unwrap();
    assert!(classes(&shaped).contains("rate 7Mbit"), "{}", classes(&shaped));
    shaped.pair.server.run(|| shaped.plane.tables_mut().rollback()).unwrap();
    assert!(classes(&shaped).contains("rate 50Mbit"), "{}", classes(&shaped));
    shaped.pair.server.run(|| shaped.plane.tables_mut().remove_isp("limited")).unwrap();
    assert_eq!(classes(&shaped), "");

    // A trial that runs out has nobody who would change the classes, until the daemon looks.
    let set = WholeSet { isps: vec![isp("limited", "10.77.0.2/32", 9 * MBIT, 0)], ..WholeSet::default() };
    shaped.pair.server.run(|| shaped.plane.tables_mut().apply(&set, Some(Duration::from_secs(1)))).unwrap();
    assert!(classes(&shaped).contains("rate 9Mbit"), "{}", classes(&shaped));
    eventually("the trial is over", || {
        shaped.pair.server.run(|| shaped.plane.keep_shaping()).unwrap();
        classes(&shaped).is_empty()
    });
}

#[test]
fn a_queue_that_somebody_set_up_is_left_alone() {
    let Some(object) = object() else { return };
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    let queues = || tc(&pair.server, &format!("qdisc show dev {SERVER_INTERFACE}"));
    tc(&pair.server, &format!("qdisc add dev {SERVER_INTERFACE} root tbf rate 900mbit burst 64k latency 10ms"));
    let before = queues();
    let mut config = config(&object, &bpffs, SERVER_INTERFACE, Mode::Generic);
    config.shape = true;
    let mut plane = pair.server.run(|| KernelPlane::bring_up(&config)).unwrap();
    let reason = plane.shaping().unwrap().unwrap_err().to_owned();
    assert!(reason.contains("tbf"), "{reason}");
    assert!(plane.notes().iter().any(|note| note.contains("tbf")), "{:?}", plane.notes());
    assert_eq!(plane.status().unwrap().shaping, None);
    assert_eq!(queues().lines().next(), before.lines().next());

    // Once it is gone, shaping begins; when it is back, shaping ends.
    tc(&pair.server, &format!("qdisc del dev {SERVER_INTERFACE} root"));
    let said = pair.server.run(|| plane.keep_shaping()).unwrap().unwrap();
    assert!(said.contains("is shaped by"), "{said}");
    assert!(plane.status().unwrap().shaping.is_some());
    assert_eq!(pair.server.run(|| plane.keep_shaping()).unwrap(), None);
    tc(
        &pair.server,
        &format!("qdisc replace dev {SERVER_INTERFACE} root handle 7: tbf rate 900mbit burst 64k latency 10ms"),
    );
    let said = pair.server.run(|| plane.keep_shaping()).unwrap().unwrap();
    assert!(said.contains("not shaped any more"), "{said}");
    pair.server.run(|| take_down(&bpffs.pin_root())).unwrap();
    assert!(queues().starts_with("qdisc tbf 7:"), "{}", queues());
}

#[test]
fn what_shaping_set_up_is_adopted_by_the_next_daemon_and_goes_with_the_last() {
    let Some(object) = object() else { return };
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    // Kind, handle and place; what follows are options, and counts that move by themselves.
    let queues = || {
        let all = tc(&pair.server, &format!("qdisc show dev {SERVER_INTERFACE}"));
        all.lines().map(|line| line.split(' ').take(4).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let before = queues();
    let mut config = config(&object, &bpffs, SERVER_INTERFACE, Mode::Generic);
    config.shape = true;
    let bring_up = |config: &KernelConfig| pair.server.run(|| KernelPlane::bring_up(config)).unwrap();
    let first = bring_up(&config);
    let backend = first.shaping().unwrap().unwrap();
    let (made, id) = (queues(), program(&first).info().unwrap().id());
    assert_ne!(made, before);
    drop(first);
    let second = bring_up(&config);
    assert_eq!(second.shaping(), Some(Ok(backend)));
    assert_eq!((queues(), program(&second).info().unwrap().id()), (made.clone(), id), "adopted as it was");

    config.shape = false;
    let third = bring_up(&config);
    assert_eq!((third.shaping(), third.status().unwrap().shaping), (None, None));
    assert_eq!(queues(), before, "asked for no more");
    config.shape = true;
    bring_up(&config);
    assert_ne!(queues(), before);
    pair.server.run(|| take_down(&bpffs.pin_root())).unwrap();
    assert_eq!(queues(), before, "taken down");
}

#[test]
fn a_burst_and_a_rate_of_many_gigabits_fit_in_a_class() {
    let Some(object) = object() else { return };
    let Some(mut shaped) = shaped_pair(&object, Mode::Generic, Some(Backend::Htb)) else { return };
    let mut spec = isp("limited", "10.77.0.2/32", 0, 0);
    spec.egress = IspRate { bytes_per_s: 100_000 * MBIT, burst_bytes: 100_000_000 };
    shaped.pair.server.run(|| shaped.plane.tables_mut().set_isp(&spec)).unwrap();
    let classes = tc(&shaped.pair.server, &format!("class show dev {SERVER_INTERFACE}"));
    assert!(classes.contains("rate 100Gbit"), "{classes}");
}
