//! The edge.

pub mod kernel;
