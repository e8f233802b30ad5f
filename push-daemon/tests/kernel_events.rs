//! A listener hears of drops, and costs nothing when he is gone.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod filter_under_test;
mod netns;
mod packets;
mod pushctl_rig;

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use abi::verdict::Reason;
use filter_under_test::FilterUnderTest;
use netns::eventually;
use packets::tcp;
use push_daemon::kernel::{KernelError, Listener, Tables};
use pushctl_rig::Pushctl;

const SYN: &str = "203.0.113.9:4000 > 10.0.0.1:3101";
const SYN6: &str = "[2001:db8::9]:4001 > [2001:db8:ffff::1]:3102";
const SOON: Duration = Duration::from_millis(200);

#[test]
fn a_drop_is_told_with_all_that_is_known_of_it() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    filter.set_rules(&["deny 203.0.113.0/24", "deny 2001:db8::/32"]);
    filter.judge(&tcp(SYN).build());
    let mut listener = Listener::begin(filter.tables()).unwrap();
    assert_eq!(listener.wait(Duration::ZERO).unwrap(), [], "what was dropped before was told to nobody");

    let mut hear = |packet: &[u8]| {
        let mut heard = Vec::new();
        // One record per CPU and 10 ms.
        eventually("it is told", || {
            filter.judge(packet);
            heard = listener.wait(SOON).unwrap();
            !heard.is_empty()
        });
        heard.pop().unwrap()
    };
    let told = hear(&tcp(SYN).payload(6).build());
    assert_eq!((told.source, told.source_port), (Some("203.0.113.9".parse().unwrap()), 4000));
    assert_eq!((told.destination, told.port), (Some("10.0.0.1".parse().unwrap()), 3101));
    assert_eq!((told.reason, told.bytes, told.tcp_flags), (Some(Reason::Denied), 60, 0x02));
    assert!(!told.observed && told.ago_ms < 10_000, "{told:?}");

    let told = hear(&tcp(SYN6).build());
    assert_eq!((told.source, told.port), (Some("2001:db8::9".parse().unwrap()), 3102));
    let told = hear(&tcp(SYN).frame_cut_to(20).build());
    assert_eq!((told.source, told.port, told.reason), (None, 0, Some(Reason::Truncated)));
    let told = hear(&tcp(SYN6).frame_cut_to(14 + 40).build());
    assert_eq!((told.source, told.port), (Some("2001:db8::9".parse().unwrap()), 0), "{told:?}");
}

#[test]
fn a_flood_is_sampled_and_what_is_left_out_is_counted() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    filter.set_rules(&["deny 203.0.113.0/24"]);
    let mut listener = Listener::begin(filter.tables()).unwrap();
    let packet = tcp(SYN).build();
    const FLOOD: u64 = 100_000;
    filter.repeat(&packet, FLOOD as u32);
    let mut heard = listener.wait(SOON).unwrap();
    let told = heard.len();
    assert!((1..FLOOD as usize / 10).contains(&told), "{told} records of {FLOOD} drops");
    // The last record says what came after the one before it; one more drop brings the rest.
    let sum = |heard: &[push_daemon::kernel::Drop]| heard.iter().map(|drop| drop.untold + 1).sum::<u64>();
    let mut more = 0;
    eventually("all are accounted for", || {
        filter.judge(&packet);
        more += 1;
        heard.extend(listener.wait(SOON).unwrap());
        sum(&heard) == FLOOD + more
    });
}

#[test]
fn one_listens_at_a_time_and_a_pass_is_not_told() {
    let Some(mut filter) = FilterUnderTest::bring_up(&[]) else { return };
    let mut listener = Listener::begin(filter.tables()).unwrap();
    filter.judge(&tcp(SYN).build());
    assert_eq!(listener.wait(SOON).unwrap(), []);
    let others = Tables::open(&filter.pin_root()).unwrap();
    assert!(matches!(Listener::begin(&others), Err(KernelError::Listening)));
    drop(listener);
    Listener::begin(&others).unwrap();
}

#[test]
fn observing_is_told_as_such() {
    let Some(mut filter) = FilterUnderTest::bring_up_observing() else { return };
    filter.set_rules(&["deny 203.0.113.0/24"]);
    let mut listener = Listener::begin(filter.tables()).unwrap();
    filter.judge(&tcp(SYN).build());
    assert!(listener.wait(SOON).unwrap()[0].observed);
}

#[test]
fn pushctl_prints_a_line_a_drop() {
    let Some(pushctl) = Pushctl::new() else { return };
    pushctl.attach();
    assert_eq!(pushctl.says("events --for 1s"), "");
    pushctl.says("filter add 127.0.0.1");
    let mut command = pushctl.command("events --count 1");
    let mut child = pushctl.namespace.run(|| command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let heard = std::thread::spawn(move || {
        output.read_line(&mut line).unwrap();
        line
    });
    let (local, server) = ("127.0.0.1".parse().unwrap(), "127.0.0.1:3101".parse().unwrap());
    eventually("a line is printed", || {
        pushctl.namespace.run(|| netns::start_connect(local, server));
        heard.is_finished()
    });
    assert!(child.wait().unwrap().success());
    let line = heard.join().unwrap();
    assert!(line.starts_with("denied            127.0.0.1:") && line.contains("> 127.0.0.1:3101 "), "{line}");
    assert!(line.contains(" [S]"), "{line}");
}
