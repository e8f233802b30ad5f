//! Which listener gets a connection, with real TCP over a veth pair: that of the CPU it came in on, past those that take
//! none; and what becomes of connections whose listener goes away.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod netns;
mod steered;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use abi::steer::ShardState;
use netns::{SERVER_V4, SERVER_V6, eventually};
use push_daemon::kernel::{Mode, steer::steering};
use steered::{CpuPair, Steered, cpus, on_cpu, two_cpus};

/// Connections of one step.
const SOME: usize = 24;

fn a_connection_lands_on_its_cpu(mode: Mode, server: &str) {
    let Some(CpuPair { first, second }) = two_cpus() else { return };
    // More than one shard to a CPU, and not beside each other.
    let cpus = [Some(first), Some(second), Some(first), Some(second)];
    let Some(mut steered) = Steered::start(mode, server, &cpus) else { return };
    for (cpu, shards) in [(first, [0, 2]), (second, [1, 3]), (first, [0, 2])] {
        let clients = steered.connect(Some(cpu), SOME);
        let taken = steered.accept(SOME);
        let taken = shards.map(|shard| taken[shard].len());
        assert_eq!(taken.iter().sum::<usize>(), SOME, "all connections of CPU {cpu} are on its shards");
        assert!(taken.iter().all(|taken| *taken >= SOME / 3), "and on all of them: {taken:?}");
        drop(clients);
    }
    steered.chose(&[("own_cpu", 3 * SOME)]);
    let report = steered.report();
    assert!(report.in_force);
    let by_cpu: BTreeMap<_, _> = report.choices[0].by_cpu.iter().copied().collect();
    assert_eq!(by_cpu.len(), 2, "{by_cpu:?}");
    assert!(by_cpu[&(first as u32)] >= 2 * SOME as u64 && by_cpu[&(second as u32)] >= SOME as u64, "{by_cpu:?}");
}

#[test]
fn a_v4_connection_lands_on_its_cpu_behind_a_filter_in_driver_mode() {
    a_connection_lands_on_its_cpu(Mode::Driver, SERVER_V4);
}

#[test]
fn a_v4_connection_lands_on_its_cpu_behind_a_filter_in_generic_mode() {
    a_connection_lands_on_its_cpu(Mode::Generic, SERVER_V4);
}

#[test]
fn a_v6_connection_lands_on_its_cpu_behind_a_filter_in_driver_mode() {
    a_connection_lands_on_its_cpu(Mode::Driver, SERVER_V6);
}

#[test]
fn a_v6_connection_lands_on_its_cpu_behind_a_filter_in_generic_mode() {
    a_connection_lands_on_its_cpu(Mode::Generic, SERVER_V6);
}

#[test]
fn who_takes_none_is_passed_over_first_for_its_neighbours_then_for_anyone() {
    let Some(CpuPair { first, second }) = two_cpus() else { return };
    let cpus = [Some(first), Some(first), Some(second)];
    let Some(mut steered) = Steered::start(Mode::Driver, SERVER_V4, &cpus) else { return };
    let all_go_to = |steered: &mut Steered, shard: usize, why: &str| {
        let _clients = steered.connect(Some(first), SOME);
        let taken = steered.accept(SOME);
        assert_eq!(taken[shard].len(), SOME, "{why}");
    };
    steered.seats[0].set_state(ShardState::Full);
    all_go_to(&mut steered, 1, "the first is full");
    steered.seats[0].set_state(ShardState::Draining);
    all_go_to(&mut steered, 1, "the first is draining");
    steered.close(0, ShardState::Open);
    all_go_to(&mut steered, 1, "the first says that it is open and does not listen");
    steered.seats[1].set_state(ShardState::Full);
    all_go_to(&mut steered, 2, "the CPU has no other");
    steered.chose(&[("own_cpu", 3 * SOME), ("other_cpu", SOME)]);
}

