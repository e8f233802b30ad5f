//! Any bytes at all: the rules of the fuzz targets (`wire/fuzz/src`), with a stable compiler.
//!
//! Each target gets its seeds, every beginning of them, every byte of them altered, and random bytes. It is no
//! fuzzing, which looks for ways into the code: that is `cargo fuzz`, see the front page of `wire/fuzz/src/lib.rs`.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

// A library of its own there, a module here, so what it exports reaches nobody.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod rules;

/// Runs `rule` over the seeds of `target` and what little alterations make of them.
fn over_seeds(target: &str, rule: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("no seeds in {}: {error}", folder.display())) {
        let seed = entry.and_then(|entry| fs::read(entry.path()));
        let seed = seed.unwrap_or_else(|error| panic!("a seed in {} cannot be read: {error}", folder.display()));
        seeds += 1;
        rule(&seed);
        // Long seeds are long in one place: their first bytes are where the decisions fall.
        for length in 0..seed.len().min(400) {
            rule(&seed[..length]);
        }
        for at in 0..seed.len().min(400) {
            for altered in [seed[at] ^ 0x80, seed[at] ^ 0x01, 0x00, 0xff] {
                let mut seed = seed.clone();
                seed[at] = altered;
                rule(&seed);
            }
        }
    }
    assert!(seeds > 0, "{} is empty", folder.display());
}

macro_rules! targets {
    ($($target:ident)*) => {$(
        mod $target {
            use super::*;

            #[test]
            fn seeds() {
                over_seeds(stringify!($target), rules::$target);
            }

            proptest! {
                #[test]
                fn random_bytes(data in proptest::collection::vec(any::<u8>(), 0..600)) {
                    rules::$target(&data);
                }
            }
        }
    )*};
}

targets! {
    goim_packet auth_body room operations key websocket_handshake websocket_frames trunk_edge_frame trunk_tier_frame
}
