//! Two jobs may cut the same records at different places; an arbiter that hears both misses nothing and takes nothing
//! twice.

mod support;

use bytes::Bytes;
use logic_tier::bus::{Entry, Origin, Record, Target};
use logic_tier::job::merge::{Limits, Merge};
use proptest::prelude::*;
use support::edge::{Arbiter, Delivered};
use wire::room::RoomId;
use wire::trunk::Push;

fn record() -> impl Strategy<Value = Record> {
    let target = prop_oneof![
        4 => (0..4_u8).prop_map(Whom::Room),
        1 => prop::collection::vec(0..3_u8, 1..3).prop_map(Whom::Keys),
        1 => prop::collection::vec(-2..3_i64, 1..3).prop_map(Whom::Mids),
        1 => (0..2_u32).prop_map(Whom::All),
    ];
    (target, 0..40_usize, 1_000..1_004_i32).prop_map(|(whom, length, operation)| {
        let body = Bytes::from("x".repeat(length));
        match whom {
            Whom::Room(room) => {
                let room = RoomId::new("live", &room.to_string()).expect("a valid room");
                Record::room(&room, operation, body, Origin::Publisher)
            }
            Whom::Keys(keys) => Record::keys(keys.iter().map(u8::to_string).collect(), operation, body),
            Whom::Mids(mids) => Record::mids(mids, operation, body),
            Whom::All(speed) => Record::all(speed, operation, body),
        }
    })
}

#[derive(Debug, Clone)]
enum Whom {
    Room(u8),
    Keys(Vec<u8>),
    Mids(Vec<i64>),
    All(u32),
}

/// Where a job cuts: its limits, and moments at which it cuts although there is room.
#[derive(Debug, Clone)]
struct Cuts {
    limits: Limits,
    early: Vec<bool>,
}

fn cuts() -> impl Strategy<Value = Cuts> {
    let early = prop::collection::vec(prop::bool::weighted(0.3), 1..20);
    (1..12_usize, 1..400_usize, early)
        .prop_map(|(packets, bytes, early)| Cuts { limits: Limits { packets, bytes }, early })
}

/// What a job sends of `entries`.
fn frames(entries: &[Entry], cuts: &Cuts) -> Vec<Push> {
    let mut early = cuts.early.iter().cycle();
    let mut frames = Vec::new();
    let mut at = 0;
    while at < entries.len() {
        let mut merge = Merge::new(3, entries[at].offset - 1, cuts.limits);
        let began = at;
        while at < entries.len() && merge.offer(&entries[at]) {
            at += 1;
            if early.next() == Some(&true) {
                break;
            }
        }
        assert!(at > began, "a frame holds at least one record");
        frames.extend(merge.cut());
    }
    frames
}

fn expected(entries: &[Entry]) -> Vec<Delivered> {
    let delivered = |entry: &Entry| Delivered {
        partition: 3,
        offset: entry.offset,
        target: entry.record.target.clone(),
        operation: entry.record.operation,
        body: String::from_utf8_lossy(&entry.record.body).into_owned(),
    };
    entries.iter().map(delivered).collect()
}

/// The packets that one client may get, whatever its key, its mid and its operations are: one room, or all that is direct.
fn stream<'a>(packets: &'a [Delivered], room: Option<&str>) -> Vec<&'a Delivered> {
    let belongs = |packet: &&Delivered| match &packet.target {
        Target::Room(name) => room == Some(name),
        _ => room.is_none(),
    };
    packets.iter().filter(belongs).collect()
}

proptest! {
    #[test]
    fn an_arbiter_takes_each_record_once_and_in_order(
        records in prop::collection::vec(record(), 0..60),
        first in 1..5_u64,
        (a, b) in (cuts(), cuts()),
        order in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let entries: Vec<Entry> =
            records.into_iter().zip(first..).map(|(record, offset)| Entry { offset, record }).collect();
        let (mut a, mut b) = (frames(&entries, &a).into_iter().peekable(), frames(&entries, &b).into_iter().peekable());
        let mut arbiter = Arbiter::default();
        arbiter.positions.insert(3, first - 1);
        let mut order = order.into_iter().cycle();
        while a.peek().is_some() || b.peek().is_some() {
            let line = if order.next() == Some(true) { &mut a } else { &mut b };
            // A line that is ahead of the arbiter has its turn when the other one has caught up.
            let position = arbiter.positions[&3];
            let frame = line.next_if(|frame| frame.previous <= position);
            if let Some(frame) = frame {
                arbiter.take(&frame);
            } else if let Some(frame) = a.next_if(|frame| frame.previous <= position).or_else(|| b.next()) {
                arbiter.take(&frame);
            }
        }
        let expected = expected(&entries);
        for room in [None, Some("live://0"), Some("live://1"), Some("live://2"), Some("live://3")] {
            prop_assert_eq!(stream(&arbiter.delivered, room), stream(&expected, room));
        }
        prop_assert_eq!(arbiter.delivered.len(), expected.len());
    }
}
