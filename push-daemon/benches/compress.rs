//! What the compressed forms cost and save: `cargo bench -p push-daemon --bench compress`.
//!
//! A block is compressed once for all its receivers. Before each row it is said how long the block is, plain and compressed.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use push_daemon::compress::compress;
use push_daemon::format::Format;
use wire::goim::Header;

/// Messages of a block: one by one, goim's merge, and a busy second.
const MESSAGES: [u32; 3] = [1, 20, 200];

const WORDS: [&str; 16] = [
    "hello", "again", "look", "at", "that", "what", "a", "goal", "nobody", "saw", "it", "coming", "here", "we", "go",
    "666",
];

/// A chat as it is: much of each message is the same, and names, times and words are not.
fn chat(messages: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut packets = Vec::new();
    for _ in 0..messages {
        let text: Vec<&str> = (0..random.usize(2..9)).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
        let body = format!(
            r#"{{"cmd":"DANMU_MSG","info":{{"uid":{},"name":"viewer_{:x}","medal":{},"color":{},"sent":{},"text":"{}"}}}}"#,
            random.u32(10_000..900_000_000),
            random.u32(..),
            random.u8(1..40),
            random.u32(..1 << 24),
            1_764_000_000_000_u64 + random.u64(..86_400_000),
            text.join(" ")
        );
        Header { version: 1, operation: 1000, sequence: 0 }.put_packet(body.as_bytes(), &mut packets);
    }
    packets
}

fn forms(criterion: &mut Criterion) {
    for (name, format) in [("zlib", Format::Zlib), ("brotli", Format::Brotli)] {
        let mut group = criterion.benchmark_group(name);
        for messages in MESSAGES {
            let packets = chat(messages);
            match compress(&packets, format) {
                Ok(Some((_, saving))) => {
                    println!(
                        "{name}, {messages} messages: {} -> {} bytes",
                        saving.plain_bytes, saving.compressed_bytes
                    );
                }
                Ok(None) => println!("{name}, {messages} messages: {} bytes, no shorter form", packets.len()),
                Err(error) => panic!("{name}: {error}"),
            }
            group.throughput(Throughput::Bytes(packets.len() as u64));
            group.bench_function(BenchmarkId::from_parameter(messages), |bencher| {
                bencher.iter(|| compress(&packets, format).map(|form| form.is_some()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, forms);
criterion_main!(benches);
