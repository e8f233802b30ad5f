//! The capacity sign-off: a profile walked through against real daemons, judged against its budget, and reported.
//!
//! A [`Profile`](profile::Profile) says what is done and what must come of it. [`run`] does it, beside the floor where the
//! profile asks for that, and gives a [`Report`](report::Report); [`html::page`] shows one, [`compare`] holds two against
//! each other.
//!
//! Everything runs on one host, because delays are taken on one clock and costs from one `/proc`. It measures; it does not
//! tune: no setting of the kernel is touched.
//!
//! Layout: [`profile`] the plan · [`figures`] what can be measured · `walk` the repeats and their phases · `phases` what is
//! done in each kind of phase · `site` the daemons · `rigs` places for clients made of XDP · `recorder` what is seen
//! meanwhile · [`series`] what of it is kept · `progress` the display · [`judge`] figures against the budget · [`report`] the
//! result · [`html`] its page · [`plot`] the page's pictures · [`compare`] two reports · [`table`] reports beside their floors

pub mod compare;
pub mod figures;
pub mod html;
pub mod judge;
mod phases;
pub mod plot;
pub mod profile;
mod progress;
mod recorder;
pub mod report;
mod rigs;
#[cfg(test)]
mod sample;
pub mod series;
mod site;
pub mod table;
mod walk;

pub use site::SiteError;
pub use walk::{SignOffError, run};
