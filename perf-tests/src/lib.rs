//! Simulated clients of the appliance, from one that a test speaks with to hundreds of thousands under load.
//!
//! [`probe`] is the test's side: one blocking client at a time, whose every answer can be asserted, and the real
//! daemons as child processes to speak with. [`load`] is the load's side: many clients per thread, each message numbered
//! and stamped, so that a lost, doubled or misplaced one is seen and counted. [`floor`] is the least that the kernel asks
//! for the same work, and [`meter`] what processes and host use for it.
//!
//! It does not import the daemons: it meets them on the wire only, as a customer's client does.
//!
//! Layout: [`probe`] clients, daemons and publisher for tests · [`load`] the load generator · [`floor`] the raw loop that
//! daemons are judged by · [`meter`] CPU, memory and TCP of processes and host · [`websocket`] the client's half of
//! RFC 6455 · `sys` the system calls that no crate offers safely

pub mod floor;
pub mod load;
pub mod meter;
pub mod probe;
pub mod signoff;
mod sys;
pub mod websocket;
