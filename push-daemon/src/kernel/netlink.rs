//! Asks the kernel which XDP program an interface runs, in which mode it runs there, and how many queues it sends by.
//!
//! One `RTM_GETLINK` request, one answer. It does not change anything, and knows no other attribute.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto, socket_with,
};

use super::config::Mode;

const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
/// Attribute types carry flags in their two highest bits.
const TYPE_MASK: u16 = 0x3fff;

const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
/// An answer about one interface takes one to four kilobytes; what does not fit is cut off and then not found.
const ANSWER_BYTES: usize = 32 * 1024;

/// The XDP program at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpAt {
    pub(super) program_id: u32,
    pub(super) mode: Mode,
}

/// The program at `interface_index` in this thread's network namespace, if any. With one in each mode, the driver's.
pub(super) fn xdp_at(interface_index: u32) -> io::Result<Option<XdpAt>> {
    parse(&ask(interface_index)?)
}

/// How many queues `interface_index` may send by, in this thread's network namespace.
pub(super) fn send_queues(interface_index: u32) -> io::Result<u32> {
    let answer = ask(interface_index)?;
    let queues = find(attributes(&answer)?, IFLA_NUM_TX_QUEUES).and_then(|value| u32_at(value, 0));
    Ok(queues.unwrap_or(1))
}

fn ask(interface_index: u32) -> io::Result<Vec<u8>> {
    // Protocol 0 of the family is routing: interfaces, addresses, routes.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sendto(&socket, &request(interface_index), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = vec![0; ANSWER_BYTES];
    let (received, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    answer.truncate(received);
    Ok(answer)
}

fn request(interface_index: u32) -> [u8; HEADER_BYTES + LINK_BYTES] {
    let mut bytes = [0; HEADER_BYTES + LINK_BYTES];
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    // Sequence, port id and the family stay 0: one request, one answer.
    bytes[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&interface_index.to_ne_bytes());
    bytes
}

fn parse(message: &[u8]) -> io::Result<Option<XdpAt>> {
    let Some(xdp) = find(attributes(message)?, IFLA_XDP) else { return Ok(None) };
    for (attribute, mode) in [(IFLA_XDP_DRV_PROG_ID, Mode::Driver), (IFLA_XDP_SKB_PROG_ID, Mode::Generic)] {
        if let Some(program_id) = find(xdp, attribute).and_then(|value| u32_at(value, 0)) {
            return Ok(Some(XdpAt { program_id, mode }));
        }
    }
    Ok(None)
}

/// The attributes in an answer about one interface.
fn attributes(message: &[u8]) -> io::Result<&[u8]> {
    let kind = u16_at(message, 4).ok_or(io::ErrorKind::UnexpectedEof)?;
    if kind == NLMSG_ERROR {
        let code = u32_at(message, HEADER_BYTES).ok_or(io::ErrorKind::UnexpectedEof)? as i32;
        return Err(io::Error::from_raw_os_error(-code));
    }
    if kind != RTM_NEWLINK {
        return Err(io::Error::other(format!("netlink answered with message type {kind}")));
    }
    Ok(message.get(HEADER_BYTES + LINK_BYTES..).unwrap_or_default())
}

/// The value of the first attribute of type `wanted` in a row of attributes.
pub(super) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let kind = u16_at(attributes, 2)? & TYPE_MASK;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        // Each attribute begins on a multiple of 4; a length below 4 ended the loop at `get`.
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = 4 + value.len() as u16;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(attributes: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADER_BYTES + LINK_BYTES];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        message.extend_from_slice(attributes);
        message
    }

    #[test]
    fn the_program_and_its_mode_are_found_behind_other_attributes() {
        let xdp = [attribute(2, &[2]), attribute(4, &77u32.to_ne_bytes()), attribute(6, &77u32.to_ne_bytes())].concat();
        let message = answer(&[attribute(3, b"veth0\0"), attribute(IFLA_XDP | 0x8000, &xdp)].concat());
        assert_eq!(parse(&message).unwrap(), Some(XdpAt { program_id: 77, mode: Mode::Generic }));
    }

    #[test]
    fn an_answer_cut_anywhere_is_no_panic_and_no_endless_loop() {
        let xdp = attribute(5, &9u32.to_ne_bytes());
        let message = answer(&[attribute(3, b"eth0\0"), attribute(IFLA_XDP, &xdp)].concat());
        assert_eq!(parse(&message).unwrap(), Some(XdpAt { program_id: 9, mode: Mode::Driver }));
        for length in 0..message.len() {
            let _ = parse(&message[..length]);
        }
        assert_eq!(parse(&answer(&[0; 64])).unwrap(), None);
    }

    #[test]
    fn loopback_runs_no_program() {
        assert_eq!(xdp_at(1).unwrap(), None);
    }
}
