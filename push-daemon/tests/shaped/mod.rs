//! What the tests of shaping stand on: the program fed packet by packet, and real TCP streams to the clients of two ISPs.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use abi::shaping::Shaping;
use aya::{
    maps::{Array, Map, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use push_daemon::kernel::{IspRate, IspSpec, KernelPlane, ShapeCount, Tables};

use crate::netns::Namespace;

/// Bytes of `struct __sk_buff`, and where in it the fields stand that we set or read.
const CONTEXT_BYTES: usize = 192;
const PRIORITY: usize = 32;
const DEPARTURE: usize = 152;
const WIRE_BYTES: usize = 160;
const SEGMENTS: usize = 164;
const SEGMENT_BYTES: usize = 176;

pub(crate) fn isp(name: &str, prefix: &str, bytes_per_s: u64, burst_bytes: u64) -> IspSpec {
    IspSpec {
        name: name.into(),
        prefixes: vec![prefix.parse().unwrap()],
        egress: IspRate { bytes_per_s, burst_bytes },
        ..IspSpec::default()
    }
}

pub(crate) fn count(tables: &Tables, number: u32) -> ShapeCount {
    tables.shape_counters().unwrap().into_iter().find(|count| count.number == number).unwrap()
}

/// Makes the program work in another way than this kernel's queues do. Nothing departs in a test run.
pub(crate) fn set_shaping(pin_dir: &Path, change: impl FnOnce(&mut Shaping)) {
    let map = MapData::from_pin(pin_dir.join(abi::maps::SHAPING)).unwrap();
    let mut map: Array<MapData, Shaping> = Map::from_map_data(map).unwrap().try_into().unwrap();
    let mut shaping = map.get(&0, 0).unwrap();
    change(&mut shaping);
    map.set(0, shaping, 0).unwrap();
}

/// What became of a packet that wanted to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// What the program answered.
    pub(crate) action: i32,
    pub(crate) priority: u32,
    /// Departure time; 0 = none was given.
    pub(crate) departure_ns: u64,
    pub(crate) frame: Vec<u8>,
}

/// Runs the program on a packet; `aggregate`: on as many in one, of so many bytes on the wire together.
pub(crate) fn leave(program: &SchedClassifier, frame: &[u8], aggregate: Option<(u32, u32)>) -> Left {
    let mut context = vec![0; CONTEXT_BYTES];
    if let Some((segments, wire_bytes)) = aggregate {
        for (at, number) in [(WIRE_BYTES, wire_bytes), (SEGMENTS, segments), (SEGMENT_BYTES, 1448)] {
            context[at..at + 4].copy_from_slice(&number.to_ne_bytes());
        }
    }
    let (mut context_out, mut frame_out) = (vec![0; CONTEXT_BYTES], vec![0; frame.len()]);
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut frame_out),
        ctx_in: Some(&context),
        ctx_out: Some(&mut context_out),
        ..TestRunOptions::new()
    };
    let action = program.test_run(options).unwrap().return_value as i32;
    Left {
        action,
        priority: u32::from_ne_bytes(context_out[PRIORITY..PRIORITY + 4].try_into().unwrap()),
        departure_ns: u64::from_ne_bytes(context_out[DEPARTURE..DEPARTURE + 8].try_into().unwrap()),
        frame: frame_out,
    }
}

pub(crate) fn program(plane: &KernelPlane) -> SchedClassifier {
    SchedClassifier::from_pin(plane.pin_dir().join(abi::maps::SHAPE)).unwrap()
}

/// What `tc` says of an interface.
pub(crate) fn tc(namespace: &Namespace, arguments: &str) -> String {
    let output = namespace.run(|| Command::new("tc").args(arguments.split(' ')).output().unwrap());
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Segments that TCP in a namespace has sent again.
pub(crate) fn sent_again(namespace: &Namespace) -> u64 {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "RetransSegs").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// A stream that the server sends without pause to one address of the client's.
pub(crate) struct Stream {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    end: Option<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// `from` is the server's end.
    pub(crate) fn start(server: &Namespace, client: &Namespace, from: SocketAddr, to: &str) -> Self {
        // Another stream's connection may stand at the same port.
        let listener = server.run(|| TcpListener::bind(from).unwrap());
        let to: SocketAddr = format!("{to}:0").parse().unwrap();
        let mut reader: TcpStream = client.run(|| {
            let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
            socket.bind(&to.into()).unwrap();
            socket.connect(&from.into()).unwrap();
            socket.into()
        });
        let (mut writer, _) = listener.accept().unwrap();
        let end = Some(reader.try_clone().unwrap());
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&received), Arc::clone(&stop));
        let write = thread::spawn(move || {
            let block = vec![0x5a; 64 * 1024];
            while !stopped.load(Relaxed) && writer.write_all(&block).is_ok() {}
        });
        let read = thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                counted.fetch_add(count as u64, Relaxed);
            }
        });
        Self { received, stop, end, threads: vec![write, read] }
    }

    /// Bytes that have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Ends the reading; the socket closes with what it has not read, which ends the writing too.
        if let Some(end) = self.end.take() {
            let _ = end.shutdown(std::net::Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
