//! The log's reader is gone (`EPIPE`), or does not read (a full pipe): the data plane goes on.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::edge_rig::{Client, EVERY_PATH, Rig, SOON, eventually};

/// So few that the shard is soon full, which is a line that the shard itself logs.
const CAPACITY: u64 = 4;

/// An edge that logs into `log`, and serves although a shard has had something to say.
fn serves_all_the_same(rig: &mut Rig) {
    let mut clients = EVERY_PATH.map(|path| Client::in_room(&rig.stack, path, 1));
    let full = |rig: &Rig| rig.edge_metric("push_full_total");
    eventually("the shard to say that it is full", || (full(rig) > 0).then_some(()));
    for number in 0..20 {
        rig.push("1", &format!("message {number}"));
        for client in &mut clients {
            assert_eq!(client.hears(), format!("message {number}"));
            client.heartbeat();
        }
    }
    assert_eq!(rig.stat("/connections"), CAPACITY);
    assert_eq!(rig.stack.edge().ended().unwrap(), None);
    drop(clients);
    let status = rig.stack.edge().stop(SOON).unwrap().unwrap();
    assert!(status.success(), "{status}");
}

fn rig_that_logs_into(log: OwnedFd) -> Rig {
    let mut rig = Rig::start(&format!("shard.count = 1\nshard.max_connections = {CAPACITY}"), "");
    rig.stack.edge().log_into(log);
    rig.stack.edge().restart(SOON).unwrap();
    rig
}

#[test]
fn a_log_without_a_reader_stops_nothing() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let mut rig = rig_that_logs_into(writer);
    drop(reader);
    serves_all_the_same(&mut rig);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    fill(&writer);
    let mut rig = rig_that_logs_into(writer);
    serves_all_the_same(&mut rig);
    drop(reader);
}

/// A tier that logs into `log`, and takes messages although edges come and go, which it has something to say about.
fn takes_messages_all_the_same(log: OwnedFd) {
    let mut rig = Rig::start("", "");
    rig.stack.tier().log_into(log);
    rig.stack.tier().restart(SOON).unwrap();
    for number in 0..3 {
        rig.stack.edge().restart(SOON).unwrap();
        let mut client = Client::in_room(&rig.stack, EVERY_PATH[0], 1);
        rig.push("1", &format!("message {number}"));
        assert_eq!(client.hears(), format!("message {number}"));
    }
    assert_eq!(rig.stack.tier().ended().unwrap(), None);
    let status = rig.stack.tier().stop(SOON).unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_tier_whose_log_has_no_reader_takes_messages() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    takes_messages_all_the_same(writer);
}

#[test]
fn a_tier_whose_log_nobody_reads_takes_messages() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    fill(&writer);
    takes_messages_all_the_same(writer);
    drop(reader);
}

/// Writes into the pipe until it takes no more. It blocks its writers afterwards, as before.
fn fill(pipe: &OwnedFd) {
    let flags = fcntl_getfl(pipe).unwrap();
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).unwrap();
    let mut writer = File::from(pipe.try_clone().unwrap());
    for piece in [4_096, 1] {
        let error = loop {
            if let Err(error) = writer.write_all(&vec![b'.'; piece]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    fcntl_setfl(pipe, flags).unwrap();
}
