//! Every accepted message reaches every connected client exactly once and in order per room, whatever breaks between.
//!
//! The daemons are the real ones. The moments at which things break are drawn from a seed, which is printed;
//! `PUSH_SEED=N` draws them again.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod campaign;
mod cutter;

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use campaign::{Campaign, Plan, Progress};
use cutter::Cutter;
use fastrand::Rng;
use perf_tests::probe::daemons::{Stack, StackOptions};
use perf_tests::probe::publisher::Publisher;
use perf_tests::probe::{AuthRequest, Event, TcpProbe};
use serde_json::Value;
use wire::goim::op;

const READY_WITHIN: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A member is one of many threads on a busy host: it may fall behind further than a client would be let.
const PATIENT_EDGE: &str = "[limits]\ndebt_bytes = 8388608\ndebt_age_ms = 60000\n";

fn options() -> StackOptions {
    StackOptions { push_daemon_toml: PATIENT_EDGE.to_owned(), ..StackOptions::default() }
}

fn draw(test: &str) -> Rng {
    let seed = std::env::var("PUSH_SEED").ok().map_or_else(
        || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into(),
        |seed| seed.parse().expect("PUSH_SEED is a number"),
    );
    eprintln!("{test}: PUSH_SEED={seed}");
    Rng::with_seed(seed)
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

fn edge_stats(stack: &Stack) -> Value {
    let url = format!("http://{}/stats", stack.addresses().admin);
    ureq::get(url).call().unwrap().body_mut().read_json().unwrap()
}

fn line_is(stack: &Stack, state: &str) -> bool {
    edge_stats(stack)["trunk"]["lines"][0]["state"] == state
}

/// What the edge says of the trunk has to agree: nothing was given up, and nothing is open.
fn nothing_was_lost(stack: &Stack) {
    eventually("no request is pending", || edge_stats(stack)["trunk"]["pending"] == 0);
    assert_eq!(edge_stats(stack)["trunk"]["lost_total"], 0);
}

#[test]
fn a_kill_of_the_tier_loses_nothing_that_was_accepted() {
    let mut random = draw("kill -9");
    let mut stack = Stack::start_with(&options()).unwrap();
    let campaign = Campaign::join(&stack, Plan { rooms: 8, publishers: 16, pushes: 10_000 });
    campaign.run("kill -9 of the tier", |progress| {
        progress.wait_for(random.usize(2_000..8_000));
        stack.tier().kill9();
        stack.tier().restart(READY_WITHIN).unwrap();
    });
    nothing_was_lost(&stack);
}

#[test]
fn two_kills_in_quick_succession_lose_nothing_either() {
    let mut random = draw("two kills");
    // Small frames of one partition that wait for company: a replay cuts the bus elsewhere than the first run did.
    let logic_tier_toml = "[bus]\npartitions = 1\n[job]\nmerge_ms = 5\nmerge_packets = 7\n".to_owned();
    let mut stack = Stack::start_with(&StackOptions { logic_tier_toml, ..options() }).unwrap();
    let campaign = Campaign::join(&stack, Plan { rooms: 3, publishers: 8, pushes: 3_000 });
    campaign.run("two kills of the tier", |progress| {
        progress.wait_for(random.usize(500..2_000));
        stack.tier().kill9();
        stack.tier().restart(READY_WITHIN).unwrap();
        // The second comes while edges and publishers still find their way back from the first.
        progress.wait_for(progress.accepted() + random.usize(1..20));
        stack.tier().kill9();
        stack.tier().restart(READY_WITHIN).unwrap();
    });
    nothing_was_lost(&stack);
}

#[test]
fn an_orderly_restart_of_the_tier_loses_nothing() {
    let mut random = draw("SIGTERM");
    let mut stack = Stack::start_with(&options()).unwrap();
    let campaign = Campaign::join(&stack, Plan { rooms: 3, publishers: 8, pushes: 3_000 });
    let totals = campaign.run("SIGTERM and restart of the tier", |progress| {
        progress.wait_for(random.usize(500..2_000));
        let status = stack.tier().stop(READY_WITHIN).unwrap().expect("it ran");
        assert!(status.success(), "SIGTERM ends it with success, not {status}");
        stack.tier().restart(READY_WITHIN).unwrap();
    });
    // Who is told to stop answers first what it has taken, so no publisher repeats what is there already.
    assert_eq!(totals.unanswered_but_heard, 0);
    nothing_was_lost(&stack);
}

/// A stack whose trunk goes through the test.
fn stack_with_cutter(tier_toml: &str) -> (Stack, Cutter) {
    let mut addresses = Stack::reserve().unwrap();
    let cutter = Cutter::before(addresses.trunk);
    addresses.trunk_as_dialled = cutter.address();
    let options = StackOptions { logic_tier_toml: tier_toml.to_owned(), ..options() };
    (Stack::start_on(addresses, &options).unwrap(), cutter)
}

#[test]
fn a_trunk_that_is_cut_again_and_again_loses_nothing() {
    const CUTS: usize = 12;
    let mut random = draw("cuts");
    let (stack, cutter) = stack_with_cutter("");
    let campaign = Campaign::join(&stack, Plan { rooms: 8, publishers: 16, pushes: 10_000 });
    campaign.run("a trunk cut 12 times", |progress: &Progress| {
        for cut in 1..=CUTS {
            let links = cutter.opened();
            // Some cuts find the replay of the last one under way.
            cutter.cut_after(random.usize(1..60_000));
            progress.wait("a cut", || cutter.cuts() == cut);
            progress.wait("a new line", || cutter.opened() > links);
        }
        assert!(progress.accepted() < 10_000, "every cut fell into the campaign");
    });
    assert!(cutter.opened() > CUTS);
    nothing_was_lost(&stack);
}

#[test]
fn a_trunk_that_falls_silent_is_noticed_and_loses_nothing() {
    let mut random = draw("silence");
    let (stack, cutter) = stack_with_cutter("[trunk]\nping_interval_ms = 300\n");
    let campaign = Campaign::join(&stack, Plan { rooms: 3, publishers: 8, pushes: 3_000 });
    campaign.run("a trunk that fell silent", |progress| {
        progress.wait_for(random.usize(200..600));
        cutter.stall();
        // Both ends see nothing that would tell them but the silence itself.
        progress.wait("the edge to give the line up", || line_is(&stack, "down"));
        progress.wait_for(progress.accepted() + 500);
        cutter.heal();
        progress.wait("the line", || line_is(&stack, "up"));
    });
    nothing_was_lost(&stack);
}

#[test]
fn two_lines_that_are_cut_in_turn_deliver_nothing_twice() {
    const CUTS: usize = 8;
    let mut random = draw("two lines");
    let addresses = Stack::reserve().unwrap();
    let cutters = [Cutter::before(addresses.trunk), Cutter::before(addresses.trunk)];
    let [a, b] = cutters.each_ref().map(Cutter::address);
    let lines =
        format!("[trunk]\nlines = [{{ name = \"A\", address = \"{a}\" }}, {{ name = \"B\", address = \"{b}\" }}]\n");
    let options = StackOptions { push_daemon_toml: format!("{PATIENT_EDGE}{lines}"), ..options() };
    let stack = Stack::start_on(addresses, &options).unwrap();
    let campaign = Campaign::join(&stack, Plan { rooms: 3, publishers: 8, pushes: 5_000 });
    campaign.run("two lines, cut in turn", |progress| {
        for cut in 0..CUTS {
            let cutter = &cutters[cut % 2];
            let (links, cuts) = (cutter.opened(), cutter.cuts());
            cutter.cut_after(random.usize(1..60_000));
            progress.wait("a cut", || cutter.cuts() > cuts);
            // Half of the time the other line is cut while this one is on its way back.
            if random.bool() {
                progress.wait("a new line", || cutter.opened() > links);
            }
        }
        assert!(progress.accepted() < 5_000, "every cut fell into the campaign");
    });
    nothing_was_lost(&stack);
    assert!(edge_stats(&stack)["trunk"]["duplicates_total"].as_u64() > Some(0), "both lines carried the stream");
}

fn online(publisher: &Publisher) -> i64 {
    let total = publisher.get("/goim/online/total", &[]).unwrap();
    total.data.unwrap()["conn_count"].as_i64().unwrap()
}

#[test]
fn a_tier_that_comes_back_knows_who_is_there_and_lets_in_who_knocked_meanwhile() {
    let mut stack = Stack::start_with(&options()).unwrap();
    let publisher = stack.publisher();
    let mut before: Vec<_> =
        (1..=5).map(|mid| stack.join_tcp(&AuthRequest::goim(mid, "live://1").accepting(&[1001])).unwrap()).collect();
    eventually("five are online", || online(&publisher) == 5);

    stack.tier().kill9();
    let mut late = TcpProbe::connect(stack.addresses().tcp).unwrap();
    late.send_packet(op::AUTH, &AuthRequest::goim(6, "live://1").to_body()).unwrap();
    eventually("the edge has nobody to ask", || edge_stats(&stack)["trunk"]["pending"] == 1);
    stack.tier().restart(READY_WITHIN).unwrap();
    match late.recv(SOON).unwrap() {
        Event::Packet(reply) => assert_eq!((reply.operation, reply.body.len()), (op::AUTH_REPLY, 0)),
        other => panic!("not let in: {other:?}"),
    }

    // Its sessions were in memory; the edge has told them again.
    eventually("six are online", || online(&publisher) == 6);
    eventually("the room's own count agrees", || late.heartbeat().unwrap() == 6);
    assert!(publisher.push_mids(1001, &[3], b"for the third").unwrap().is_accepted());
    assert_eq!(before[2].recv_push(SOON).unwrap().text(), "for the third");
    assert!(publisher.push_room(1000, "live", "1", b"for all").unwrap().is_accepted());
    for client in before.iter_mut().chain([&mut late]) {
        assert_eq!(client.recv_push(SOON).unwrap().text(), "for all");
    }
}

#[test]
fn a_killed_edge_takes_its_sessions_with_it_and_its_next_run_hears_new_pushes_only() {
    restart_the_edge(|stack| stack.edge().kill9());
}

#[test]
fn an_edge_that_is_stopped_leaves_no_sessions_either() {
    restart_the_edge(|stack| {
        let status = stack.edge().stop(READY_WITHIN).unwrap().expect("it ran");
        assert!(status.success(), "SIGTERM ends it with success, not {status}");
    });
}

fn restart_the_edge(end: impl FnOnce(&mut Stack)) {
    let mut stack = Stack::start_with(&options()).unwrap();
    let publisher = stack.publisher();
    let push = |text: &str| {
        assert!(publisher.push_room(1000, "live", "1", text.as_bytes()).unwrap().is_accepted());
    };
    let mut first_run: Vec<_> =
        (1..=5).map(|mid| stack.join_tcp(&AuthRequest::goim(mid, "live://1")).unwrap()).collect();
    eventually("five are online", || online(&publisher) == 5);
    push("before");
    for client in &mut first_run {
        assert_eq!(client.recv_push(SOON).unwrap().text(), "before");
    }

    end(&mut stack);
    for client in &mut first_run {
        client.recv_close(SOON).unwrap();
    }
    push("while it was down");
    stack.edge().restart(READY_WITHIN).unwrap();

    // The tier may not wait out the grace of the dead run: the new one says that it is gone.
    let mut tcp = stack.join_tcp(&AuthRequest::goim(11, "live://1")).unwrap();
    let mut websocket = stack.join_ws(&AuthRequest::bilibili(12, 1)).unwrap();
    eventually("two are online, and the five are not", || online(&publisher) == 2);
    eventually("the room's own count agrees", || tcp.heartbeat().unwrap() == 2);
    let rooms = publisher.get("/goim/online/room", &[("type", "live"), ("rooms", "1")]).unwrap();
    assert_eq!(rooms.data.unwrap()["1"], 2);

    push("after");
    assert_eq!(tcp.recv_push(SOON).unwrap().text(), "after");
    assert_eq!(websocket.recv_push(SOON).unwrap().text(), "after");
}
