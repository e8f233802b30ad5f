//! What outlives whom: restarts, kills, moves, foreign pins, and every refusal that an operator can meet.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod netns;

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use abi::verdict::Reason;
use aya::{
    Ebpf,
    maps::MapData,
    programs::{
        Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};
use ipnet::IpNet;
use netns::{Bpffs, Namespace, Pair, SERVER_INTERFACE, config, eventually, object, start_connect};
use push_daemon::kernel::{
    Action, Arrival, KernelConfig, KernelError, KernelPlane, Mode, NewRule, Tables, status, take_down,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn bring_up(namespace: &Namespace, config: &KernelConfig) -> Result<KernelPlane, KernelError> {
    namespace.run(|| KernelPlane::bring_up(config))
}

fn refusal(namespace: &Namespace, config: &KernelConfig) -> String {
    match bring_up(namespace, config) {
        Ok(_) => panic!("it was brought up"),
        Err(error) => error.to_string(),
    }
}

fn denied(tables: &Tables) -> u64 {
    tables.counters().unwrap().iter().find(|count| count.reason == Reason::Denied).unwrap().packets
}

/// Runs itself again as the process that is killed: the one with the variable set brings the filter up and waits for death.
#[test]
fn the_filter_outlives_a_killed_process_and_the_next_one_adopts_it() {
    const HOLD: &str = "PUSH_TEST_HOLDS_THE_FILTER";
    let Some(object) = object() else { return };
    if let Some(pin_root) = env::var_os(HOLD) {
        let config = KernelConfig {
            object,
            pin_root: pin_root.into(),
            protected_ports: vec![3101],
            ..KernelConfig::new(SERVER_INTERFACE, Mode::Driver)
        };
        let mut plane = KernelPlane::bring_up(&config).unwrap();
        plane.tables_mut().add(&NewRule::new(net("10.77.0.2/32"), Action::Deny)).unwrap();
        println!("up");
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }

    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    let mut child = pair.server.run(|| {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_filter_outlives_a_killed_process_and_the_next_one_adopts_it", "--nocapture"])
            .env(HOLD, bpffs.pin_root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.ends_with("up")), "the child did not bring the filter up");
    child.kill().unwrap();
    child.wait().unwrap();

    let tables = Tables::open(&bpffs.pin_root()).unwrap();
    let _listener = pair.server.run(|| std::net::TcpListener::bind("10.77.0.1:3101").unwrap());
    let socket = pair.client.run(|| start_connect("10.77.0.2".parse().unwrap(), "10.77.0.1:3101".parse().unwrap()));
    eventually("the dead process's rule drops", || denied(&tables) >= 2);
    assert!(socket.peer_addr().is_err());

    let before = pair.server.run(|| status(&bpffs.pin_root())).unwrap();
    let config = config(&object, &bpffs, SERVER_INTERFACE, Mode::Driver);
    let plane = bring_up(&pair.server, &config).unwrap();
    assert_eq!(plane.arrival(), Arrival::Adopted);
    let after = pair.server.run(|| plane.status()).unwrap();
    assert_eq!(after.attached, before.attached, "the same program goes on");
    assert_eq!(after.protected_ports, [3101, 3102], "under the new settings");
    let rule = plane.tables().find(net("10.77.0.2/32")).unwrap();
    assert!(rule.action == Action::Deny && rule.hits >= 2, "with its rule and its counts: {rule:?}");
}

#[test]
fn another_program_is_swapped_for_ours_in_place() {
    let Some(object) = object() else { return };
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
    let config = config(&object, &bpffs, "lo", Mode::Generic);
    let mut plane = bring_up(&namespace, &config).unwrap();
    plane.tables_mut().add(&NewRule::new(net("10.0.0.0/8"), Action::Deny)).unwrap();
    let pin_dir = plane.pin_dir().to_path_buf();
    drop(plane);

    // The same code on other maps stands for any other program: what it counts does not reach our tables.
    let mut other = Ebpf::load_file(&object).unwrap();
    let program: &mut Xdp = other.program_mut(abi::maps::FILTER).unwrap().try_into().unwrap();
    program.load().unwrap();
    let link = FdLink::from(PinnedLink::from_pin(pin_dir.join("filter_link")).unwrap());
    program.attach_to_link(XdpLink::try_from(link).unwrap()).unwrap();
    let others_id = program.info().unwrap().id();
    assert_eq!(namespace.run(|| status(&bpffs.pin_root())).unwrap().attached.unwrap().program_id, others_id);

    let plane = bring_up(&namespace, &config).unwrap();
    assert_eq!(plane.arrival(), Arrival::ProgramSwapped);
    assert_ne!(namespace.run(|| plane.status()).unwrap().attached.unwrap().program_id, others_id);
    assert_eq!(plane.tables().list().unwrap().len(), 1);
}

#[test]
fn a_new_mode_or_interface_moves_the_filter_with_its_rules() {
    let Some(object) = object() else { return };
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    let driver = config(&object, &bpffs, SERVER_INTERFACE, Mode::Driver);
    bring_up(&pair.server, &driver)
        .unwrap()
        .tables_mut()
        .add(&NewRule::new(net("2001:db8::/32"), Action::Deny))
        .unwrap();
    let attached = |config: &KernelConfig| {
        let plane = bring_up(&pair.server, config).unwrap();
        assert_eq!(plane.arrival(), Arrival::Moved);
        assert_eq!(plane.tables().list().unwrap().len(), 1);
        let attached = pair.server.run(|| plane.status()).unwrap().attached.unwrap();
        (attached.interface, attached.mode)
    };
    let generic = KernelConfig { mode: Mode::Generic, ..driver.clone() };
    assert_eq!(attached(&generic), (SERVER_INTERFACE.to_owned(), Some(Mode::Generic)));
    let loopback = config(&object, &bpffs, "lo", Mode::Generic);
    assert_eq!(attached(&loopback), ("lo".to_owned(), Some(Mode::Generic)));
    assert_eq!(
        attached(&driver),
        (SERVER_INTERFACE.to_owned(), Some(Mode::Driver)),
        "and the old place was free again"
    );
}

#[test]
fn a_refused_move_leaves_the_filter_and_its_settings_as_they_were() {
    let Some(object) = object() else { return };
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    for (interface, first) in [(SERVER_INTERFACE, Mode::Driver), ("lo", Mode::Generic)] {
        let in_force = config(&object, &bpffs, interface, first);
        bring_up(&pair.server, &in_force).unwrap();
        let before = pair.server.run(|| status(&bpffs.pin_root())).unwrap();
        // Loopback has no driver to attach to: for the first an interface away, for the second a mode.
        let refused = KernelConfig {
            management: vec![net("192.0.2.0/24")],
            protected_ports: vec![1],
            ..config(&object, &bpffs, "lo", Mode::Driver)
        };
        let error = refusal(&pair.server, &refused);
        assert!(
            error.starts_with(
                "cannot attach the filter to lo in driver mode: the driver has no XDP support (use mode = \"generic\")"
            ),
            "{error}"
        );
        assert_eq!(error.ends_with("; the filter stays in generic mode"), interface == "lo", "{error}");
        let mut after = pair.server.run(|| status(&bpffs.pin_root())).unwrap();
        if interface == "lo" {
            // It was put back, by the program just loaded.
            after.attached.as_mut().unwrap().program_id = before.attached.as_ref().unwrap().program_id;
        }
        assert_eq!(after, before);
        take_down(&bpffs.pin_root()).unwrap();
    }
}

#[test]
fn when_the_interface_was_made_anew_the_rules_come_back() {
    let Some(object) = object() else { return };
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    let config = config(&object, &bpffs, SERVER_INTERFACE, Mode::Driver);
    bring_up(&pair.server, &config).unwrap().tables_mut().add(&NewRule::new(net("10.0.0.0/8"), Action::Deny)).unwrap();
    pair.server.ip(&["link", "del", SERVER_INTERFACE]);
    assert_eq!(pair.server.run(|| status(&bpffs.pin_root())).unwrap().attached, None);
    let error = refusal(&pair.server, &config);
    assert_eq!(error, "there is no interface push0 in this network namespace (see `ip link`)");

    pair.server.ip(&["link", "add", SERVER_INTERFACE, "type", "veth", "peer", "name", "again0"]);
    let plane = bring_up(&pair.server, &config).unwrap();
    assert_eq!(plane.arrival(), Arrival::TablesAdopted);
    assert_eq!(plane.tables().list().unwrap().len(), 1);
}

#[test]
fn taking_down_leaves_nothing() {
    let Some(object) = object() else { return };
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
    let config = config(&object, &bpffs, "lo", Mode::Generic);
    let mut plane = bring_up(&namespace, &config).unwrap();
    assert_eq!(plane.arrival(), Arrival::Fresh);
    plane.tables_mut().add(&NewRule::new(net("10.0.0.0/8"), Action::Deny)).unwrap();
    assert_eq!(
        plane.detach().unwrap(),
        abi::maps::ALL.len() + 5,
        "maps, the one table of rules, two programs and their links"
    );
    assert!(!bpffs.pin_root().exists());
    assert_eq!(take_down(&bpffs.pin_root()).unwrap(), 0);
    let Err(error) = Tables::open(&bpffs.pin_root()) else { panic!("tables are still there") };
    assert!(error.to_string().starts_with("no filter is pinned under "), "{error}");
    // The place is free for another, without rules.
    let plane = bring_up(&namespace, &config).unwrap();
    assert_eq!((plane.arrival(), plane.tables().list().unwrap()), (Arrival::Fresh, vec![]));
}

#[test]
fn pins_of_another_layout_are_refused_and_can_be_removed() {
    let Some(object) = object() else { return };
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
    let config = config(&object, &bpffs, "lo", Mode::Generic);
    let other = bpffs.pin_root().join("v999");
    fs::create_dir_all(&other).unwrap();
    let expected =
        format!("{} holds pins of layout 999, and this program speaks layout {}", other.display(), abi::LAYOUT);
    assert!(refusal(&namespace, &config).starts_with(&expected));
    let Err(error) = Tables::open(&bpffs.pin_root()) else { panic!("they were adopted") };
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(other.exists());
    take_down(&bpffs.pin_root()).unwrap();
    bring_up(&namespace, &config).unwrap();
}

#[test]
fn a_pin_that_is_something_else_is_refused() {
    let Some(object) = object() else { return };
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
    let mut plane = bring_up(&namespace, &config(&object, &bpffs, "lo", Mode::Generic)).unwrap();
    for host in ["10.0.0.1/32", "2001:db8::1/128"] {
        plane.tables_mut().add(&NewRule::new(net(host), Action::Deny)).unwrap();
    }
    let pin = |name: &str| plane.pin_dir().join(name);
    let swap = |wrong: &str, right: &str| {
        fs::remove_file(pin(right)).unwrap();
        MapData::from_pin(pin(wrong)).unwrap().pin(pin(right)).unwrap();
    };
    swap("HOSTS_V6_0", "HOSTS_V4_0");
    let Err(error) = Tables::open(&bpffs.pin_root()) else { panic!("it was adopted") };
    assert!(error.to_string().contains("HOSTS_V4_0 is not the table that it should be"), "{error}");
    swap(abi::maps::COUNTS, abi::maps::SETTINGS);
    let Err(error) = Tables::open(&bpffs.pin_root()) else { panic!("it was adopted") };
    assert!(error.to_string().contains("SETTINGS is not the table that it should be"), "{error}");
}

#[test]
fn what_the_machine_lacks_is_said_in_words() {
    let Some(object) = object() else { return };
    let (bpffs, pair) = (Bpffs::mount(), Pair::new());
    let good = config(&object, &bpffs, SERVER_INTERFACE, Mode::Driver);

    let not_bpffs = KernelConfig { pin_root: env::temp_dir().join("push-no-bpffs"), ..good.clone() };
    let error = refusal(&pair.server, &not_bpffs);
    assert!(error.contains("is not on a bpffs") && error.contains("mount -t bpf bpf"), "{error}");
    assert!(!not_bpffs.pin_root.exists());

    let error = refusal(&pair.server, &KernelConfig { object: "/nowhere.o".into(), ..good.clone() });
    assert!(error.starts_with("cannot read the filter's object /nowhere.o"), "{error}");

    let not_an_object = file_holding(b"not an object");
    let error = refusal(&pair.server, &KernelConfig { object: not_an_object.path().into(), ..good.clone() });
    assert!(error.starts_with("the kernel refused the object /"), "{error}");

    let mut foreign = Ebpf::load_file(&object).unwrap();
    let program: &mut Xdp = foreign.program_mut(abi::maps::FILTER).unwrap().try_into().unwrap();
    program.load().unwrap();
    let _link = pair.server.run(|| program.attach(SERVER_INTERFACE, XdpMode::Driver).unwrap());
    let error = refusal(&pair.server, &good);
    let id = program.info().unwrap().id();
    assert!(error.contains(&format!("another XDP program (id {id}) runs there in driver mode")), "{error}");
}

fn file_holding(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn a_full_table_and_a_locked_out_administrator_are_refused() {
    let Some(object) = object() else { return };
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
    let mut config = config(&object, &bpffs, "lo", Mode::Generic);
    (config.max_hosts, config.max_prefixes) = (2, 2);
    config.management = vec![net("192.0.2.0/24"), net("2001:db8:aaaa::/48")];
    let mut plane = bring_up(&namespace, &config).unwrap();
    let tables = plane.tables_mut();
    let mut deny = |text: &str| tables.add(&NewRule::new(net(text), Action::Deny));

    for first_two in
        ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.0/24", "10.0.1.0/24", "::1/128", "::2/128", "1::/16", "2::/16"]
    {
        deny(first_two).unwrap();
    }
    for (third, key) in [
        ("10.0.0.3/32", "max_hosts"),
        ("10.0.2.0/24", "max_prefixes"),
        ("::3/128", "max_hosts"),
        ("3::/16", "max_prefixes"),
    ] {
        let error = deny(third).unwrap_err();
        assert!(matches!(error, KernelError::TableFull { max: 2, key: named, .. } if named == key), "{third}: {error}");
    }
    deny("10.0.0.2/32").unwrap();

    for locked_out in ["192.0.2.0/24", "192.0.2.128/25", "192.0.2.7/32", "2001:db8:aaaa:1::/64"] {
        let error = deny(locked_out).unwrap_err();
        assert!(matches!(error, KernelError::ManagementPrefix { .. }), "{locked_out}: {error}");
    }
    let error = deny("192.0.2.7/8").unwrap_err().to_string();
    assert_eq!(error, "192.0.2.7/8 has bits set beyond its length: did you mean 192.0.0.0/8 or 192.0.2.7/32?");

    let tables = plane.tables_mut();
    tables.remove(net("10.0.1.0/24")).unwrap();
    let added =
        tables.add(&NewRule::new(net("192.0.0.0/8"), Action::Deny).standing(Some(Duration::from_secs(60)))).unwrap();
    assert_eq!(added.spared, [net("192.0.2.0/24")], "a deny around it says whom it spares");
    assert!(tables.add(&NewRule::new(net("192.0.2.7/32"), Action::Allow)).is_err(), "the host table is still full");
    let error = tables.remove(net("10.0.1.0/24")).unwrap_err().to_string();
    assert_eq!(error, "there is no rule for 10.0.1.0/24 (see `pushctl filter list`)");

    assert!(plane.notes().is_empty());
    config.max_hosts = 500;
    let plane = bring_up(&namespace, &config).unwrap();
    let note = "max_hosts = 500 comes into effect with the next `pushctl apply`: the tables in force hold 2";
    assert_eq!(plane.notes(), [note]);
}

#[test]
fn one_after_another_brings_up_and_takes_down_and_nobody_waits_for_ever() {
    let Some(object) = object() else { return };
    let (bpffs, namespace) = (Bpffs::mount(), Namespace::new("t"));
    let config = config(&object, &bpffs, "lo", Mode::Generic);
    fs::create_dir_all(bpffs.pin_root()).unwrap();
    let held = hold_lock(&bpffs.pin_root());
    let error = take_down(&bpffs.pin_root()).unwrap_err();
    assert!(error.to_string().starts_with("another process holds the lock on "), "{error}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bring_up(&namespace, &config).map(drop));
        // Not by closing: a child that another test just forked may still hold the descriptor.
        rustix::fs::flock(&held, rustix::fs::FlockOperation::Unlock).unwrap();
        waiting.join().unwrap().unwrap();
    });
}

fn hold_lock(pin_root: &Path) -> fs::File {
    let root = fs::File::open(pin_root).unwrap();
    rustix::fs::flock(&root, rustix::fs::FlockOperation::LockExclusive).unwrap();
    root
}
