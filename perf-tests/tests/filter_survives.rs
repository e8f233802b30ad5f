//! The filter guards a real edge between two namespaces, and goes on guarding when the edge is gone.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;
mod namespaces;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use missing_part::{Kind, or_skip};
use namespaces::{Bpffs, Pair, SERVER, SERVER_INTERFACE, object, start_connect};
use perf_tests::probe::daemons::{Addresses, Stack, StackOptions, binary};
use perf_tests::probe::publisher::Publisher;
use perf_tests::probe::{AuthRequest, TcpProbe, WsProbe};
use serde_json::Value;
use socket2::Socket;

const READY_WITHIN: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

const TCP: u16 = 3101;
const WEBSOCKET: u16 = 3102;
const UNPROTECTED: u16 = 2222;

/// The clients' addresses, in both families.
const ALLOWED: [&str; 2] = ["10.78.0.2", "fd78::2"];
const DENIED: [&str; 2] = ["10.78.0.3", "fd78::3"];
const DENIED_LATER: [&str; 2] = ["10.78.0.4", "fd78::4"];

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An edge with its tier in one namespace, its clients in another, and the filter on the link between.
struct Guarded {
    // In this order: the daemons end, their pins go, their namespaces go.
    stack: Stack,
    bpffs: Bpffs,
    pair: Pair,
}

impl Guarded {
    fn start(object: &Path, mode: &str) -> Self {
        let (pair, bpffs) = (Pair::new(), Bpffs::mount());
        let own = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses {
            tcp: SocketAddr::new(address(SERVER[0]), TCP),
            websocket: SocketAddr::new(address(SERVER[0]), WEBSOCKET),
            admin: own(3190),
            http: own(3111),
            trunk: own(3119),
            trunk_as_dialled: own(3119),
        };
        let push_daemon_toml = format!(
            r#"
[listen]
tcp = ["{v4}:{TCP}", "[{v6}]:{TCP}"]
websocket = ["{v4}:{WEBSOCKET}", "[{v6}]:{WEBSOCKET}"]
[kernel]
interface = "{SERVER_INTERFACE}"
mode = "{mode}"
object = "{object}"
pin_root = "{pin_root}"
"#,
            v4 = SERVER[0],
            v6 = SERVER[1],
            object = object.display(),
            pin_root = bpffs.pin_root().display()
        );
        let options = StackOptions { push_daemon_toml, namespace: Some(pair.server.path()), ..StackOptions::default() };
        let stack = Stack::start_on(addresses, &options).unwrap();
        Self { stack, bpffs, pair }
    }

