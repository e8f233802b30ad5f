//! The edge.

pub mod block;
pub mod config;
pub mod shard;
mod sys;
pub mod trunk;
