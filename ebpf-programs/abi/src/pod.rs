//! The promise to aya that these types are plain bytes.
#![allow(unsafe_code)] // `aya::Pod` is an unsafe trait, and these are its only implementations.

use crate::{
    clients::{Broadcast, Client, Script},
    rules::RuleValue,
    settings::Settings,
    steer::{Place, ShardWord, Span},
    verdict::Counter,
};

// SAFETY: `repr(C)`, integers only, and the size asserts beside the types leave no room for padding: 4 + 4 + 8 + 8 + 8.
unsafe impl aya::Pod for RuleValue {}
// SAFETY: as above: 4 * 4 + 8 + 16.
unsafe impl aya::Pod for Settings {}
// SAFETY: as above: 8 + 8.
unsafe impl aya::Pod for Counter {}
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
