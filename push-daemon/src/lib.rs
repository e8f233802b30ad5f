//! The edge.

pub mod kernel;
pub mod pushctl;