#[test]
fn of_the_shards_of_a_cpu_those_with_fewer_connections_get_more() {
    let Some(CpuPair { first, .. }) = two_cpus() else { return };
    let Some(mut steered) = Steered::start(Mode::Driver, SERVER_V4, &[Some(first); 4]) else { return };
    steered.seats[2].set_load(100);
    let _clients = steered.connect(Some(first), 10 * SOME);
    let taken = steered.accept(10 * SOME).map(|taken| taken.len());
    for light in [0, 1, 3] {
        assert!(taken[2] < taken[light], "the one that has more already got more: {taken:?}");
    }
}

#[test]
fn a_cpu_whose_shards_have_far_more_than_others_gives_away() {
    let Some(CpuPair { first, second }) = two_cpus() else { return };
    let Some(mut steered) = Steered::start(Mode::Driver, SERVER_V4, &[Some(first), Some(second)]) else { return };
    steered.seats[0].set_load(1_000_000);
    let _clients = steered.connect(Some(first), SOME);
    // Every second turn names the crowded shard itself, which is no reason to leave it.
    let taken = steered.accept(SOME).map(|taken| taken.len());
    assert!(taken[..2].iter().all(|taken| *taken >= SOME / 3), "{taken:?}");
    steered.chose(&[("own_cpu", SOME / 3), ("crowded", SOME / 3)]);
}

#[test]
fn without_a_word_from_any_shard_the_kernels_hash_decides() {
    let Some(mut steered) = Steered::start(Mode::Driver, SERVER_V4, &[None, None]) else { return };
    for seat in &steered.seats {
        seat.set_state(ShardState::Gone);
    }
    let _clients = steered.connect(None, 10 * SOME);
    let taken = steered.accept(10 * SOME).map(|taken| taken.len());
    assert!(taken[0] > 0 && taken[1] > 0, "by hash: {taken:?}");
    steered.chose(&[("kernel_hash", 10 * SOME)]);
}

