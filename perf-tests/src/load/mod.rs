//! Load: many simulated clients, every message numbered, every loss seen.
//!
//! A [`Scenario`](scenario::Scenario) says what to do, an [`Engine`](engine::Engine) holds the clients, a publisher
//! feeds them, [`run`] conducts, and the [`Report`](report::Report) says what was found.
//!
//! It measures from outside: it knows nothing of the daemons but their addresses. Clients and publisher run on one host,
//! because delays are taken on one clock.
//!
//! Layout: [`scenario`] what to do · [`run`] the phases · [`publish`] the publisher · [`engine`] the clients ·
//! [`ledger`] who heard what · [`broadcasts`] when the last one heard it · [`stamp`] what a message says of itself ·
//! [`report`] the result · [`table`] for people · [`watch`] while it runs

pub mod broadcasts;
pub mod engine;
pub mod ledger;
pub mod publish;
pub mod report;
pub mod run;
pub mod scenario;
pub mod stamp;
pub mod table;
pub mod watch;