    /// What `pushctl` answers, in JSON. It runs beside the daemon, which may be dead.
    fn pushctl(&self, line: &str) -> Value {
        let output = self.pair.server.run(|| {
            Command::new(binary("pushctl").unwrap())
                .arg("--json")
                .arg("--pin-root")
                .arg(self.bpffs.pin_root())
                .args(line.split(' '))
                .output()
                .unwrap()
        });
        assert!(output.status.success(), "pushctl {line}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Packets that the filter dropped because a rule says so, by the pinned tables.
    fn denied_packets(&self) -> u64 {
        let counts = self.pushctl("stats");
        let of = |count: &&Value| count["reason"] == "denied" && count["verdict"] == "drop";
        counts["reasons"].as_array().unwrap().iter().find(of).unwrap()["packets"].as_u64().unwrap()
    }

    /// The same by the daemon's metrics.
    fn denied_packets_by_metrics(&self) -> u64 {
        let url = format!("http://{}/metrics", self.stack.addresses().admin);
        let text = self.pair.server.run(|| ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap());
        let is_it = |line: &&str| line.starts_with("push_filter_packets_total{") && line.contains("reason=\"denied\"");
        text.lines().find(is_it).unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Who is denied, by the pinned rules.
    fn denied(&self) -> Vec<String> {
        let rules = self.pushctl("filter list");
        let mut prefixes: Vec<_> =
            rules.as_array().unwrap().iter().map(|rule| rule["prefix"].as_str().unwrap().to_owned()).collect();
        prefixes.sort();
        prefixes
    }

    fn connects(&self, from: &str, server: &str, port: u16) {
        let to = SocketAddr::new(address(server), port);
        let socket = self.pair.client.run(|| start_connect(address(from), to));
        eventually("the connection stands", || is_connected(&socket));
    }

    /// The filter drops the packets of `from`, and no connection comes of them.
    fn is_kept_out(&self, from: &str, server: &str, port: u16) {
        let before = self.denied_packets();
        let to = SocketAddr::new(address(server), port);
        let socket = self.pair.client.run(|| start_connect(address(from), to));
        // The first and its repetition: the drop is no accident of a busy machine.
        eventually("its packets are dropped", || self.denied_packets() >= before + 2);
        assert!(!is_connected(&socket), "{from} got through to {to}");
    }

    fn joins_on_both_ports_and_hears(&self, from: &str, server: &str) {
        let text = format!("for {from}");
        let request = AuthRequest::goim(7, "live://1");
        let (mut tcp, mut websocket) = self.pair.client.run(|| {
            let mut tcp = TcpProbe::connect_from(SocketAddr::new(address(server), TCP), address(from)).unwrap();
            tcp.auth(&request).unwrap();
            let to = SocketAddr::new(address(server), WEBSOCKET);
            let mut websocket = WsProbe::connect_from(to, address(from)).unwrap();
            websocket.auth(&request).unwrap();
            (tcp, websocket)
        });
        let http = self.stack.addresses().http;
        let answer =
            self.pair.server.run(|| Publisher::new(http).push_room(1000, "live", "1", text.as_bytes()).unwrap());
        assert!(answer.is_accepted());
        assert_eq!(tcp.recv_push(SOON).unwrap().text(), text);
        assert_eq!(websocket.recv_push(SOON).unwrap().text(), text);
    }
}

fn is_connected(socket: &Socket) -> bool {
    assert_eq!(socket.take_error().unwrap().map(|error| error.to_string()), None);
    socket.peer_addr().is_ok()
}

fn the_filter_outlives_the_edge(mode: &str) {
    let test = format!("filter_survives in {mode} mode");
    let Some(object) = or_skip(Kind::Kernel, &test, object()) else { return };
    let began = Instant::now();
    let mut guarded = Guarded::start(&object, mode);
    let unprotected: Vec<_> = guarded
        .pair
        .server
        .run(|| SERVER.iter().map(|server| TcpListener::bind((address(server), UNPROTECTED)).unwrap()).collect());

    // The daemon guards the ports that it listens on; a rule keeps an address out of them, and of nothing else.
    let status = guarded.pushctl("status");
    assert_eq!(status["protected_ports"], serde_json::json!([TCP, WEBSOCKET]));
    assert_eq!(
        (&status["attached"]["interface"], &status["attached"]["mode"]),
        (&SERVER_INTERFACE.into(), &mode.into())
    );
    for prefix in DENIED {
        guarded.pushctl(&format!("filter add {prefix}"));
    }
    for family in 0..2 {
        for port in [TCP, WEBSOCKET] {
            guarded.is_kept_out(DENIED[family], SERVER[family], port);
        }
        guarded.joins_on_both_ports_and_hears(ALLOWED[family], SERVER[family]);
        guarded.connects(DENIED[family], SERVER[family], UNPROTECTED);
    }
    // Nobody knocks any more, so the two ways to ask give the same.
    assert_eq!(guarded.denied_packets_by_metrics(), guarded.denied_packets());

    // The edge dies; somebody else listens where it did, so that getting through would show.
    guarded.stack.edge().kill9();
    let in_its_place: Vec<_> = guarded
        .pair
        .server
        .run(|| SERVER.iter().map(|server| TcpListener::bind((address(server), TCP)).unwrap()).collect());
    for family in 0..2 {
        guarded.is_kept_out(DENIED[family], SERVER[family], TCP);
        guarded.connects(ALLOWED[family], SERVER[family], TCP);
        guarded.connects(DENIED_LATER[family], SERVER[family], TCP);
        guarded.pushctl(&format!("filter add {}", DENIED_LATER[family]));
        guarded.is_kept_out(DENIED_LATER[family], SERVER[family], TCP);
    }
    let orphaned = guarded.pushctl("status");
    assert_eq!(orphaned["attached"], status["attached"], "the same program, where it was");
    drop(in_its_place);

    // It comes back, and finds what is pinned: the same program in force, the rules old and new, the counts.
    let (rules, counted) = (guarded.denied(), guarded.denied_packets());
    assert_eq!(rules.len(), 4, "{rules:?}");
    guarded.stack.edge().restart(READY_WITHIN).unwrap();
    assert_eq!(guarded.pushctl("status")["attached"], status["attached"]);
    assert_eq!(guarded.denied(), rules);
    assert!(guarded.denied_packets_by_metrics() >= counted);
    for family in 0..2 {
        guarded.is_kept_out(DENIED_LATER[family], SERVER[family], TCP);
        guarded.joins_on_both_ports_and_hears(ALLOWED[family], SERVER[family]);
        guarded.pushctl(&format!("filter del {}", DENIED[family]));
        guarded.joins_on_both_ports_and_hears(DENIED[family], SERVER[family]);
    }
    drop(unprotected);
    eprintln!(
        "{mode} mode: {} packets of denied addresses dropped before, without and after a daemon, in {:.1} s",
        guarded.denied_packets(),
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn in_driver_mode_the_filter_outlives_the_edge() {
    the_filter_outlives_the_edge("driver");
}

#[test]
fn in_generic_mode_the_filter_outlives_the_edge() {
    the_filter_outlives_the_edge("generic");
}
