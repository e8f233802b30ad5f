//! `EMFILE`: a shard whose table has no descriptor left.
//!
//! An edge holds fewer connections than its table has descriptors, so that the case does not arise by itself; here the
//! limit is lowered under it while it runs.

use perf_tests::probe::daemons::Stack;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use wire::goim::op;

use crate::edge_rig::{Client, EVERY_PATH, Rig, eventually, packet};

/// Clients that are in before the limit falls: enough that the edge's other descriptors stay below it.
const INSIDE: usize = 60;

/// Descriptors that are left then.
const LEFT: u64 = 3;

/// Clients that come afterwards.
const LATE: usize = 10;

/// One past the highest descriptor of the thread called `shard-0`.
fn end_of_table(pid: Pid) -> u64 {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let shard = std::fs::read_dir(tasks)
        .unwrap()
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "shard-0");
    let descriptors = std::fs::read_dir(shard.unwrap().join("fd")).unwrap();
    let number =
        |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
    descriptors.map(number).max().map_or(0, |highest: u64| highest + 1)
}

fn set_limit(pid: Pid, current: Option<u64>, maximum: Option<u64>) {
    prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// A client that has asked to be let in and does not wait for the answer.
fn knock(stack: &Stack, number: usize) -> Client {
    let path = EVERY_PATH[0];
    let mut client = Client::connect(stack, path.over);
    let body = format!(r#"{{"mid":{},"room_id":"live://1"}}"#, 1_000 + number);
    assert!(client.send_in_message(&packet(1, op::AUTH, 1, body.as_bytes())));
    client
}

#[test]
fn a_shard_without_descriptors_lets_nobody_in_until_there_are_some_and_disturbs_nobody() {
    let mut rig = Rig::start("shard.count = 1", "");
    let paths = EVERY_PATH.into_iter().cycle().take(INSIDE);
    let mut inside: Vec<Client> = paths.map(|path| Client::in_room(&rig.stack, path, 1)).collect();
    let errors = |rig: &Rig| rig.edge_metric("push_accept_errors_total");
    assert_eq!(errors(&rig), 0);

    let pid = rig.stack.edge().pid().unwrap();
    let limit = end_of_table(pid) + LEFT;
    // The edge has raised its limit to the most that it, and we, may have.
    let most = getrlimit(Resource::Nofile).maximum;
    set_limit(pid, Some(limit), most);
    let mut late: Vec<Client> = (0..LATE).map(|number| knock(&rig.stack, number)).collect();
    eventually("an accept to fail", || (errors(&rig) > 0).then_some(()));
    rig.await_stat("/joined", |joined| joined == INSIDE as u64 + LEFT);

    // Those inside notice nothing.
    let mut waiting = late.split_off(LEFT as usize);
    late.iter_mut().for_each(|client| assert_eq!(client.next_packet().operation, op::AUTH_REPLY));
    inside.append(&mut late);
    rig.push("1", "all is well");
    inside.iter_mut().for_each(|client| assert_eq!(client.hears(), "all is well"));
    // The loop turns for each heartbeat; it does not try to accept each time.
    let (failed, beats) = (errors(&rig), 200);
    for _ in 0..beats {
        inside[0].heartbeat();
    }
    assert!(errors(&rig) - failed < beats, "accepts do not pause");

    // Whoever leaves makes room.
    inside.drain(..waiting.len());
    waiting.iter_mut().for_each(|client| assert_eq!(client.next_packet().operation, op::AUTH_REPLY));
    let more = knock(&rig.stack, LATE);
    set_limit(pid, most, most);
    let mut everybody: Vec<Client> = inside.into_iter().chain(waiting).chain([more]).collect();
    assert_eq!(everybody.last_mut().unwrap().next_packet().operation, op::AUTH_REPLY);
    rig.push("1", "and here as well");
    everybody.iter_mut().for_each(|client| assert_eq!(client.hears(), "and here as well"));
    assert_eq!(rig.stat("/dropped_total"), 0);
    let log = rig.stack.edge().log().unwrap();
    assert_eq!(log.matches("cannot accept connections").count(), 1, "said once, then counted:\n{log}");
}
