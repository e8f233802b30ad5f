//! What it costs to tell what is new in a frame: `cargo bench -p push-daemon --bench arbiter`.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use push_daemon::trunk::arbiter::{Arbiter, Verdict};
use wire::goim::Header;
use wire::trunk::batch::Target;
use wire::trunk::{Batch, Position, Push};

/// Packets of a frame, spread over four rooms.
const PACKETS: u64 = 80;

const ROOMS: u64 = 4;

fn push() -> Push {
    let batch = |room: u64| {
        let offsets: Vec<u64> = (1..=PACKETS).filter(|offset| offset % ROOMS == room).collect();
        let mut packets = Vec::new();
        for _ in &offsets {
            Header { version: 1, operation: 1000, sequence: 0 }.put_packet(b"twelve bytes", &mut packets);
        }
        Batch { target: Some(Target::Room(format!("live://{room}"))), offsets, packets: Bytes::from(packets) }
    };
    Push { partition: 0, previous: 0, last: PACKETS, batches: (0..ROOMS).map(batch).collect() }
}

fn at(offset: u64) -> Arbiter {
    let mut arbiter = Arbiter::default();
    arbiter.welcome(1, &[Position { partition: 0, offset }]);
    arbiter
}

fn take(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("arbiter");
    let push = push();
    for (name, position) in [("all of it is new", 0), ("half of it is new", PACKETS / 2), ("the second copy", PACKETS)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (at(position), push.clone()),
                |(mut arbiter, push)| {
                    let verdict = arbiter.take(push);
                    assert_eq!(matches!(verdict, Verdict::Duplicate), position == PACKETS);
                    // Dropped by the harness, outside the measurement.
                    (arbiter, verdict)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, take);
criterion_main!(benches);
