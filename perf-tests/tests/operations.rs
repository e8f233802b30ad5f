//! Every operation of the client protocol, end to end: real daemons, real sockets, each way in.
//!
//! What a client must not get is shown by what it gets next, not by waiting. What breaks rules has its own tests
//! (`bad_input`), and so has the publisher's side (`bad_publisher`).
//!
//! Layout: `entering` auth, refusals, keys taken over · `rooms` heartbeats, moves · `pushes` who hears what ·
//! `messages` what clients say · `frames` what is special to WebSocket · `order` a room's order at speed ·
//! `slow` clients that do not read · `ending` silence and drain
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod edge_rig;
#[path = "operations/ending.rs"]
mod ending;
#[path = "operations/entering.rs"]
mod entering;
#[path = "operations/frames.rs"]
mod frames;
#[path = "operations/messages.rs"]
mod messages;
#[path = "operations/order.rs"]
mod order;
#[path = "operations/pushes.rs"]
mod pushes;
#[path = "operations/rooms.rs"]
mod rooms;
#[path = "operations/slow.rs"]
mod slow;
