//! What connections see: they count up and down, their round-trip times, segments and losses are taken by ISP, and a source has no
//! more of them than it may.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod netns;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
};

use abi::verdict::Reason;
use netns::{
    Bpffs, Namespace, Pair, SERVER_INTERFACE, SERVER_V4, SERVER_V6, await_connected, config, eventually, object,
    start_connect,
};
use push_daemon::kernel::{
    Action, IspSpec, KernelConfig, KernelError, KernelPlane, Measurement, Mode, NewRule, SourceLimits, Tables,
    take_down,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

const PROTECTED: u16 = 3101;
const UNPROTECTED: u16 = 2222;

/// The control groups, mounted for one test: not every machine has them where they are looked for.
struct Cgroups {
    dir: TempDir,
}

impl Cgroups {
    fn mount() -> Self {
        let dir = TempDir::with_prefix("push-cgroup2-").unwrap();
        mount("none", dir.path(), "cgroup2", MountFlags::empty(), None).unwrap();
        Self { dir }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

struct Measured {
    pair: Pair,
    plane: KernelPlane,
    bpffs: Bpffs,
    config: KernelConfig,
    _cgroups: Cgroups,
}

/// The client's addresses ending in 2 are of one ISP; those in 3 of none.
fn measured(object: &Path, mode: Mode, change: impl FnOnce(&mut KernelConfig)) -> Measured {
    let (bpffs, pair, cgroups) = (Bpffs::mount(), Pair::new(), Cgroups::mount());
    let mut config = config(object, &bpffs, SERVER_INTERFACE, mode);
    (config.measure_one_in, config.cgroup) = (1, Some(cgroups.dir.path().into()));
    change(&mut config);
    let mut plane = pair.server.run(|| KernelPlane::bring_up(&config)).unwrap();
    let prefixes = vec!["10.77.0.2/32".parse().unwrap(), "fd77::2/128".parse().unwrap()];
    let number = plane.tables_mut().set_isp(&IspSpec { name: "near".into(), prefixes, ..IspSpec::default() }).unwrap();
    assert_eq!(number, 1);
    Measured { pair, plane, bpffs, config, _cgroups: cgroups }
}

fn of(tables: &Tables, number: u32) -> Measurement {
    tables.measurements().unwrap().into_iter().find(|measurement| measurement.number == number).unwrap()
}

fn open(tables: &Tables, source: &str) -> u64 {
    let source: IpAddr = source.parse().unwrap();
    let all = tables.open_connections().unwrap();
    all.into_iter().find(|(of, _)| *of == source).map_or(0, |(_, open)| open)
}

fn packets(tables: &Tables, reason: Reason) -> u64 {
    tables.counters().unwrap().iter().find(|count| count.reason == reason).unwrap().packets
}

fn listen(namespace: &Namespace, address: &str, port: u16) -> TcpListener {
    namespace.run(|| TcpListener::bind(SocketAddr::new(address.parse().unwrap(), port)).unwrap())
}

/// A connection from `client` to the listener: both of its ends.
fn connect(pair: &Pair, client: &str, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut to = listener.local_addr().unwrap();
    if to.ip().is_unspecified() {
        to.set_ip(if client.contains(':') { SERVER_V6 } else { SERVER_V4 }.parse().unwrap());
    }
    let socket = pair.client.run(|| {
        let socket = start_connect(client.parse().unwrap(), to);
        await_connected(&socket);
        socket.set_nonblocking(false).unwrap();
        socket
    });
    (socket.into(), listener.accept().unwrap().0)
}

fn a_connection_is_measured(mode: Mode, server: &str, near: &str, source: &str, far: &str) {
    let Some(object) = object() else { return };
    let measured = measured(&object, mode, |_| {});
    let tables = measured.plane.tables();
    let listener = listen(&measured.pair.server, server, PROTECTED);

    let (mut client, mut edge) = connect(&measured.pair, near, &listener);
    assert_eq!((of(tables, 1).opened, of(tables, 1).closed, open(tables, source)), (1, 0, 1));
    let opening = of(tables, 1);
    assert_eq!(opening.rtt_count, 1, "the handshake's round-trip time");

    let mut buffer = [0; 1000];
    for _ in 0..20 {
        edge.write_all(&[7; 1000]).unwrap();
        client.read_exact(&mut buffer).unwrap();
    }
    eventually("its segments are counted", || of(tables, 1).sampled_segments >= 20);
    let now = of(tables, 1);
    assert!(now.rtt_count > opening.rtt_count, "{now:?}");
    assert_eq!(now.rtt_log2_us.iter().sum::<u64>(), now.rtt_count, "{now:?}");
    assert!(now.rtt_us().unwrap() > 0, "{now:?}");
    assert_eq!((now.retransmissions, now.sampled_retransmissions), (0, 0), "{now:?}");

    let other = connect(&measured.pair, far, &listener);
    assert_eq!((of(tables, 0).opened, of(tables, 1).opened), (1, 1), "by ISP");
    drop((client, edge));
    eventually("it closes", || of(tables, 1).closed == 1);
    assert_eq!(open(tables, source), 0);
    assert_eq!(tables.open_connections().unwrap().len(), 1, "nothing is kept of a source that has none open");
    drop(other);
    eventually("the other closes", || of(tables, 0).closed == 1);
    assert_eq!(tables.open_connections().unwrap(), []);
}

#[test]
fn a_v4_connection_is_measured_in_driver_mode() {
    a_connection_is_measured(Mode::Driver, SERVER_V4, "10.77.0.2", "10.77.0.2", "10.77.0.3");
}

#[test]
fn a_v4_connection_is_measured_in_generic_mode() {
    a_connection_is_measured(Mode::Generic, SERVER_V4, "10.77.0.2", "10.77.0.2", "10.77.0.3");
}

#[test]
fn a_v6_connection_is_measured_in_driver_mode() {
    // A source of IPv6 is a subscriber's network, which both addresses are in.
    let server = SERVER_V6;
    let Some(object) = object() else { return };
    let measured = measured(&object, Mode::Driver, |_| {});
    let (tables, listener) = (measured.plane.tables(), listen(&measured.pair.server, server, PROTECTED));
    let both = [connect(&measured.pair, "fd77::2", &listener), connect(&measured.pair, "fd77::3", &listener)];
    assert_eq!((of(tables, 1).opened, of(tables, 0).opened, open(tables, "fd77::")), (1, 1, 2));
    drop(both);
    eventually("they close", || open(tables, "fd77::") == 0);
    assert_eq!((of(tables, 1).closed, of(tables, 0).closed), (1, 1));
}

#[test]
fn a_v4_client_of_a_listener_for_both_families_is_a_v4_source() {
    a_connection_is_measured(Mode::Generic, "::", "10.77.0.2", "10.77.0.2", "10.77.0.3");
}

#[test]
fn what_is_sent_again_is_counted() {
    let Some(object) = object() else { return };
    for mode in [Mode::Driver, Mode::Generic] {
        let mut measured = measured(&object, mode, |_| {});
        let listener = listen(&measured.pair.server, SERVER_V4, PROTECTED);
        let (mut client, mut edge) = connect(&measured.pair, "10.77.0.2", &listener);

        // Nothing that the client says arrives, its acknowledgements included.
        let prefix = "10.77.0.2/32".parse().unwrap();
        measured.plane.tables_mut().add(&NewRule::new(prefix, Action::Deny)).unwrap();
        edge.write_all(&[7; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        eventually("it is sent again", || of(measured.plane.tables(), 1).retransmissions >= 2);
        measured.plane.tables_mut().remove(prefix).unwrap();

        edge.write_all(&[8; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        drop((client, edge));
        let tables = measured.plane.tables();
        eventually("it closes", || of(tables, 1).closed == 1);
        let after = of(tables, 1);
        assert_eq!(after.sampled_retransmissions, after.retransmissions, "{after:?}");
        assert!(after.sampled_segments >= after.sampled_retransmissions + 2, "{after:?}");
        assert!(after.loss().unwrap() > 0.0, "{after:?}");
    }
}

fn a_source_has_no_more_connections_than_it_may(mode: Mode) {
    let Some(object) = object() else { return };
    let mut measured = measured(&object, mode, |_| {});
    let limits = SourceLimits { open_connections: 2, ..SourceLimits::default() };
    let listener = listen(&measured.pair.server, SERVER_V4, PROTECTED);
    let first = connect(&measured.pair, "10.77.0.2", &listener);
    // What was opened before the limit was set counts as well.
    measured.plane.tables_mut().set_limits(&limits).unwrap();
    let second = connect(&measured.pair, "10.77.0.2", &listener);

    let tables = measured.plane.tables();
    let third =
        measured.pair.client.run(|| start_connect("10.77.0.2".parse().unwrap(), listener.local_addr().unwrap()));
    eventually("the third is refused", || packets(tables, Reason::OpenConnections) >= 1);
    assert!(third.peer_addr().is_err());
    let other = connect(&measured.pair, "10.77.0.3", &listener);
    assert_eq!((open(tables, "10.77.0.2"), open(tables, "10.77.0.3")), (2, 1));

    drop(first);
    // The client asks again by itself after a second.
    await_connected(&third);
    let _third = (third, listener.accept().unwrap());
    eventually("it has two again", || open(tables, "10.77.0.2") == 2);
    drop((second, other));
}

#[test]
fn a_source_has_no_more_connections_than_it_may_in_driver_mode() {
    a_source_has_no_more_connections_than_it_may(Mode::Driver);
}

#[test]
fn a_source_has_no_more_connections_than_it_may_in_generic_mode() {
    a_source_has_no_more_connections_than_it_may(Mode::Generic);
}

#[test]
fn other_ports_and_other_namespaces_are_not_looked_at() {
    let Some(object) = object() else { return };
    let measured = measured(&object, Mode::Generic, |_| {});
    let tables = measured.plane.tables();
    let unprotected = listen(&measured.pair.server, SERVER_V4, UNPROTECTED);
    let _port = connect(&measured.pair, "10.77.0.2", &unprotected);
    // The same port in the client's namespace.
    let elsewhere = listen(&measured.pair.client, "127.0.0.1", PROTECTED);
    let _elsewhere = measured.pair.client.run(|| TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap());
    let _accepted = elsewhere.accept().unwrap();
    // A connection that this end opens to such a port has no client at its other end.
    let far = listen(&measured.pair.client, "10.77.0.2", PROTECTED);
    let _outward = measured.pair.server.run(|| TcpStream::connect(far.local_addr().unwrap()).unwrap());
    let _inward = far.accept().unwrap();
    let all = tables.measurements().unwrap();
    assert!(all.iter().all(|of| of.opened == 0 && of.rtt_count == 0), "{all:?}");
    assert_eq!(tables.open_connections().unwrap(), []);
}

#[test]
fn only_some_connections_are_sampled_and_all_are_counted() {
    let Some(object) = object() else { return };
    let measured = measured(&object, Mode::Generic, |config| config.measure_one_in = 0);
    let tables = measured.plane.tables();
    let listener = listen(&measured.pair.server, SERVER_V4, PROTECTED);
    let (mut client, mut edge) = connect(&measured.pair, "10.77.0.2", &listener);
    edge.write_all(&[7; 1000]).unwrap();
    client.read_exact(&mut [0; 1000]).unwrap();
    drop((client, edge));
    eventually("it closes", || of(tables, 1).closed == 1);
    let after = of(tables, 1);
    assert_eq!((after.opened, after.sampled_segments, after.rtt_count), (1, 0, 1), "{after:?}");
}

#[test]
fn the_next_daemon_goes_on_counting_and_one_that_does_not_measure_lets_go() {
    let Some(object) = object() else { return };
    let measured = measured(&object, Mode::Generic, |_| {});
    let bring_up = |config: &KernelConfig| measured.pair.server.run(|| KernelPlane::bring_up(config)).unwrap();
    let listener = listen(&measured.pair.server, SERVER_V4, PROTECTED);
    let first = connect(&measured.pair, "10.77.0.2", &listener);
    assert_eq!(measured.plane.status().unwrap().measured_one_in, Some(1));

    let next = bring_up(&measured.config);
    assert_eq!(open(next.tables(), "10.77.0.2"), 1, "what is open stays counted");
    drop(first);
    eventually("it closes", || open(next.tables(), "10.77.0.2") == 0);

    let _second = connect(&measured.pair, "10.77.0.2", &listener);
    let last = bring_up(&KernelConfig { measure: false, ..measured.config.clone() });
    assert_eq!(last.status().unwrap().measured_one_in, None);
    assert_eq!(last.tables().open_connections().unwrap(), [], "nobody would count them down");
    let _third = connect(&measured.pair, "10.77.0.2", &listener);
    assert_eq!(of(last.tables(), 1).opened, 2);
    take_down(&measured.bpffs.pin_root()).unwrap();
}

#[test]
fn a_control_group_that_is_not_there_is_named() {
    let Some(object) = object() else { return };
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
    let mut config = config(&object, &bpffs, "lo", Mode::Generic);
    config.cgroup = Some("/sys/fs/no-such-cgroup".into());
    let Err(error) = namespace.run(|| KernelPlane::bring_up(&config)) else { panic!("it was brought up") };
    assert!(matches!(error, KernelError::System { .. }));
    assert!(error.to_string().contains("no-such-cgroup"), "{error}");
}
