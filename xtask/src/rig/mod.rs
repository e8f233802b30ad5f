//! What `run` builds around the daemons and takes down again: namespaces, a veth pair, ports, processes.
//!
//! Everything is owned by a guard, so that leaving in any way, an error included, leaves nothing behind.
//!
//! Layout: `appliance` all of it together · `network` namespaces and the veth pair · `forward` the host's loopback ports · `process` the daemons

pub(crate) mod appliance;
mod forward;
pub(crate) mod network;
mod process;