#[test]
fn full_shards_that_still_listen_are_better_than_nobody_and_draining_ones_refuse() {
    let Some(mut steered) = Steered::start(Mode::Driver, SERVER_V4, &[None, None]) else { return };
    steered.seats[0].set_state(ShardState::Full);
    steered.seats[1].set_state(ShardState::Draining);
    let _clients = steered.connect(None, SOME);
    steered.accept(SOME);
    steered.chose(&[("kernel_hash", SOME)]);
    steered.seats[0].set_state(ShardState::Draining);
    let refused = steered.ground.pair.client.run(|| TcpStream::connect(steered.address)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    steered.chose(&[("kernel_hash", SOME), ("refused", 1)]);
}

#[test]
fn what_waits_at_a_listener_that_closes_moves_to_one_that_is_open() {
    let Some(mut steered) = Steered::start(Mode::Driver, SERVER_V4, &[None, None, None]) else { return };
    steered.seats[1].set_state(ShardState::Full);
    steered.seats[2].set_state(ShardState::Full);
    let mut clients = steered.connect(None, SOME);
    steered.await_waiting(0, SOME);

    steered.seats[1].set_state(ShardState::Open);
    let mut byte = [0; 8];
    let bell_has_rung = |buffer: &mut [u8]| rustix::io::read(steered.steering().bell(), buffer).is_ok();
    assert!(!bell_has_rung(&mut byte));
    steered.seats[0].ring().unwrap();
    assert!(bell_has_rung(&mut byte), "the others are told to look");

    steered.close(0, ShardState::Full);
    let mut taken = steered.accept(SOME);
    assert_eq!(taken[1].len(), SOME, "on the open one, not on the full one");
    for (server, client) in taken[1].iter_mut().zip(&mut clients) {
        server.set_nonblocking(false).unwrap();
        server.read_exact(&mut byte[..1]).unwrap();
        server.write_all(b"y").unwrap();
        client.read_exact(&mut byte[..1]).unwrap();
    }
    steered.chose(&[("other_cpu", 2 * SOME), ("migrated", SOME)]);
}

#[test]
fn in_a_storm_of_connects_listeners_close_on_those_who_wait_and_nobody_is_reset() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 24;
    let cpus = cpus();
    let of_shard: Vec<_> = (0..4).map(|shard| Some(cpus[shard % cpus.len()])).collect();
    let Some(steered) = Steered::start(Mode::Driver, SERVER_V4, &of_shard) else { return };
    steered.serving(|storm| {
        let over = &AtomicBool::new(false);
        let connected: usize = thread::scope(|scope| {
            let (client, to) = (&storm.ground.pair.client, storm.address);
            let connect = |cpu| scope.spawn(move || client.run(|| connect_until(over, cpu, to)));
            let clients: Vec<_> = (0..CLIENTS).map(|number| connect(cpus[number % cpus.len()])).collect();
            // One after another, for each of the reasons; and each is back before the next goes.
            for round in 0..ROUNDS {
                let reason = [ShardState::Full, ShardState::Draining, ShardState::Gone][round % 3];
                storm.close_on_somebody(round % 4, reason);
                let then = storm.served();
                eventually("the storm goes on without it", || storm.served() > then);
                storm.reopen(round % 4);
            }
            over.store(true, Ordering::Relaxed);
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(storm.served(), connected);
        assert!(storm.migrated() as usize >= ROUNDS, "somebody waited at each listener that closed");
        eprintln!("{connected} connections, {ROUNDS} listeners closed, {} moved", storm.migrated());
    });
}

/// Hears an answer each time. Gives how often.
fn connect_until(over: &AtomicBool, cpu: usize, to: SocketAddr) -> usize {
    on_cpu(cpu);
    let mut connected = 0;
    while !over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(to).expect("nobody is refused");
        stream.write_all(b"x").expect("nobody is reset");
        stream.read_exact(&mut [0]).expect("everybody is served");
        connected += 1;
    }
    connected
}

#[test]
fn the_pins_say_how_shards_are_and_that_they_are_gone() {
    let Some(steered) = Steered::start(Mode::Driver, SERVER_V4, &[Some(0), None]) else { return };
    steered.seats[0].set_load(7);
    steered.seats[1].set_state(ShardState::Full);
    let root = steered.ground.bpffs.pin_root();
    let report = steering(&root).unwrap().unwrap();
    assert_eq!(report, steered.report(), "the same by the pins and by the daemon's own tables");
    let seen: Vec<_> =
        report.shards.iter().map(|shard| (shard.cpu, shard.state, shard.connections, shard.listeners)).collect();
    assert_eq!(seen, [(Some(0), "open", 7, 1), (None, "full", 0, 1)]);
    let ground = steered.end();
    // The kernel has taken the sockets out.
    let report = steering(&root).unwrap().unwrap();
    assert!(!report.in_force);
    assert_eq!(report.shards[0].state, "gone");
    drop(ground);
}

#[test]
fn a_successor_takes_the_pins_and_what_waits_at_its_predecessor() {
    let Some(mut old) = Steered::start(Mode::Driver, SERVER_V4, &[None, None]) else { return };
    old.seats[1].set_state(ShardState::Full);
    let mut waiting = old.connect(None, SOME);
    assert!(!old.steering().is_superseded());
    let mut new = old.successor();
    assert!(old.steering().is_superseded() && !new.steering().is_superseded());
    // A shard of the old one listens again and says that it is open; nobody asks it any more.
    old.reopen(1);
    let _later = new.connect(None, SOME);
    new.accept(SOME);
    // It ends without having accepted anything.
    let ground = old.end();
    for server in new.accept(SOME).iter_mut().flatten() {
        server.write_all(b"y").unwrap();
    }
    waiting.iter_mut().for_each(|client| client.read_exact(&mut [0]).unwrap());
    drop((new, ground));
}
