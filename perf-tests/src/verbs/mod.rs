//! What `perf-tests` can be told to do; one file per verb.

mod behaviour;
pub(crate) mod clients;
