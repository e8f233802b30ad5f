//! What goes wrong around a daemon, provoked for real, and what its clients notice of it: nothing.
//!
//! A kernel without memory for a send is in the shard's own tests, since no kernel can be made so for one process; a
//! shard that panics is in the edge's (`shard_panics`).
//!
//! Layout: `descriptors` none are left · `full_queue` a shard takes no orders · `standstill` the process is stopped for a
//! while · `log_reader` nobody reads the log, or nobody is there to
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

#[path = "faults/descriptors.rs"]
mod descriptors;
mod edge_rig;
#[path = "faults/full_queue.rs"]
mod full_queue;
#[path = "faults/log_reader.rs"]
mod log_reader;
#[path = "faults/standstill.rs"]
mod standstill;
