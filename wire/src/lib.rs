//! What travels: formats only, no I/O and no clock.
//!
//! The daemon, the logic tier and the test clients meet here and nowhere else.
//!
//! Layout: [`goim`] the client packet · [`auth`] what a client says of itself · [`room`] the name of a room ·
//! [`key`] the name of a connection · [`trunk`] what an edge and the tier say to each other

pub mod auth;
pub mod goim;
pub mod key;
pub mod room;
pub mod trunk;
