//! A whole edge whose connections are steered: what becomes of those that are on their way when a shard is full, when one
//! ends, when the edge stops, and when another takes over.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod edge_in_process;
mod edge_process;
mod netns;
mod steered;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use edge_in_process::{Client, Edge, Tier, eventually, settings};
use edge_process::EdgeProcess;
use netns::{Bpffs, Namespace, object};
use push_daemon::kernel::steer::{SteerReport, steering};
use steered::{CpuPair, cpus, on_cpu, two_cpus};
use wire::goim::op;

const PORTS: [u16; 2] = [3101, 3102];

/// A host of its own, without interfaces but its loopback.
struct Host {
    object: std::path::PathBuf,
    bpffs: Bpffs,
    namespace: Namespace,
}

impl Host {
    /// `None` after saying why not.
    fn new() -> Option<Self> {
        let object = object()?;
        Some(Self { object, bpffs: Bpffs::mount(), namespace: Namespace::new("e") })
    }

    /// The settings of its edge, behind the addresses.
    fn settings(&self, more: &str, of_kernel: &str) -> String {
        format!(
            "{more}\n[kernel]\ninterface = \"lo\"\nmode = \"generic\"\nprotected_ports = {PORTS:?}\n\
             object = {:?}\npin_root = {:?}\n{of_kernel}\n",
            self.object,
            self.bpffs.pin_root()
        )
    }

    fn report(&self) -> SteerReport {
        steering(&self.bpffs.pin_root()).unwrap().unwrap()
    }
}

