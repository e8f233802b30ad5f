//! The meter against work whose cost is known.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use perf_tests::meter::{Machine, Meter, MeterError, Sample};
use rustix::time::{ClockId, clock_gettime};

fn this_process() -> Meter {
    Meter::new([("this", std::process::id())])
}

/// Uses the CPU until this thread has had `milliseconds` of it.
fn burn(milliseconds: i64) {
    let used = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    };
    let end = used() + milliseconds;
    while used() < end {}
}

#[test]
fn cpu_time_of_a_thread_that_has_ended_is_not_lost() {
    let meter = this_process();
    let before = meter.sample().unwrap();
    thread::spawn(|| burn(50)).join().unwrap();
    let used = meter.sample().unwrap().since(&before);
    assert!(used.processes["this"].cpu_ns >= 50_000_000, "{used:?}");
    assert_eq!(used.cpu_ns(|name| name == "this"), used.processes["this"].cpu_ns);
    assert_eq!(used.cpu_ns(|name| name == "other"), 0);
}

#[test]
fn a_thread_is_seen_with_its_name_and_time() {
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let (busy, done) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().name("burns-a-while".to_owned()).spawn(move || {
        burn(20);
        busy.send(()).unwrap();
        // Until the other side is dropped.
        let _ = waits.recv();
    });
    done.recv().unwrap();
    let sample = this_process().sample().unwrap();
    drop(go);
    thread.unwrap().join().unwrap();
    let found = sample.processes["this"].threads.values().find(|thread| thread.name == "burns-a-while");
    assert!(found.is_some_and(|thread| thread.cpu_ns > 0), "{sample:?}");
}

#[test]
fn memory_that_is_touched_is_resident() {
    const BYTES: usize = 64 << 20;
    let meter = this_process();
    let before = meter.sample().unwrap();
    let memory = vec![1_u8; BYTES];
    let grown = meter.sample().unwrap().since(&before).processes["this"];
    // Other tests of this process give memory back meanwhile, but not so much.
    assert!(grown.rss_anon_bytes > BYTES as i64 / 2 && grown.rss_bytes > BYTES as i64 / 2, "{grown:?}");
    assert_eq!(memory.iter().map(|byte| usize::from(*byte)).sum::<usize>(), BYTES);
}

#[test]
fn segments_on_loopback_are_counted() {
    let meter = this_process();
    let before = meter.sample().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    let sample = meter.sample().unwrap();
    // SYN, its answer, the answer to that, and the byte.
    assert!(sample.since(&before).tcp.segments_sent >= 4);
    assert!(sample.host.tcp_sockets >= 3 && sample.host.slab_bytes > 0 && sample.host.available_bytes > 0);
}

#[test]
fn a_process_that_is_gone_is_named() {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let error = Meter::new([("daemon", child.id())]).sample().unwrap_err();
    assert!(matches!(&error, MeterError::Gone { name, pid } if name == "daemon" && *pid == child.id()), "{error}");
    assert!(error.to_string().contains("daemon"), "{error}");
}

#[test]
fn a_sample_survives_its_json() {
    let sample = this_process().sample().unwrap();
    let json = serde_json::to_string(&sample).unwrap();
    assert_eq!(serde_json::from_str::<Sample>(&json).unwrap(), sample);
}

#[test]
fn the_machine_is_described() {
    let machine = Machine::read();
    assert!(machine.cpus > 0 && machine.memory_bytes > 0 && machine.descriptors_per_table > 0, "{machine:?}");
    assert_eq!(machine.kernel, rustix::system::uname().release().to_str().unwrap());
    assert!(machine.sysctls.contains_key("net.ipv4.tcp_congestion_control"), "{machine:?}");
}
