//! Values of [`Client::state`](super::Client::state): what a client is about, and how it reads.
//!
//! The program writes what the server brings about, userspace what an order asks for: to say goodbye, to read slowly.

use super::RATES;

/// Nothing came from the server yet.
pub const FRESH: u8 = 0;
/// The handshake is done, WebSocket's as well if that is to be, and the auth packet sent.
pub const GREETED: u8 = 1;
/// The auth was granted.
pub const JOINED: u8 = 2;
/// The auth was refused.
pub const REFUSED: u8 = 3;
/// The server closed, and we did too.
pub const CLOSED: u8 = 4;
/// The server reset the connection, or answered that it knows of none.
pub const RESET: u8 = 5;
/// The handshake is done and WebSocket asked for.
pub const UPGRADING: u8 = 6;
/// On its way back: a SYN is under way, and `next_out` the number behind it.
pub const RETURNING: u8 = 7;
/// As `UPGRADING`, on its way back.
pub const UPGRADING_AGAIN: u8 = 8;
/// As `GREETED`, on its way back.
pub const GREETED_AGAIN: u8 = 9;
/// It has said goodbye, and hears nothing until the server has closed.
pub const LEAVING: u8 = 10;
/// It has reset the connection, and answers whatever comes by a reset.
pub const ABORTED: u8 = 11;
/// It is gone without a word, and answers nothing.
pub const VANISHED: u8 = 12;
/// As `JOINED`, but owed nothing before the next phase: it did not always read.
pub const RESUMED: u8 = 13;
/// Nobody reads, and nobody says that the client is alive.
pub const SILENT: u8 = 14;
/// And [`RATES`] of them: it reads as many bytes a second as this rate of the script says. The first is none.
pub const SLOW: u8 = 16;
/// It reads nothing.
pub const STOPPED: u8 = SLOW;

/// The rate at which a client in `state` reads; `None` when it reads whatever comes.
#[inline(always)]
#[must_use]
pub const fn rate_of(state: u8) -> Option<u8> {
    match state {
        SILENT => Some(0),
        SLOW.. if state < SLOW + RATES as u8 => Some(state - SLOW),
        _ => None,
    }
}

/// Whether a client in `state` has asked for WebSocket and has no answer.
#[inline(always)]
#[must_use]
pub const fn is_upgrading(state: u8) -> bool {
    matches!(state, UPGRADING | UPGRADING_AGAIN)
}

/// Whether a client in `state` has sent its auth packet and has no answer.
#[inline(always)]
#[must_use]
pub const fn is_greeted(state: u8) -> bool {
    matches!(state, GREETED | GREETED_AGAIN)
}

/// Whether a client in `state` has a connection, let in or not.
#[inline(always)]
#[must_use]
pub const fn is_connected(state: u8) -> bool {
    is_upgrading(state) || is_greeted(state) || matches!(state, REFUSED | LEAVING) || is_in(state)
}

/// Whether a client in `state` was let in and has its connection.
#[inline(always)]
#[must_use]
pub const fn is_in(state: u8) -> bool {
    matches!(state, JOINED | RESUMED) || rate_of(state).is_some()
}

/// Whether what a client in `state` hears counts apart, because it is owed nothing.
#[inline(always)]
#[must_use]
pub const fn is_astray(state: u8) -> bool {
    state == RESUMED || rate_of(state).is_some()
}
