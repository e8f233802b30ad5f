//! Frames for the packet tests, built from a line that reads like one of tcpdump's: `"203.0.113.9:4000 > 10.0.0.1:3101"`.
//!
//! A builder starts from a sane TCP SYN and is then bent. It computes no checksums: the filter reads none.
#![allow(dead_code)] // Each test file uses its own part of this module.

use std::net::{IpAddr, SocketAddr};

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;

/// A frame in the making.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    vlan_tags: Vec<[u8; 4]>,
    ethertype: u16,
    is_v4: bool,
    /// The IP header, options and extension headers included.
    ip: Vec<u8>,
    /// Type of the first thing behind the IP header; the last extension header, or the header, carries it.
    next_at: usize,
    transport: Vec<u8>,
    length: Option<u16>,
    keep: Option<usize>,
}

/// A TCP SYN over IPv4 or IPv6, as the addresses say.
pub(crate) fn tcp(line: &str) -> Frame {
    let (from, to) = line.split_once(" > ").unwrap();
    syn(from.parse().unwrap(), to.parse().unwrap())
}

/// A TCP SYN from an address to a port of ours.
pub(crate) fn syn_from(source: IpAddr, port: u16) -> Frame {
    let server = if source.is_ipv4() { "10.0.0.1" } else { "2001:db8:ffff::1" };
    syn(SocketAddr::new(source, 4000), SocketAddr::new(server.parse().unwrap(), port))
}

fn syn(from: SocketAddr, to: SocketAddr) -> Frame {
    let mut transport = vec![0; 20];
    transport[0..2].copy_from_slice(&from.port().to_be_bytes());
    transport[2..4].copy_from_slice(&to.port().to_be_bytes());
    transport[12] = 5 << 4;
    transport[13] = 0x02;
    let (ethertype, ip, next_at) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = vec![0; IPV4_BYTES];
            ip[0] = 0x45;
            ip[8] = 64;
            ip[9] = 6;
            ip[12..16].copy_from_slice(&from.octets());
            ip[16..20].copy_from_slice(&to.octets());
            (0x0800, ip, 9)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut ip = vec![0; IPV6_BYTES];
            ip[0] = 0x60;
            ip[6] = 6;
            ip[7] = 64;
            ip[8..24].copy_from_slice(&from.octets());
            ip[24..40].copy_from_slice(&to.octets());
            (0x86dd, ip, 6)
        }
        _ => panic!("both addresses are of one family"),
    };
    Frame { vlan_tags: Vec::new(), ethertype, is_v4: from.is_ipv4(), ip, next_at, transport, length: None, keep: None }
}

impl Frame {
    pub(crate) fn vlan(mut self, protocol: u16, id: u16) -> Self {
        let [a, b] = protocol.to_be_bytes();
        let [c, d] = id.to_be_bytes();
        self.vlan_tags.push([a, b, c, d]);
        self
    }

    pub(crate) fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = ethertype;
        self
    }

    /// IPv4 options of `words` times four bytes.
    pub(crate) fn options(mut self, words: u8) -> Self {
        self.ip.resize(IPV4_BYTES + usize::from(words) * 4, 1);
        self.ip[0] = 0x40 | (5 + words);
        self
    }

    pub(crate) fn ip_byte(mut self, at: usize, value: u8) -> Self {
        self.ip[at] = value;
        self
    }

    pub(crate) fn tcp_byte(mut self, at: usize, value: u8) -> Self {
        self.transport[at] = value;
        self
    }

    /// Another protocol than TCP behind the headers.
    pub(crate) fn protocol(mut self, protocol: u8) -> Self {
        self.ip[self.next_at] = protocol;
        self
    }

    /// What the IP header says of the length, instead of the truth.
    pub(crate) fn length(mut self, length: u16) -> Self {
        self.length = Some(length);
        self
    }

    pub(crate) fn payload(mut self, bytes: usize) -> Self {
        self.transport.resize(self.transport.len() + bytes, 0xaa);
        self
    }

    /// TCP cut to `bytes` in the packet itself, its length told truly.
    pub(crate) fn tcp_cut_to(mut self, bytes: usize) -> Self {
        self.transport.truncate(bytes);
        self
    }

    /// The frame cut to `bytes`, whatever the headers say.
    pub(crate) fn frame_cut_to(mut self, bytes: usize) -> Self {
        self.keep = Some(bytes);
        self
    }

    /// As many bytes of IPv6 extension header `kind` as `units` of 8 behind the first say; the AH counts otherwise, see `authentication`.
    pub(crate) fn extension(self, kind: u8, units: u8) -> Self {
        let bytes = (usize::from(units) + 1) * 8;
        self.extension_of(kind, units, bytes)
    }

    /// An authentication header of 24 bytes, which counts in words of 4, less 2.
    pub(crate) fn authentication(self) -> Self {
        self.extension_of(51, 4, 24)
    }

    fn extension_of(mut self, kind: u8, length: u8, bytes: usize) -> Self {
        let next = self.ip[self.next_at];
        self.ip[self.next_at] = kind;
        self.next_at = self.ip.len();
        self.ip.extend_from_slice(&[next, length]);
        self.ip.resize(self.next_at + bytes, 0);
        self
    }

    /// A fragment that begins `offset` bytes into the original, with more to come or not.
    pub(crate) fn fragment(mut self, offset: u16, more: bool) -> Self {
        if self.is_v4 {
            let field = (offset / 8) | if more { 0x2000 } else { 0 };
            self.ip[6..8].copy_from_slice(&field.to_be_bytes());
            return self;
        }
        self = self.extension_of(44, 0, 8);
        let field = offset | u16::from(more);
        let at = self.next_at + 2;
        self.ip[at..at + 2].copy_from_slice(&field.to_be_bytes());
        self
    }

    /// The bytes on the wire.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut ip = self.ip.clone();
        if self.is_v4 {
            let total = self.length.unwrap_or((ip.len() + self.transport.len()) as u16);
            ip[2..4].copy_from_slice(&total.to_be_bytes());
        } else {
            let payload = self.length.unwrap_or((ip.len() - IPV6_BYTES + self.transport.len()) as u16);
            ip[4..6].copy_from_slice(&payload.to_be_bytes());
        }
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.vlan_tags {
            bytes.extend_from_slice(tag);
        }
        bytes.extend_from_slice(&self.ethertype.to_be_bytes());
        bytes.extend_from_slice(&ip);
        bytes.extend_from_slice(&self.transport);
        if let Some(keep) = self.keep {
            bytes.truncate(keep);
        }
        bytes
    }
}
