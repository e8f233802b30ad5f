//! What must hold of each parser of `wire`, whatever bytes it gets.
//!
//! Each function takes any bytes and panics when a rule is broken. The fuzzer calls them from `fuzz_targets/`; the
//! test `wire/tests/any_bytes.rs` calls the same functions with a stable compiler, over `seeds/` and random bytes.
//!
//! Shared rules: a parser never panics; it gives the same result however its input is cut into pieces; it says `None`
//! only while fewer bytes have come than its limit, so no peer can make us hold more; an error stays one, whatever
//! follows; what it accepts can be written again and read to the same value.
//!
//! To fuzz, once `cargo install cargo-fuzz` and a nightly toolchain are there, in the folder `wire`:
//!
//! ```text
//! mkdir -p fuzz/corpus/goim_packet
//! cargo +nightly fuzz run goim_packet fuzz/corpus/goim_packet fuzz/seeds/goim_packet -- -runs=100000 -max_len=9000
//! ```
//!
//! 9,000 bytes are enough to cross every limit that these parsers judge by content (a request's head has 8 KiB).
//!
//! The targets: `goim_packet`, `auth_body`, `room`, `operations`, `key`, `websocket_handshake`, `websocket_frames`,
//! `trunk_edge_frame`, `trunk_tier_frame`. New finds go to `fuzz/corpus`, which is not kept; a find that broke a rule
//! goes to `fuzz/seeds` together with its repair, and is a regression test from then on.
//!
//! It does not generate valid input beyond the seeds: the property tests in `wire/tests` do.

mod client;
mod trunk;
mod websocket;

pub use client::{auth_body, goim_packet, key, operations, room};
pub use trunk::{trunk_edge_frame, trunk_tier_frame};
pub use websocket::{websocket_frames, websocket_handshake};
