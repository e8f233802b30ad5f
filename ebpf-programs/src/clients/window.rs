//! Which segments can belong to a client's connection at all (RFC 9293, section 3.10.7.4).

use abi::clients::{Client, GREETING_BYTES};

use crate::{
    connection::ahead,
    frame::{ACK, Segment},
};

/// What a client takes ahead, and what of the past may still be under way: the window that it announces, which is never
/// scaled.
const WINDOW: i32 = u16::MAX as i32;

/// The most that a client can have under way: it says one thing at a time, the longest of which is a template.
const MOST_UNDER_WAY: i32 = 2 * GREETING_BYTES as i32;

/// Whether it is near enough to what was said and heard. What is not is somebody else's, or made up.
#[inline(always)]
pub fn holds<const HEADERS: usize>(client: &Client, segment: &Segment<HEADERS>) -> bool {
    let acknowledges = ahead(segment.acknowledged, client.next_out);
    has_sequence(client, segment) && (!segment.has(ACK) || (acknowledges >= -WINDOW && acknowledges <= MOST_UNDER_WAY))
}

/// The same by what it says of itself alone, which is what a reset is judged by.
#[inline(always)]
pub fn has_sequence<const HEADERS: usize>(client: &Client, segment: &Segment<HEADERS>) -> bool {
    let distance = ahead(segment.sequence, client.next_in);
    distance >= -WINDOW && distance <= WINDOW
}
