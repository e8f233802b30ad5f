//! The engine without sockets: one XDP program at the clients' end of a veth pair plays them all.
//!
//! Layout: [`program`] what runs in the kernel, and its tables · [`script`] what the clients do · [`error`] what can be
//! missing

pub mod error;
pub mod program;
pub mod script;
