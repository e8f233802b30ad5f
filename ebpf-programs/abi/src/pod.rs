//! The promise to aya that these types are plain bytes.
#![allow(unsafe_code)] // `aya::Pod` is an unsafe trait, and these are its only implementations.

use crate::{
    clients::{Broadcast, Client, Script},
    events::{Event, Telling},
    isps::{Isp, IspCounter, Policer, Rate},
    limits::{Limits, SourceState},
    measuring::{Measured, Measuring, Sampled},
    rules::RuleValue,
    settings::Settings,
    shaping::{ShapeCounter, Shaper, Shaping},
    steer::{Place, ShardWord, Span},
    verdict::Counter,
};

// SAFETY: `repr(C)`, integers only, and the size asserts beside the types leave no room for padding: 4 + 4 + 8 + 8 + 8 + 4 + 4.
unsafe impl aya::Pod for RuleValue {}
// SAFETY: as above: 6 * 4 + 8 + 2 * 4 + 8 + 2 * 4 + 16.
unsafe impl aya::Pod for Settings {}
// SAFETY: as above: 8 + 8.
unsafe impl aya::Pod for Counter {}
// SAFETY: as above: 4 * 8 + 5 * 4 + 2 * 2 + 4 + 4 + 16.
unsafe impl aya::Pod for Limits {}
// SAFETY: as above: 5 * 8.
unsafe impl aya::Pod for SourceState {}
// SAFETY: as above: 4 * 8.
unsafe impl aya::Pod for Rate {}
// SAFETY: as above: 32 + 32 + 32.
unsafe impl aya::Pod for Isp {}
// SAFETY: as above: 8 + 7 * 8.
unsafe impl aya::Pod for Policer {}
// SAFETY: as above: 4 * 8.
unsafe impl aya::Pod for IspCounter {}
// SAFETY: as above: 8 + 16 + 16 + 4 + 4 + 8 + 2 + 2 + 1 + 1 + 2.
unsafe impl aya::Pod for Event {}
// SAFETY: as above: 8 + 8.
unsafe impl aya::Pod for Telling {}
// SAFETY: as above: 4 + 4 + 8 + 8 + 4 + 4.
unsafe impl aya::Pod for Shaping {}
// SAFETY: as above: 2 * 8 + 6 * 8.
unsafe impl aya::Pod for Shaper {}
// SAFETY: as above: 6 * 8.
unsafe impl aya::Pod for ShapeCounter {}
// SAFETY: as above: 4 + 4.
unsafe impl aya::Pod for Measuring {}
// SAFETY: as above: 8 * 8 + 24 * 8.
unsafe impl aya::Pod for Measured {}
// SAFETY: as above: 4 + 4.
unsafe impl aya::Pod for Sampled {}
// SAFETY: as above: 8 + 5 * 4 + 4.
unsafe impl aya::Pod for Client {}
// SAFETY: as above: 16 * 4 + 256.
unsafe impl aya::Pod for Script {}
// SAFETY: as above: 8 + 8.
unsafe impl aya::Pod for Broadcast {}
// SAFETY: as above: 4 * 4 + 4 + 4.
unsafe impl aya::Pod for Place {}
// SAFETY: as above: 4 + 4.
unsafe impl aya::Pod for ShardWord {}
// SAFETY: as above: 4 + 4.
unsafe impl aya::Pod for Span {}
