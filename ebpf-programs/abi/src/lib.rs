#![no_std]
//! What the kernel programs and userspace agree on: the names of the maps, the types of their keys and values, verdicts and reasons.
//!
//! Everything here is plain data with a fixed layout (`repr(C)`, sizes checked at compile time, no padding that holds
//! garbage). It does not: parse packets, open maps or decide anything.
//!
//! Layout: `rules` what a filter table holds · `generation` which of two rule sets is in force · `limits` what one source may do ·
//! `isps` who a prefix belongs to, and his rates · `shaping` how his egress is held to them · `measuring` what connections saw ·
//! `verdict` what became of a packet and why · `events` a sample of the drops · `settings` the switches · `maps` names and bounds ·
//! `steer` which shard gets a connection · `clients` all of the above for the clients that tests play · `pod` the userspace promise
//! that these types are plain bytes (feature `user`).

pub mod clients;
pub mod events;
pub mod generation;
pub mod isps;
pub mod limits;
pub mod maps;
pub mod measuring;
#[cfg(feature = "user")]
mod pod;
pub mod rules;
pub mod settings;
pub mod shaping;
pub mod steer;
pub mod verdict;

/// Version of everything in this crate that ends up in a map: keys, values, map types, the order of the counters.
///
/// It is part of the pin directory's name, so that a program never reads a map that was laid out by another version.
/// Raise it with every change that an old program or an old `pushctl` would misread.
pub const LAYOUT: u32 = 2;
