//! The logic tier: publishers in, edges out, and a durable log between them.
//!
//! A push comes in by HTTP, is answered when the bus has it on disk, is merged with others by the job, and leaves on
//! every trunk line. Clients' messages come in by the trunk and go the same way.
//!
//! It does not: keep connections to clients (the edges do), find out which edge has a key or a mid (edges resolve
//! both), or share anything with another tier (one process is the whole tier for now).
//!
//! Layout: [`config`] · [`api`] publishers · [`bus`] the log · [`job`] records to frames · [`trunk`] edges
//! · [`sessions`] who is online · [`admission`] who may enter · [`nodes`] where to connect · [`metrics`] · [`tier`] all
//! of it together

pub mod admission;
pub mod api;
pub mod bus;
mod clock;
pub mod config;
pub mod job;
pub mod metrics;
pub mod nodes;
pub mod sessions;
pub mod tier;
pub mod trunk;

pub use tier::{StartError, Tier};
