//! A merge window: messages of a room share a write, none is lost, and their order holds.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::time::{Duration, Instant};

use perf_tests::probe::AuthRequest;
use perf_tests::probe::daemons::{Stack, StackOptions};

const PATIENCE: Duration = Duration::from_secs(30);
const PUSHES: u32 = 200;
const WINDOW_MS: u32 = 400;

fn sends(stack: &Stack) -> u64 {
    let body = ureq::get(format!("http://{}/metrics", stack.addresses().admin)).call().unwrap().into_body();
    let text = { body }.read_to_string().unwrap();
    let lines = text.lines().filter(|line| line.starts_with("push_sends_total"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_window_by_room_type_merges_writes_and_keeps_order() {
    let push_daemon_toml = format!("shard.merge_ms_by_type = {{ quiz = {WINDOW_MS} }}\n");
    let stack = Stack::start_with(&StackOptions { push_daemon_toml, ..StackOptions::default() }).unwrap();
    let mut members = [
        stack.join_tcp(&AuthRequest::goim(1, "quiz://1")).unwrap(),
        stack.join_tcp(&AuthRequest::goim(2, "quiz://1")).unwrap(),
    ];
    let publisher = stack.publisher();
    let began = Instant::now();
    for number in 0..PUSHES {
        assert!(publisher.push_room(1000, "quiz", "1", number.to_string().as_bytes()).unwrap().is_accepted());
    }
    let published_ms = began.elapsed().as_millis() as u64;
    for member in &mut members {
        for number in 0..PUSHES {
            assert_eq!(member.recv_push(PATIENCE).unwrap().body, number.to_string().as_bytes());
        }
    }
    // A write per member and window, and one for what was left; however slow this machine is, that many and no more.
    let windows = published_ms / u64::from(WINDOW_MS) + 2;
    let sends = sends(&stack);
    assert!(sends <= 2 * windows, "{sends} sends in {windows} windows");

    // Rooms of other types do not wait: a round trip each, one after another.
    let mut other = stack.join_tcp(&AuthRequest::goim(3, "live://1")).unwrap();
    for number in 0..PUSHES {
        assert!(publisher.push_room(1000, "live", "1", number.to_string().as_bytes()).unwrap().is_accepted());
        assert_eq!(other.recv_push(PATIENCE).unwrap().body, number.to_string().as_bytes());
    }
}
