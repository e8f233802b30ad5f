//! Bad input from clients, end to end: each kind is answered or closed for its own counted reason, at bounded cost, and
//! disturbs nobody.
//!
//! Rows name what is sent, what comes back, and the reason in `/stats`. Witnesses on every path are in all the time and
//! have to hear a push after each row. What well-behaved clients get has its own tests (`operations`).
//!
//! Layout: `rows` what a row is and how it is run · `packets` broken packets and packets out of place · `auth` broken auth
//! bodies · `frames` broken WebSocket · `handshakes` broken HTTP · `silence` too slow, half-open, vanished · `storm` many at once
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

#[path = "bad_input/auth.rs"]
mod auth;
mod edge_rig;
#[path = "bad_input/frames.rs"]
mod frames;
#[path = "bad_input/handshakes.rs"]
mod handshakes;
#[path = "bad_input/packets.rs"]
mod packets;
#[path = "bad_input/rows.rs"]
mod rows;
#[path = "bad_input/silence.rs"]
mod silence;
#[path = "bad_input/storm.rs"]
mod storm;
