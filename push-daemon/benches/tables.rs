//! What a shard's tables cost, without its sockets: `cargo bench -p push-daemon --bench tables`.
//!
//! A round reads a cache line for each member, in the order in which the room lists them. That is the order of the slab
//! where clients came one after another, and any order after a while of coming and going.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use push_daemon::block::{Audience, BlockPool, Run};
use push_daemon::compress::Compressed;
use push_daemon::format::{Format, Formats};
use push_daemon::shard::tables::{MemberOrder, Tables};
use wire::goim::Header;

/// What fits into a CPU's second-level cache, what fits into its last, and what fits into none.
const MEMBERS: [u32; 3] = [10_000, 100_000, 1_000_000];

fn run() -> Run {
    let mut packets = Vec::new();
    Header { version: 1, operation: 1000, sequence: 0 }.put_packet(b"twelve bytes", &mut packets);
    Run { packets: Bytes::from(packets), count: 1, compressed: Compressed::default() }
}

fn round(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round over a room");
    let run = run();
    for members in MEMBERS {
        group.throughput(Throughput::Elements(u64::from(members)));
        let shuffled = || Tables::with_room_of(members, MemberOrder::Shuffled);
        let rows = [
            ("as they stand", Tables::with_room_of(members, MemberOrder::OfSlab)),
            ("shuffled", shuffled()),
            ("shuffled, in lanes", shuffled().in_lanes()),
        ];
        for (name, mut tables) in rows {
            group.bench_function(BenchmarkId::new(name, members), |bencher| {
                bencher.iter(|| assert_eq!(tables.round(&run), members));
            });
        }
    }
    group.finish();
}

fn sweep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sweep for silence");
    for members in MEMBERS {
        group.throughput(Throughput::Elements(u64::from(members)));
        let tables = Tables::with_room_of(members, MemberOrder::OfSlab);
        group.bench_function(BenchmarkId::from_parameter(members), |bencher| {
            bencher.iter(|| assert_eq!(tables.silent(), 0));
        });
    }
    group.finish();
}

fn block(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("block");
    let pool = BlockPool::new();
    let formats: Formats = [Format::Goim].into_iter().collect();
    for (merged, receivers) in [(1, 1), (1, 1_000), (20, 1_000)] {
        let runs = vec![run(); merged];
        let audience = Audience { formats, receivers };
        group.bench_function(BenchmarkId::new(format!("of {merged}, for"), receivers), |bencher| {
            bencher.iter(|| pool.build(runs.iter(), audience));
        });
    }
    group.finish();
}

criterion_group!(benches, round, sweep, block);
criterion_main!(benches);
