//! What the service manager hears: when the edge is ready, that its loops turn, when it stops.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// What takes longer than this does not happen.
const DEADLINE: Duration = Duration::from_secs(30);

/// Ports of its own, and no tier behind the line: the manager's edge is ready when clients can connect.
const SETTINGS: &str = "shard.count = 1\nlisten.tcp = [\"127.0.0.1:0\"]\nlisten.websocket = []\n\
    admin.listen = \"127.0.0.1:0\"\ntrunk.lines = [{ name = \"A\", address = \"127.0.0.1:1\" }]\n";

/// Killed when dropped.
struct Edge(Child);

impl Drop for Edge {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_service_manager_hears_of_start_life_and_stop() {
    let directory = tempfile::tempdir().unwrap();
    let (path, settings) = (directory.path().join("notify"), directory.path().join("edge.toml"));
    std::fs::write(&settings, SETTINGS).unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("it says something");
        String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned()
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_push-daemon"));
    command.arg("--config").arg(&settings).env("NOTIFY_SOCKET", &path).stderr(Stdio::null());
    let mut edge = Edge(command.spawn().unwrap());
    assert_eq!(heard(), "READY=1");
    for _ in 0..2 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    kill_process(Pid::from_child(&edge.0), Signal::TERM).unwrap();
    let last = std::iter::repeat_with(heard).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert!(edge.0.wait().unwrap().success());
}
