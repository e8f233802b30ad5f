//! Frames that a server's kernel sends to a client, and the answers to them, taken apart with their checksums verified.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::net::Ipv4Addr;

/// The two families: the headers differ, what is said does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

pub(crate) const SERVER_PORT: u16 = 3101;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// A segment, whichever way it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn segment(sequence: u32, acknowledged: u32, flags: u8, payload: &[u8]) -> Segment {
    Segment { sequence, acknowledged, flags, payload: payload.to_vec() }
}

/// A frame from the server to the client at an address and port, with `option_words` words of TCP options.
pub(crate) fn frame(family: Family, segment: &Segment, client: (Ipv4Addr, u16), option_words: u8) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(SERVER_PORT.to_be_bytes());
    tcp.extend(client.1.to_be_bytes());
    tcp.extend(segment.sequence.to_be_bytes());
    tcp.extend(segment.acknowledged.to_be_bytes());
    tcp.extend([(5 + option_words) << 4, segment.flags, 0xfa, 0xf0]);
    // Over a veth pair the checksum is partial, so that what stands there is nothing to go by.
    tcp.extend([0xba, 0xad, 0, 0]);
    tcp.extend(vec![1; usize::from(option_words) * 4]);
    tcp.extend(&segment.payload);
    let mut frame = [GATEWAY_MAC, SERVER_MAC].concat();
    match family {
        Family::V4 => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + tcp.len() as u16).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
        }
        Family::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0x0a, 0xbc, 0xde]);
            frame.extend((tcp.len() as u16).to_be_bytes());
            frame.extend([6, 64]);
        }
    }
    frame.extend(address(family, SERVER));
    frame.extend(address(family, client.0));
    frame.extend(tcp);
    frame
}

fn address(family: Family, low: Ipv4Addr) -> Vec<u8> {
    match family {
        Family::V4 => low.octets().to_vec(),
        Family::V6 => [&[0xfd, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &low.octets()].concat(),
    }
}

/// Takes apart what a client answered. Panics when it is not a sane frame from that client to the server.
pub(crate) fn parse(family: Family, frame: &[u8], client: (Ipv4Addr, u16)) -> Segment {
    assert_eq!(frame[..12], [SERVER_MAC, GATEWAY_MAC].concat(), "from the gateway to the server");
    let (ip, addresses) = match family {
        Family::V4 => (&frame[14..34], 12..20),
        Family::V6 => (&frame[14..54], 8..40),
    };
    let tcp = &frame[14 + ip.len()..];
    match family {
        Family::V4 => {
            assert_eq!((&frame[12..14], ip[0], ip[9]), (&[0x08, 0x00][..], 0x45, 6));
            assert_eq!(
                usize::from(u16::from_be_bytes([ip[2], ip[3]])),
                ip.len() + tcp.len(),
                "IP's length is the frame's"
            );
            assert_eq!(sum(&[ip]), 0xffff, "IP's checksum");
        }
        Family::V6 => {
            assert_eq!((&frame[12..14], ip[0] >> 4, ip[6]), (&[0x86, 0xdd][..], 6, 6));
            assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), tcp.len(), "IP's length is the frame's");
        }
    }
    assert_eq!(ip[addresses.clone()], [address(family, client.0), address(family, SERVER)].concat());
    assert_eq!(tcp[..4], [client.1.to_be_bytes(), SERVER_PORT.to_be_bytes()].concat());
    let pseudo = [[0, 6], (tcp.len() as u16).to_be_bytes()].concat();
    assert_eq!(sum(&[&ip[addresses], &pseudo, tcp]), 0xffff, "TCP's checksum");
    let whole = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    segment(whole(4), whole(8), tcp[13], &tcp[usize::from(tcp[12] >> 4) * 4..])
}

/// One's complement sum of parts, all but the last of an even length. 0xffff where a checksum holds.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + once) as u16
}
