//! `cargo xtask run`, from its first line to what it leaves behind: nothing.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// For what may have to be compiled first.
const START_PATIENCE: Duration = Duration::from_secs(600);

/// Drain, filter and namespaces, on a busy machine.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// A run of the verb, which is ended whatever happens to the test.
struct Run {
    child: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
    prefix: String,
    base_port: u16,
}

impl Run {
    fn start(letter: char, options: &[&str]) -> Self {
        let prefix = format!("{letter}{}", std::process::id() % 1_000_000);
        let base_port = free_base_port();
        let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["run", "--prefix", &prefix, "--base-port", &base_port.to_string()])
            .args(options)
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C goes to the whole group.
            .process_group(0)
            .spawn()
            .expect("xtask was built for this test");
        let stdout = child.stdout.take().expect("it is piped");
        let (to, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test has ended.
                let _over = to.send(line);
            }
        });
        Self { child, lines, printed: Vec::new(), prefix, base_port }
    }

    /// Waits for a line that holds `text` and gives it.
    fn wait_for(&mut self, text: &str, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.printed.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {text:?} ({error}); it printed:\n{}", self.printed.join("\n")),
            }
        }
    }

    fn interrupt_and_wait(mut self) -> Vec<String> {
        kill_process_group(self.pid(), Signal::INT).expect("it still runs");
        self.wait_for("nothing is left running", STOP_PATIENCE);
        let status = self.child.wait().expect("it was not waited for before");
        assert!(status.success(), "{status}");
        std::mem::take(&mut self.printed)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && kill_process(self.pid(), Signal::TERM).is_ok() {
            // Whatever it says of its end, the test has failed already.
            let _status = self.child.wait();
        }
    }
}

/// Tests run beside each other, and what is free now must not be taken by two of them.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Below the ports that the kernel gives to clients: those of the tests before may still be waiting their minute out.
fn free_base_port() -> u16 {
    const BASES: usize = 220;
    let taken = TAKEN.fetch_add(1, Relaxed) * BASES / 3;
    (10_000..32_000)
        .step_by(100)
        .cycle()
        .skip(taken + std::process::id() as usize % BASES)
        .take(BASES)
        .find(|base| [1, 2, 11, 19, 90].iter().all(|port| TcpListener::bind(("127.0.0.1", base + port)).is_ok()))
        .expect("five ports are free")
}

/// Sends a request and gives the answer, head and body.
fn http(port: u16, method: &str, target: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port leads to the appliance");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A client packet: goim's header and a body.
fn packet(operation: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend((16 + body.len() as u32).to_be_bytes());
    packet.extend([0, 16, 0, 1]);
    packet.extend(operation.to_be_bytes());
    packet.extend(1_u32.to_be_bytes());
    packet.extend(body);
    packet
}

fn read_packet(stream: &mut TcpStream) -> (u32, Vec<u8>) {
    let mut header = [0; 16];
    stream.read_exact(&mut header).expect("a packet comes");
    let length = u32::from_be_bytes(header[0..4].try_into().unwrap());
    let mut body = vec![0; length as usize - 16];
    stream.read_exact(&mut body).expect("its body comes");
    (u32::from_be_bytes(header[8..12].try_into().unwrap()), body)
}

/// A viewer comes in, and hears what a publisher says.
fn a_viewer_hears_a_publisher(run: &Run) {
    let mut viewer = TcpStream::connect(("127.0.0.1", run.base_port + 1)).expect("clients can come in");
    viewer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    viewer.write_all(&packet(7, br#"{"mid":7,"room_id":"live://1000","platform":"test","accepts":[1000]}"#)).unwrap();
    assert_eq!(read_packet(&mut viewer), (8, Vec::new()));
    let target = "/goim/push/room?operation=1000&type=live&room=1000";
    assert!(http(run.base_port + 11, "POST", target, "hello").contains(r#""code":0"#));
    assert_eq!(read_packet(&mut viewer), (1000, b"hello".to_vec()));
}

/// Everything of `prefix` that a careless end would leave: processes, namespaces, interfaces, pins.
fn left_over(prefix: &str) -> Vec<String> {
    let mut left = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("--config") && command.contains(&format!("/run/{prefix}/")) {
            left.push(command);
        }
    }
    for directory in ["/run/netns", "/sys/class/net", "/sys/fs/bpf"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                left.push(entry.path().display().to_string());
            }
        }
    }
    left
}

fn mounts() -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(" /sys/fs/bpf ") || line.contains(" /run/netns"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn without_the_kernel_plane_it_runs_on_loopback_and_leaves_nothing() {
    let mut run = Run::start('l', &["--no-kernel"]);
    let page = run.wait_for("page ", START_PATIENCE);
    assert!(page.contains(&format!("http://127.0.0.1:{}/", run.base_port + 90)), "{page}");
    run.wait_for("Ctrl-C ends it", Duration::from_secs(10));
    assert!(http(run.base_port + 90, "GET", "/", "").contains("<title>"));
    a_viewer_hears_a_publisher(&run);
    let prefix = run.prefix.clone();
    let printed = run.interrupt_and_wait();
    assert!(printed.iter().any(|line| line.contains("filter      none")), "{printed:?}");
    assert_eq!(left_over(&prefix), Vec::<String>::new());
}

#[test]
fn as_root_the_filter_guards_a_veth_pair_and_everything_goes_with_ctrl_c() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: `cargo xtask run` with the filter: only root can make namespaces and attach it");
        return;
    }
    let mounted_before = mounts();
    let mut run = Run::start('r', &[]);
    let pushctl = run.wait_for("pushctl ", START_PATIENCE);
    run.wait_for("Ctrl-C ends it", Duration::from_secs(10));
    let prefix = run.prefix.clone();
    assert_eq!(left_over(&prefix).len(), 5, "two daemons, two namespaces, pins: {:?}", left_over(&prefix));
    a_viewer_hears_a_publisher(&run);

    // The line that it printed works, and what it says is so.
    let words: Vec<&str> = pushctl.split_whitespace().skip(1).collect();
    let pin_root = words[words.iter().position(|word| *word == "--pin-root").unwrap() + 1];
    assert!(Path::new(pin_root).exists());
    let output = Command::new(words[0]).args(["--pin-root", pin_root, "--json", "status"]).output().unwrap();
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && status.contains("driver"), "{status}");

    // Ports on the host lead through the viewers' namespace, so a denied viewer stays out.
    let deny = Command::new(words[0]).args(["--pin-root", pin_root, "filter", "add", "10.203.0.2"]).status().unwrap();
    assert!(deny.success());
    let mut shut_out = TcpStream::connect(("127.0.0.1", run.base_port + 1)).unwrap();
    shut_out.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    shut_out.write_all(&packet(7, br#"{"mid":7,"room_id":"live://1000"}"#)).unwrap();
    let heard = shut_out.read(&mut [0; 64]);
    assert!(!matches!(heard, Ok(count) if count > 0), "a denied viewer heard something");
    let output = Command::new(words[0]).args(["--pin-root", pin_root, "filter", "list", "--json"]).output().unwrap();
    let rules = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(rules.contains("10.203.0.2") && !rules.contains("\"hits\": 0") && !rules.contains("\"hits\":0"), "{rules}");

    run.interrupt_and_wait();
    assert_eq!(left_over(&prefix), Vec::<String>::new());
    assert_eq!(mounts(), mounted_before);
}
