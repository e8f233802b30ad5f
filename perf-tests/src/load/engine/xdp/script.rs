//! From a scenario to the script of the clients: where they live, and what each says of itself.

use std::net::SocketAddrV4;

use abi::clients::{GREETING_BYTES, MAX_GREETING_BYTES, NUMBER_DIGITS, RATES, Script, habit};
use wire::goim::{Header, op};

use super::error::XdpError;
use crate::load::scenario::{Dialect, Scenario, Transport};
use crate::websocket;

/// Clients of one address. So many share a limit that the server keeps per address.
pub const PORTS_PER_ADDRESS: u32 = 16;

/// The first port of each address: behind those that belong to services.
pub const FIRST_PORT: u32 = 20_000;

/// Where WebSocket is asked for, with one key for all.
const PATH: &str = "/sub";
const NONCE: &[u8; 16] = b"perf-tests nonce";

/// User id that stands in the template until the program writes a client's: the longest.
const ANY_MID: u32 = u32::MAX;

/// What the clients of `scenario` do, the first of them at `first`. They are ready for a publisher that is not ours.
///
/// # Errors
/// [`XdpError::Beyond`] says what of it they cannot do.
pub fn script(scenario: &Scenario, first: SocketAddrV4, secret: u32) -> Result<Script, XdpError> {
    let beyond = |what: String| Err(XdpError::Beyond(what));
    if !scenario.own_keys.is_empty() {
        return beyond("they bring no keys of their own".to_owned());
    }
    let Ok(first_mid) = u32::try_from(scenario.first_mid) else {
        return beyond(format!("user ids begin at 0 to {ANY_MID}, not at {}", scenario.first_mid));
    };
    if first_mid.checked_add(scenario.clients).is_none() {
        return beyond(format!("{} clients from user id {first_mid} on pass {ANY_MID}", scenario.clients));
    }
    let (lowest, highest) = (scenario.room_number(0).to_string(), scenario.room_number(scenario.rooms - 1).to_string());
    if lowest.len() != highest.len() || lowest.len() > NUMBER_DIGITS {
        return beyond(format!("rooms {lowest} to {highest} have not equally many digits (choose --first-room)"));
    }
    let mut request = scenario.auth_of(0);
    request.mid = i64::from(ANY_MID);
    let body = request.to_body();
    let mut packet = Vec::new();
    Header { version: 1, operation: op::AUTH, sequence: 1 }.put_packet(&body, &mut packet);
    let packet = as_said(scenario.transport, packet);
    if packet.len() > MAX_GREETING_BYTES as usize {
        return beyond(format!("an auth packet of {} bytes, with room for {MAX_GREETING_BYTES}", packet.len()));
    }
    // How a room begins and ends in the packet, the digits between.
    let (before, behind) = match scenario.dialect {
        Dialect::Goim => (format!("{}://", scenario.room_type), "\""),
        Dialect::Bilibili => ("\"roomid\":".to_owned(), ""),
    };
    let room = format!("{before}{lowest}{behind}");
    let (Some(mid_at), Some(room_at)) = (place_of(&packet, &ANY_MID.to_string()), place_of(&packet, &room)) else {
        return beyond("an auth packet in which user id or room stand nowhere, or twice".to_owned());
    };
    let request = match scenario.transport {
        Transport::Tcp => String::new(),
        Transport::Websocket => {
            let host = scenario.connect.first().map_or_else(String::new, ToString::to_string);
            websocket::request(&host, PATH, &websocket::key(*NONCE), "")
        }
    };
    if request.len() > MAX_GREETING_BYTES as usize {
        return beyond(format!(
            "a request for WebSocket of {} bytes, with room for {MAX_GREETING_BYTES}",
            request.len()
        ));
    }
    let mut upgrade = [0; GREETING_BYTES];
    upgrade[..request.len()].copy_from_slice(request.as_bytes());
    let mut greeting = [0; GREETING_BYTES];
    greeting[..packet.len()].copy_from_slice(&packet);
    Ok(Script {
        clients: scenario.clients,
        first_address: (*first.ip()).into(),
        ports_per_address: PORTS_PER_ADDRESS,
        first_port: u32::from(first.port()),
        secret,
        run: scenario.run,
        phase: 0,
        streams: scenario.rooms,
        first_mid,
        first_room: scenario.first_room,
        rooms: scenario.rooms,
        greeting_bytes: packet.len() as u32,
        mid_at,
        room_at: room_at + before.len() as u32,
        room_digits: lowest.len() as u32,
        habits: habit::FROM_FIRST_HEARD,
        upgrade_bytes: request.len() as u32,
        reserved: 0,
        room_bytes: room_bytes(scenario.behaviour.slow_buffer_bytes),
        all_read: 0,
        // As a cast, what is beyond the end is the end.
        lost: (scenario.behaviour.acknowledging.lost_share * 4_294_967_296.0) as u32,
        acknowledges_late: u32::from(scenario.behaviour.acknowledging.delay_ms > 0),
        bytes_per_second: [0; RATES],
        greeting,
        upgrade,
    })
}

/// Room of a client that does not read, when its socket's buffer would be of so many bytes, which the kernel doubles. Without
/// window scaling no more can be offered than fits into 16 bits.
fn room_bytes(buffer_bytes: usize) -> u32 {
    let most = u32::from(u16::MAX);
    if buffer_bytes == 0 {
        most
    } else {
        u32::try_from(buffer_bytes).map_or(most, |bytes| most.min(bytes.saturating_mul(2)))
    }
}

/// What a client sends, as it goes over `transport`.
#[must_use]
pub fn as_said(transport: Transport, packet: Vec<u8>) -> Vec<u8> {
    if transport == Transport::Tcp {
        return packet;
    }
    let mut frame = Vec::new();
    // Masked, as a client's has to be, by what leaves it as it is: the program writes numbers into it.
    websocket::put_frame(true, websocket::opcode::BINARY, &packet, [0; 4], &mut frame);
    frame
}

/// Where `text` stands in `bytes`, when that is once.
fn place_of(bytes: &[u8], text: &str) -> Option<u32> {
    let mut places = bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
    let (place, _) = places.next()?;
    places.next().is_none().then_some(place as u32)
}
