//! Load: many simulated clients, every message numbered, every loss seen.
//!
//! A [`Scenario`](scenario::Scenario) says what to do, an [`Engine`](engine::Engine) holds the clients, a publisher
//! feeds them, a [`Conductor`](conduct::Conductor) leads through one phase or many, and the [`Report`](report::Report)
//! says what was found.
//!
//! It measures from outside: it knows nothing of the daemons but their addresses. Clients and publisher run on one host,
//! because delays are taken on one clock.
//!
//! Layout: [`scenario`] what to do · [`behaviour`] what clients do besides listening · [`target`] to whom is published
//! · [`conduct`] build, phases, finish · [`run`] a scenario as one phase · [`publish`] the publisher · [`numbers`] how
//! far it has come · [`engine`] the clients · [`ledger`] who heard what · [`broadcasts`] when the last one heard it ·
//! [`stamp`] what a message says of itself · [`report`] the result · [`table`] for people · [`watch`] while it runs

pub mod behaviour;
pub mod broadcasts;
pub mod conduct;
mod course;
pub mod engine;
pub mod ledger;
pub mod numbers;
pub mod publish;
pub mod report;
pub mod run;
pub mod scenario;
pub mod stamp;
mod summary;
pub mod table;
pub mod target;
pub mod watch;
