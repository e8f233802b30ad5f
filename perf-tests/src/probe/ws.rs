//! goim, or the Bilibili dialect, inside WebSocket binary messages.
//!
//! Pings are answered at once; everything else is handed up. A fragmented message is put together, though our server
//! sends none: a probe also speaks to other servers.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use wire::goim::Packets;

use super::error::{Closed, ProbeError};
use super::stream::{ConnectOptions, Fill, Stream};
use super::verbs::{Event, Packet, Probe, Transport};
use super::{MAX_SERVER_BODY_BYTES, WsProbe};
use crate::websocket::{self, opcode};

/// The bytes that a probe sends as the key of its upgrade. A constant, so that a failing test fails again alike.
const NONCE: [u8; 16] = *b"a probe's nonce.";

/// The transport of a [`WsProbe`].
#[derive(Debug)]
pub struct WebSocket {
    stream: Stream,
    /// Packets of a message that are not handed up yet.
    packets: VecDeque<Packet>,
    /// The parts of a message whose last frame has not come, if one is under way. At most [`MAX_SERVER_BODY_BYTES`].
    parts: Option<Vec<u8>>,
    /// Seeds the next mask; counts up.
    masks: u32,
}

impl WsProbe {
    /// Connects and upgrades on `/sub`; the kernel chooses the source.
    ///
    /// # Errors
    /// [`ProbeError::Io`] or [`ProbeError::Timeout`] when the server is not there within ten seconds,
    /// [`ProbeError::Upgrade`] when it answers but opens no WebSocket.
    pub fn connect(to: SocketAddr) -> Result<Self, ProbeError> {
        Self::connect_with(to, &ConnectOptions::default())
    }

    /// Connects from a source address of the test's choice.
    ///
    /// # Errors
    /// As [`WsProbe::connect`], and when the address cannot be bound.
    pub fn connect_from(to: SocketAddr, from: IpAddr) -> Result<Self, ProbeError> {
        Self::connect_with(to, &ConnectOptions::from(from))
    }

    /// Connects and upgrades as `options` say.
    ///
    /// # Errors
    /// As [`WsProbe::connect`].
    pub fn connect_with(to: SocketAddr, options: &ConnectOptions) -> Result<Self, ProbeError> {
        let mut stream = Stream::connect(to, options)?;
        let key = websocket::key(NONCE);
        let request = websocket::request(&to.to_string(), &options.path, &key, &options.extra_headers);
        stream.write(request.as_bytes())?;
        let accept = websocket::accept_of(&key);
        let within = Duration::from_secs(10);
        let deadline = Instant::now() + within;
        let frames_at = loop {
            if let Some(at) = websocket::parse_response(&stream.unread, &accept)? {
                break at;
            }
            if let Fill::Closed(how) = stream.fill(deadline, within, "the answer to the upgrade")? {
                return Err(ProbeError::Closed(how));
            }
        };
        let _ = stream.unread.split_to(frames_at);
        Ok(Probe::over(WebSocket { stream, packets: VecDeque::new(), parts: None, masks: 0 }))
    }

    /// Sends one masked frame of any kind, right or wrong.
    ///
    /// # Errors
    /// [`ProbeError::Closed`] when the server is gone.
    pub fn send_frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) -> Result<(), ProbeError> {
        self.transport_mut().send_frame(fin, opcode, payload)
    }

    /// Sends a ping; its answer comes as [`Event::Pong`].
    ///
    /// # Errors
    /// As [`WsProbe::send_frame`].
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), ProbeError> {
        self.send_frame(true, opcode::PING, payload)
    }

    /// Begins the closing handshake.
    ///
    /// # Errors
    /// As [`WsProbe::send_frame`].
    pub fn send_close(&mut self, code: u16, reason: &str) -> Result<(), ProbeError> {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        self.send_frame(true, opcode::CLOSE, &payload)
    }
}

impl WebSocket {
    fn send_frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) -> Result<(), ProbeError> {
        // Masks need not be unpredictable here: no proxy stands between, and a test wants the same bytes each time.
        self.masks = self.masks.wrapping_add(1);
        let mask = self.masks.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let mut out = Vec::with_capacity(payload.len() + 14);
        websocket::put_frame(fin, opcode, payload, mask, &mut out);
        self.stream.write(&out)
    }

    /// Takes one frame from what has come.
    fn take_frame(&mut self) -> Result<Taken, ProbeError> {
        let Some(frame) = websocket::parse(&self.stream.unread, MAX_SERVER_BODY_BYTES)? else {
            return Ok(Taken::Nothing);
        };
        let (fin, opcode) = (frame.fin, frame.opcode);
        let header_bytes = frame.wire_bytes - frame.payload.len();
        let mut whole = self.stream.unread.split_to(frame.wire_bytes);
        let payload = whole.split_off(header_bytes);
        match opcode {
            opcode::PING => self.send_frame(true, opcode::PONG, &payload)?,
            opcode::PONG => return Ok(Taken::Event(Event::Pong(payload.to_vec()))),
            opcode::CLOSE => {
                let (code, reason) = websocket::close_reason(&payload);
                return Ok(Taken::Event(Event::Closed(Closed::WebSocket { code, reason })));
            }
            opcode::BINARY | opcode::CONTINUATION => {
                if (opcode == opcode::CONTINUATION) != self.parts.is_some() {
                    return Err(ProbeError::Protocol("a message's frames do not follow one another".to_owned()));
                }
                let parts = self.parts.get_or_insert_default();
                if parts.len() + payload.len() > MAX_SERVER_BODY_BYTES {
                    return Err(ProbeError::Protocol(format!("a message over {MAX_SERVER_BODY_BYTES} bytes")));
                }
                parts.extend_from_slice(&payload);
                if fin {
                    self.finish_message()?;
                }
            }
            other => return Err(ProbeError::Protocol(format!("a frame of opcode {other}"))),
        }
        Ok(Taken::Frame)
    }

    fn finish_message(&mut self) -> Result<(), ProbeError> {
        let message = self.parts.take().unwrap_or_default();
        let mut packets = Packets::new(&message, MAX_SERVER_BODY_BYTES);
        for packet in packets.by_ref() {
            self.packets.push_back(packet?.into());
        }
        match packets.rest().len() {
            0 => Ok(()),
            rest => Err(ProbeError::Protocol(format!("a message ends {rest} bytes into a packet"))),
        }
    }
}

enum Taken {
    /// There is no whole frame.
    Nothing,
    /// A frame that needs no telling, or whose packets now wait in `packets`.
    Frame,
    /// A frame that is an event of its own.
    Event(Event),
}

impl Transport for WebSocket {
    fn send_message(&mut self, packets: &[u8]) -> Result<(), ProbeError> {
        self.send_frame(true, opcode::BINARY, packets)
    }

    fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        self.stream.write(bytes)
    }

    fn recv(&mut self, deadline: Instant, asked: Duration) -> Result<Event, ProbeError> {
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return Ok(Event::Packet(packet));
            }
            match self.take_frame()? {
                Taken::Event(event) => return Ok(event),
                Taken::Frame => {}
                Taken::Nothing => {
                    if let Fill::Closed(how) = self.stream.fill(deadline, asked, "a packet")? {
                        return Ok(Event::Closed(how));
                    }
                }
            }
        }
    }

    fn local_address(&self) -> SocketAddr {
        self.stream.local_address()
    }

    fn finish_sending(&mut self) -> Result<(), ProbeError> {
        self.stream.finish_sending()
    }

    fn abort(self) -> Result<(), ProbeError> {
        self.stream.abort()
    }
}
