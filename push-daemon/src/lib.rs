//! The edge: holds the client connections of one host and pushes to them.
//!
//! One process, a few threads. Each shard is an event loop with its own connections, rooms and descriptor table; it
//! takes packets that the trunk brings and hands them to sockets. The kernel plane guards the ports before a shard
//! is woken. Nothing here decides who may enter or what is said: that is the logic tier's.
//!
//! Layout: [`process`] runtime and signals · [`log`] lines that nobody has to read · [`appliance`] builds the parts,
//! starts and stops them, `plan` how many shards, `storm` when their memory goes back · [`config`] the settings ·
//! [`block`] memory that many connections are sent from, `buffers` where it comes from, [`format`](mod@format) the ways
//! to head and pack it, [`compress`] its short forms · [`lanes`] what each ISP's clients may take · [`shard`] the data
//! plane · [`trunk`] upstream · [`kernel`] XDP · [`admin`] what operators see · [`pushctl`] the network engineer's CLI

pub mod admin;
pub mod appliance;
pub mod block;
mod buffers;
pub mod compress;
pub mod config;
pub mod format;
pub mod kernel;
pub mod lanes;
pub mod log;
mod plan;
pub mod process;
pub mod pushctl;
pub mod shard;
mod storm;
mod sys;
pub mod trunk;
