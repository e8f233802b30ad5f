//! Both daemons without a file meet each other on their fixed ports, without a kernel plane.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod missing_part;
mod namespaces;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use missing_part::{Kind, or_skip};
use namespaces::Pair;
use perf_tests::probe::daemons::binary;
use perf_tests::probe::publisher::Publisher;
use perf_tests::probe::{AuthRequest, TcpProbe, WsProbe};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Killed when dropped.
struct Plain(Child);

impl Plain {
    /// With nothing on its command line, and its state in a folder of the test.
    fn start(name: &str, state: &Path) -> Self {
        let mut command = Command::new(binary(name).unwrap());
        command.env("XDG_STATE_HOME", state).env_remove("STATE_DIRECTORY").env_remove("NOTIFY_SOCKET");
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn own(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn get(port: u16, path: &str) -> Option<String> {
    ureq::get(format!("http://{}{path}", own(port))).call().ok()?.body_mut().read_to_string().ok()
}

#[test]
fn daemons_without_a_file_meet_on_loopback_without_a_kernel_plane() {
    // The ports are fixed, so they take a network of their own.
    let is_root = rustix::process::geteuid().is_root();
    let root = is_root.then_some(()).ok_or_else(|| "network namespaces need root".to_owned());
    if or_skip(Kind::Kernel, "without_settings", root).is_none() {
        return;
    }
    let pair = Pair::new();
    let state = tempfile::tempdir().unwrap();
    pair.server.run(|| {
        // The edge comes first and finds nobody: the order does not matter.
        let _edge = Plain::start("push-daemon", state.path());
        let _tier = Plain::start("logic-tier", state.path());
        let deadline = Instant::now() + SOON;
        while get(3190, "/healthz").as_deref() != Some("ok\n") {
            assert!(Instant::now() < deadline, "they do not meet");
            thread::sleep(LOOK_EVERY);
        }

        let request = AuthRequest::goim(7, "live://1");
        let mut tcp = TcpProbe::connect(own(3101)).unwrap();
        tcp.auth(&request).unwrap();
        let mut websocket = WsProbe::connect(own(3102)).unwrap();
        websocket.auth(&request).unwrap();
        assert!(Publisher::new(own(3111)).push_room(1000, "live", "1", b"hello").unwrap().is_accepted());
        assert_eq!(tcp.recv_push(SOON).unwrap().text(), "hello");
        assert_eq!(websocket.recv_push(SOON).unwrap().text(), "hello");

        let stats: Value = serde_json::from_str(&get(3190, "/stats").unwrap()).unwrap();
        assert_eq!((&stats["kernel"], &stats["connections"]), (&Value::Null, &2.into()), "{stats}");
        assert_eq!(stats["trunk"]["lines"][0]["address"], "127.0.0.1:3119");
        assert!(get(3190, "/").unwrap().contains("<title>"));
    });
    assert!(state.path().join("push-appliance/bus").exists(), "the bus is where the environment says");
}
