//! What it costs to write and read the formats: `cargo bench -p wire`.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wire::goim::{HEADER_BYTES, Header, Packets};
use wire::trunk::batch::Target;
use wire::trunk::{Batch, Push, TierFrame, decode, encode, tier_frame};
use wire::websocket::Opcode;
use wire::websocket::frame::{MAX_SERVER_HEADER_BYTES, encode_header};

/// A packet of 28 bytes, as in goim's own measurements.
const BODY: &[u8] = b"twelve bytes";

/// As many as goim's Job merges.
const MERGED: u64 = 20;

const HEADER: Header = Header { version: 1, operation: 1000, sequence: 0 };

fn packets() -> Vec<u8> {
    let mut out = Vec::new();
    (0..MERGED).for_each(|_| HEADER.put_packet(BODY, &mut out));
    out
}

fn frame() -> TierFrame {
    let batch = Batch {
        target: Some(Target::Room("live://1000".to_owned())),
        offsets: (1..=MERGED).collect(),
        packets: Bytes::from(packets()),
    };
    let push = Push { partition: 0, previous: 0, last: MERGED, batches: vec![batch] };
    TierFrame { body: Some(tier_frame::Body::Push(push)) }
}

fn goim(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("goim");
    group.throughput(Throughput::Elements(MERGED));
    let mut out = Vec::with_capacity(MERGED as usize * (HEADER_BYTES + BODY.len()));
    group.bench_function("write 20 packets", |bencher| {
        bencher.iter(|| {
            out.clear();
            (0..MERGED).for_each(|_| HEADER.put_packet(black_box(BODY), &mut out));
        });
    });
    let packets = packets();
    group.bench_function("read 20 packets", |bencher| {
        bencher.iter(|| Packets::new(black_box(&packets), usize::MAX).filter(Result::is_ok).count());
    });
    group.finish();
}

fn websocket(criterion: &mut Criterion) {
    let mut header = [0; MAX_SERVER_HEADER_BYTES];
    criterion.bench_function("websocket/frame header", |bencher| {
        bencher.iter(|| encode_header(Opcode::Binary, black_box(560), &mut header));
    });
}

fn trunk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("trunk");
    let frame = frame();
    group.bench_function("write a frame of 20 packets", |bencher| bencher.iter(|| encode(black_box(&frame))));
    let line = encode(&frame);
    group.bench_function("read a frame of 20 packets", |bencher| {
        bencher.iter_batched_ref(|| BytesMut::from(&line[..]), decode::<TierFrame>, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, goim, websocket, trunk);
criterion_main!(benches);