/// What `/metrics` says.
fn metrics(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Comes in, and says whether it was let in or told goodbye. Anything else is a panic.
fn is_served(mut client: Client, mid: i64) -> bool {
    // An edge that says goodbye may have ended the connection already.
    let _gone =
        client.try_send(op::AUTH, format!(r#"{{"mid":{mid},"room_id":"live://1","accepts":[1000]}}"#).as_bytes());
    match client.next(1)[0].0 {
        op::AUTH_REPLY => true,
        op::DISCONNECT_REPLY => false,
        other => panic!("operation {other} is no answer"),
    }
}

/// Let in or told goodbye; see [`is_served`].
fn assert_answered(client: Client) {
    let _either = is_served(client, 2);
}

#[test]
fn shards_that_are_full_are_passed_over_and_come_back_when_there_is_room() {
    let Some(CpuPair { first, .. }) = two_cpus() else { return };
    let Some(host) = Host::new() else { return };
    host.namespace.run(|| {
        // A shard holds its share of ten and fifteen more.
        let edge = Edge::start_on(PORTS, &host.settings("shard.count = 4\nshard.max_connections = 40", ""));
        on_cpu(first);
        let clients: Vec<Client> = thread::scope(|scope| {
            let one = |mid| {
                move || {
                    let mut client = Client::connect(PORTS[0], false);
                    client.ask_in(mid, 1);
                    assert_eq!(client.next(1)[0].0, op::AUTH_REPLY);
                    client
                }
            };
            let threads: Vec<_> = (1..=80).map(|mid| scope.spawn(one(mid))).collect();
            threads.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let cpu_of = |shard: &push_daemon::kernel::steer::ShardReport| shard.cpu;
        eventually("all are counted where they are", || {
            let report = host.report();
            let on_first = report.shards.iter().filter(|shard| cpu_of(shard) == Some(first as u32));
            let all: u32 = report.shards.iter().map(|shard| shard.connections).sum();
            (all == 80 && on_first.clone().all(|shard| shard.connections == 25)).then_some(())
        });
        let text = metrics(edge.appliance.admin_address());
        let full =
            text.lines().filter(|line| line.starts_with("push_shard_state{") && line.contains("\"full\"")).count();
        assert!(full >= 1, "{text}");
        for choice in ["own_cpu", "other_cpu"] {
            let line = text.lines().find(|line| line.contains(&format!("choice=\"{choice}\""))).unwrap();
            assert!(line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= 20, "{line}");
        }

        drop(clients);
        let all_open = || {
            let report = host.report();
            report.shards.iter().all(|shard| (shard.state, shard.connections, shard.listeners) == ("open", 0, 2))
        };
        eventually("all shards are open again", || all_open().then_some(()));
        edge.join(true, 1, 1);
        edge.stop();
        assert!(host.report().shards.iter().all(|shard| shard.listeners == 0 && shard.state == "gone"));
    });
}

/// Clients that come in all the time while `work` goes on, until it is over or nobody listens any more. How many were let in.
fn in_a_storm(work: impl FnOnce(&AtomicUsize)) -> usize {
    let (over, served, cpus) = (AtomicBool::new(false), AtomicUsize::new(0), cpus());
    thread::scope(|scope| {
        for number in 0..6 {
            let (over, served, cpu) = (&over, &served, cpus[number % cpus.len()]);
            scope.spawn(move || {
                on_cpu(cpu);
                while !over.load(Ordering::Relaxed) {
                    match TcpStream::connect(("127.0.0.1", PORTS[0])) {
                        Ok(stream) => {
                            let let_in = is_served(Client::over(stream), 1);
                            served.fetch_add(usize::from(let_in), Ordering::Relaxed);
                        }
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&served)));
        over.store(true, Ordering::Relaxed);
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    served.into_inner()
}

fn await_more(served: &AtomicUsize) {
    let then = served.load(Ordering::Relaxed);
    eventually("more are let in", || (served.load(Ordering::Relaxed) > then + 100).then_some(()));
}

#[test]
fn an_edge_that_stops_serves_those_on_their_way_and_refuses_others() {
    let Some(host) = Host::new() else { return };
    host.namespace.run(|| {
        let edge = Edge::start_on(PORTS, &host.settings("shard.count = 4\nlimits.drain_ms = 2000", ""));
        // The kernel holds these back until they say something, which they do when the edge is about to end.
        let late: Vec<Client> = (0..12).map(|_| Client::connect(PORTS[0], false)).collect();
        let served = in_a_storm(|served| {
            await_more(served);
            thread::scope(|scope| {
                scope.spawn(|| {
                    eventually("the shards drain", || {
                        host.report().shards.iter().all(|shard| shard.state == "draining").then_some(())
                    });
                    late.into_iter().for_each(assert_answered);
                });
                edge.drain();
            });
        });
        eprintln!("{served} were let in before it stopped");
        let refused = TcpStream::connect(("127.0.0.1", PORTS[0])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_successor_gets_those_that_are_on_their_way_to_the_edge_that_stops() {
    let Some(host) = Host::new() else { return };
    host.namespace.run(|| {
        let toml = host.settings("shard.count = 4\nlimits.drain_ms = 500", "");
        let old = Edge::start_on(PORTS, &toml);
        let mut new = None;
        let served = in_a_storm(|served| {
            await_more(served);
            let late: Vec<Client> = (0..12).map(|_| Client::connect(PORTS[0], false)).collect();
            new = Some(Edge::start_on(PORTS, &toml));
            old.drain();
            late.into_iter().for_each(assert_answered);
            await_more(served);
        });
        assert!(served > 200);
        let report = host.report();
        assert!(report.in_force && report.shards.iter().all(|shard| shard.state == "open"), "{report:?}");
        new.unwrap().stop();
    });
}

#[test]
fn with_the_switch_off_the_edge_works_without() {
    let Some(host) = Host::new() else { return };
    host.namespace.run(|| {
        let edge = Edge::start_on(PORTS, &host.settings("shard.count = 2", "steer = false"));
        edge.join(false, 1, 1);
        assert_eq!(steering(&host.bpffs.pin_root()).unwrap(), None);
        assert!(!metrics(edge.appliance.admin_address()).contains("push_shard_state"));
        edge.stop();
    });
}

#[test]
#[ignore = "not a test: the process that the test below starts"]
fn the_edge_itself() {
    edge_process::run();
}

#[test]
fn those_on_their_way_to_a_shard_that_panics_are_served_by_another() {
    // A shard holds its share of ten and fifteen more.
    const HELD: usize = 25;
    const WAITING: usize = 15;
    let Some(CpuPair { first, .. }) = two_cpus() else { return };
    let Some(host) = Host::new() else { return };
    host.namespace.run(|| {
        let tier = Tier::start();
        let more = host.settings("shard.count = 2\nshard.max_connections = 20\nlimits.drain_ms = 100", "");
        let edge = EdgeProcess::start(&settings(PORTS, &tier, &more));
        tier.ports();
        on_cpu(first);
        // Almost as many as the shard holds, none of which ever says enough to be answered.
        let connect = || TcpStream::connect(("127.0.0.1", PORTS[0])).unwrap();
        let mut held: Vec<TcpStream> = (1..HELD).map(|_| connect()).collect();
        held.iter_mut().for_each(|stream| stream.write_all(&[0]).unwrap());
        let on_first = |report: SteerReport| report.shards.into_iter().find(|shard| shard.cpu == Some(first as u32));
        eventually("the shard holds them", || {
            on_first(host.report()).filter(|shard| shard.connections as usize == HELD - 1)
        });
        // Some more, on their way to the same shard, and then one who makes it full, which it does not survive.
        let mut waiting: Vec<Client> = (0..WAITING).map(|_| Client::over(connect())).collect();
        held.push(connect());
        held[HELD - 1].write_all(&[0]).unwrap();
        let (mut let_in, mut told) = (0, 0);
        for (mid, client) in (1..).zip(&mut waiting) {
            client.ask_in(mid, 1);
        }
        for client in &mut waiting {
            match client.until_the_end()[..] {
                [op::AUTH_REPLY, ..] => let_in += 1,
                [op::DISCONNECT_REPLY] => told += 1,
                // The kernel hands over who has been silent for long: one may have been let in before.
                _ => {}
            }
        }
        assert!(let_in + told >= WAITING - 1, "{let_in} were let in by the other shard, and {told} told goodbye");
        edge.ended();
    });
}
