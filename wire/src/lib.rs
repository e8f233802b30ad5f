//! What travels: formats only, no I/O and no clock.
//!
//! The daemon, the logic tier and the test clients meet here and nowhere else.
//!
//! Layout: [`goim`] the client packet · [`auth`] what a client says of itself · [`room`] the name of a room ·
//! [`key`] the name of a connection · [`trunk`] what an edge and the tier say to each other ·
//! [`websocket`] the frames around packets for browsers

mod field;

pub mod auth;
pub mod goim;
pub mod key;
pub mod room;
pub mod trunk;
pub mod websocket;
