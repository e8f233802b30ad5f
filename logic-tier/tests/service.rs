//! What the service manager hears: when it is ready, that it lives, when it stops.

mod support;

use std::os::unix::net::UnixDatagram;

use support::{DEADLINE, Daemon, Publisher, write_config};

#[test]
fn the_service_manager_hears_of_start_life_and_stop() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket in the test's directory");
    socket.set_read_timeout(Some(DEADLINE)).expect("a time-out above zero");
    let path = path.display().to_string();
    let heard = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("it says something");
        String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned()
    };
    let config = write_config(directory.path(), "", "", "");
    let daemon = Daemon::start_with(&config, &[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "150000")]);
    assert_eq!(heard(), "READY=1");
    Publisher::new(daemon.http).room("1", "x");
    for _ in 0..3 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    assert!(daemon.terminate());
    let last = std::iter::repeat_with(heard).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}
