//! Both ways to the kernel, io_uring and one send at a time: the same clients hear the same, slow ones too.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::process::Command;
use std::time::Duration;

use perf_tests::load::report::Report;
use perf_tests::probe::daemons::{Stack, StackOptions};
use perf_tests::probe::{AuthRequest, ConnectOptions, TcpProbe};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn stack(path: &str) -> Stack {
    // One shard, so that slices are long enough to be worth a submission.
    let push_daemon_toml = format!("shard.send = \"{path}\"\nshard.count = 1\nlimits.debt_bytes = 67108864\n");
    Stack::start_with(&StackOptions { push_daemon_toml, ..StackOptions::default() }).unwrap()
}

fn figure(stack: &Stack, name: &str) -> u64 {
    let metrics = ureq::get(format!("http://{}/metrics", stack.addresses().admin)).call().unwrap();
    let text = metrics.into_body().read_to_string().unwrap();
    let line =
        text.lines().find(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|figure| figure.parse().ok()).unwrap()
}

/// Many clients in a few rooms hear every message once and in order, on `transport`.
fn load(stack: &Stack, transport: &str, dialect: &str) -> Report {
    let addresses = stack.addresses();
    let port = if transport == "tcp" { addresses.tcp } else { addresses.websocket };
    let output = Command::new(env!("CARGO_BIN_EXE_perf-tests"))
        .args(["clients", "--json", "--clients", "300", "--rooms", "3", "--messages", "60", "--publish-rate", "0"])
        .args(["--transport", transport, "--dialect", dialect])
        .args(["--connect", &port.to_string(), "--http", &addresses.http.to_string()])
        .output()
        .unwrap();
    let report: Report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(output.status.success(), "{:?}", report.faults);
    report
}

/// A client that reads late gets, byte for byte, what one that reads at once gets: short sends are seen and made good.
fn a_late_reader_misses_nothing(stack: &Stack) {
    let options = ConnectOptions { receive_buffer_bytes: Some(4096), ..ConnectOptions::default() };
    let mut late = TcpProbe::connect_with(addresses(stack), &options).unwrap();
    late.auth(&AuthRequest::goim(1, "live://late")).unwrap();
    let mut others: Vec<_> =
        (2..40).map(|mid| stack.join_tcp(&AuthRequest::goim(mid, "live://late")).unwrap()).collect();
    let publisher = stack.publisher();
    let count = 400;
    for number in 0..count {
        let body = format!("{number:06}{}", "x".repeat(30_000));
        assert!(publisher.push_room(1000, "live", "late", body.as_bytes()).unwrap().is_accepted());
    }
    for client in others.iter_mut().chain([&mut late]) {
        for number in 0..count {
            let push = client.recv_push(PATIENCE).unwrap();
            assert_eq!((push.body.len(), &push.body[..6]), (30_006, format!("{number:06}").as_bytes()));
        }
    }
}

fn addresses(stack: &Stack) -> std::net::SocketAddr {
    stack.addresses().tcp
}

fn everybody_hears(stack: &Stack) {
    for (transport, dialect) in [("tcp", "goim"), ("websocket", "goim"), ("websocket", "bilibili")] {
        let report = load(stack, transport, dialect);
        assert_eq!((report.connections.joined, report.messages.received), (300, 6_000), "{transport}, {dialect}");
    }
    a_late_reader_misses_nothing(stack);
}

#[test]
fn one_send_at_a_time() {
    let stack = stack("plain");
    everybody_hears(&stack);
    assert_eq!(figure(&stack, "push_io_uring"), 0);
    assert_eq!(figure(&stack, "push_send_calls_total"), figure(&stack, "push_sends_total"));
}

#[test]
fn a_submission_of_io_uring_for_many_sends() {
    if std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|value| value.trim() == "2") {
        println!(
            "skipped: a_submission_of_io_uring_for_many_sends: io_uring is switched off here (kernel.io_uring_disabled)"
        );
        return;
    }
    let stack = stack("ring");
    everybody_hears(&stack);
    assert_eq!(figure(&stack, "push_io_uring"), 1);
    let (calls, sends) = (figure(&stack, "push_send_calls_total"), figure(&stack, "push_sends_total"));
    assert!(calls * 5 < sends, "{calls} calls for {sends} sends");
}
