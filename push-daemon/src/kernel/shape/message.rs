//! Requests to the kernel's traffic control over netlink: queues, classes, filters.
//!
//! It builds, sends and takes apart messages (rtnetlink(7), `linux/pkt_sched.h`); what they are for is `queue`'s and `hook`'s.

use std::io;

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
        socket_with,
    },
};

use crate::kernel::netlink::{u16_at, u32_at};

pub(super) const NEW_QUEUE: u16 = 36;
pub(super) const DELETE_QUEUE: u16 = 37;
pub(super) const GET_QUEUE: u16 = 38;
pub(super) const NEW_CLASS: u16 = 40;
pub(super) const DELETE_CLASS: u16 = 41;
pub(super) const GET_CLASS: u16 = 42;
pub(super) const NEW_FILTER: u16 = 44;
pub(super) const DELETE_FILTER: u16 = 45;
pub(super) const GET_FILTER: u16 = 46;

pub(super) const REPLACE: u16 = 0x100;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;

pub(super) const KIND: u16 = 1;
pub(super) const OPTIONS: u16 = 2;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const IS_REQUEST: u16 = 1;
const ANSWER: u16 = 4;
const DUMP: u16 = 0x300;
const NESTED: u16 = 0x8000;

const HEADER_BYTES: usize = 16;
const OBJECT_BYTES: usize = 20;
/// The kernel fills at most this much at once.
const ANSWER_BYTES: usize = 64 * 1024;

/// A queue, class or filter: where it stands, and by which numbers (`struct tcmsg`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) interface_index: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    pub(super) info: u32,
}

/// A request in the making.
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    pub(super) fn new(kind: u16, flags: u16, place: Place) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | IS_REQUEST).to_ne_bytes());
        // Family and padding stay 0, as do sequence and port id: one request, its answers, the next one.
        bytes.extend_from_slice(&[0; 4]);
        for number in [place.interface_index, place.handle, place.parent, place.info] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        Self { bytes }
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn kind(self, name: &str) -> Self {
        self.attribute(KIND, &[name.as_bytes(), &[0]].concat())
    }

    /// An attribute that holds the attributes which `fill` adds.
    pub(super) fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self = fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// Has it done, in this thread's network namespace.
    pub(super) fn carry_out(self) -> io::Result<()> {
        self.send(ANSWER).map(drop)
    }

    /// What there is of this kind.
    pub(super) fn list(self) -> io::Result<Vec<Listed>> {
        self.send(DUMP)
    }

    fn send(mut self, flags: u16) -> io::Result<Vec<Listed>> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16_at(&self.bytes, 6).unwrap_or_default() | flags;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        // Protocol 0 of the family is routing, which traffic control belongs to.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        sendto(&socket, &self.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let (mut listed, mut answer) = (Vec::new(), vec![0; ANSWER_BYTES]);
        loop {
            let received = match recv(&socket, answer.as_mut_slice(), RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                received => received?.0,
            };
            if take(&answer[..received.min(ANSWER_BYTES)], &mut listed)? {
                return Ok(listed);
            }
        }
    }
}

/// One of what was listed.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) place: Place,
    pub(super) attributes: Vec<u8>,
}

/// Takes the messages of one answer. True: that was the last.
fn take(mut messages: &[u8], listed: &mut Vec<Listed>) -> io::Result<bool> {
    while let Some(length) = u32_at(messages, 0) {
        let length = length as usize;
        let message = messages.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        match u16_at(message, 4).ok_or(io::ErrorKind::UnexpectedEof)? {
            DONE => return Ok(true),
            ERROR => {
                let code = u32_at(message, HEADER_BYTES).ok_or(io::ErrorKind::UnexpectedEof)? as i32;
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            _ => listed.extend(object(message)),
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn object(message: &[u8]) -> Option<Listed> {
    let number = |at| u32_at(message, HEADER_BYTES + at);
    let place = Place { interface_index: number(4)?, handle: number(8)?, parent: number(12)?, info: number(16)? };
    Some(Listed { place, attributes: message.get(HEADER_BYTES + OBJECT_BYTES..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::find;

    #[test]
    fn attributes_nest_and_are_padded() {
        let request = Request::new(NEW_QUEUE, CREATE, Place { handle: 7, ..Place::default() })
            .kind("htb")
            .nest(OPTIONS, |options| options.attribute(9, &[1, 2, 3, 4]));
        let attributes = &request.bytes[HEADER_BYTES + OBJECT_BYTES..];
        assert_eq!(find(attributes, KIND), Some(&b"htb\0"[..]));
        assert_eq!(find(find(attributes, OPTIONS).unwrap(), 9), Some(&[1, 2, 3, 4][..]));
    }

    #[test]
    fn answers_cut_anywhere_are_no_panic_and_no_endless_loop() {
        let mut answer =
            Request::new(GET_QUEUE, 0, Place { interface_index: 1, handle: 2, parent: 3, info: 4 }).kind("fq").bytes;
        let length = answer.len() as u32;
        answer[0..4].copy_from_slice(&length.to_ne_bytes());
        let mut listed = Vec::new();
        assert!(!take(&answer, &mut listed).unwrap());
        assert_eq!((listed[0].place.handle, find(&listed[0].attributes, KIND)), (2, Some(&b"fq\0"[..])));
        for length in 0..answer.len() {
            let _ = take(&answer[..length], &mut Vec::new());
        }
        assert!(take(&[0; 64], &mut Vec::new()).is_err());
    }
}
