//! Bad input from publishers and operators, end to end: the HTTP API, and the settings of both daemons.
//!
//! Each refusal has its status, goim's code, words that name what was wrong, and is counted; a good push before and after
//! still arrives at a client. What well-behaved publishers do has its own tests (`operations`).
//!
//! Layout: `requests` parameters, keys, routes · `bytes` broken HTTP, long and slow bodies · `settings` `--check --config`
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

#[path = "bad_publisher/bytes.rs"]
mod bytes;
mod edge_rig;
#[path = "bad_publisher/requests.rs"]
mod requests;
#[path = "bad_publisher/settings.rs"]
mod settings;
