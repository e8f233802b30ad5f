//! What `perf-tests` can be told to do; one file per verb.

mod behaviour;
pub(crate) mod clients;
pub(crate) mod compare;
mod fallback;
pub(crate) mod floor;
mod process;
pub(crate) mod signoff;
pub(crate) mod table;
mod xdp;
