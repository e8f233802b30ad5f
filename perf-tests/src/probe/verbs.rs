//! What a simulated client can do, whatever carries its packets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire::goim::{self, Header, Packets, op};
use wire::trunk::Dialect;

use super::MAX_SERVER_BODY_BYTES;
use super::auth::AuthRequest;
use super::error::{Closed, ProbeError};

/// How long a verb waits for its reply unless [`Probe::set_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events kept while a verb waits for its own reply. A test that lets more pile up has lost sight of them.
const MAX_KEPT_EVENTS: usize = 1 << 20;

/// A packet that the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Operation of the packet; [`wire::goim::op`] names those of the protocol.
    pub operation: i32,
    /// Format of the body.
    pub version: i16,
    /// The request's in a reply, 0 in a push.
    pub sequence: i32,
    /// What the packet carries.
    pub body: Vec<u8>,
}

impl From<goim::Packet<'_>> for Packet {
    fn from(packet: goim::Packet<'_>) -> Self {
        let Header { version, operation, sequence } = packet.header;
        Self { operation, version, sequence, body: packet.body.to_vec() }
    }
}

impl Packet {
    /// The body as text, with what is no UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Replies have operations of their own, but for 5: there the Bilibili dialect's messages are told from the reply
    /// to a sent message by their sequence of 0.
    fn is_push(&self) -> bool {
        match self.operation {
            op::HEARTBEAT_REPLY | op::AUTH_REPLY | op::CHANGE_ROOM_REPLY | op::SUBSCRIBE_REPLY => false,
            op::UNSUBSCRIBE_REPLY | op::DISCONNECT_REPLY => false,
            op::SEND_MESSAGE_REPLY => self.sequence == 0,
            _ => true,
        }
    }

    /// A reply is a grant when its body is empty or names the code 0.
    fn verdict(self) -> Result<Self, ProbeError> {
        if self.body.is_empty() {
            return Ok(self);
        }
        let body: serde_json::Value = serde_json::from_slice(&self.body)
            .map_err(|_| ProbeError::Protocol(format!("a reply whose body is no JSON: {:?}", self.text())))?;
        match body["code"].as_i64() {
            Some(0) => Ok(self),
            Some(code) => {
                let reason = ["reason", "message"].iter().find_map(|name| body[name].as_str());
                Err(ProbeError::Refused { code, reason: reason.unwrap_or_default().to_owned() })
            }
            None => Err(ProbeError::Protocol(format!("a reply whose body names no code: {:?}", self.text()))),
        }
    }
}

/// What a probe hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A packet.
    Packet(Packet),
    /// The answer to a WebSocket ping.
    Pong(Vec<u8>),
    /// The end; nothing comes after it.
    Closed(Closed),
}

/// What carries a probe's packets.
pub trait Transport: Sized {
    /// Sends whole packets in whatever wraps them on this transport.
    ///
    /// # Errors
    /// [`ProbeError::Closed`] when the server is gone.
    fn send_message(&mut self, packets: &[u8]) -> Result<(), ProbeError>;

    /// Sends bytes as they are, below everything that wraps packets.
    ///
    /// # Errors
    /// [`ProbeError::Closed`] when the server is gone.
    fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ProbeError>;

    /// The next event. `asked` is what the caller gave up to `deadline`, for the message of a time-out.
    ///
    /// # Errors
    /// [`ProbeError::Timeout`] at the deadline; a format error when the server broke the format.
    fn recv(&mut self, deadline: Instant, asked: Duration) -> Result<Event, ProbeError>;

    /// Our end of the connection.
    fn local_address(&self) -> SocketAddr;

    /// Sends a FIN and goes on listening.
    ///
    /// # Errors
    /// [`ProbeError::Io`] when the connection is no more.
    fn finish_sending(&mut self) -> Result<(), ProbeError>;

    /// Ends the connection with a reset.
    ///
    /// # Errors
    /// [`ProbeError::Io`] when the system does not let it.
    fn abort(self) -> Result<(), ProbeError>;
}

/// One simulated client. Dropping it closes the connection with a FIN.
#[derive(Debug)]
pub struct Probe<T> {
    transport: T,
    dialect: Dialect,
    /// Sequence of the last request; replies carry it, so they are told from pushes.
    sequence: i32,
    /// Heard while a verb waited for something else, in order. At most [`MAX_KEPT_EVENTS`].
    kept: VecDeque<Event>,
    /// The rest of a batch whose first packets [`Probe::recv_push`] has handed out.
    batch: VecDeque<Packet>,
    patience: Duration,
}

impl<T: Transport> Probe<T> {
    pub(super) fn over(transport: T) -> Self {
        Self {
            transport,
            dialect: Dialect::Goim,
            sequence: 0,
            kept: VecDeque::new(),
            batch: VecDeque::new(),
            patience: PATIENCE,
        }
    }

    pub(super) fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// How long [`Probe::auth`], [`Probe::heartbeat`] and the like wait for their reply from here on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Our end of the connection.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.transport.local_address()
    }

    /// Says who the client is and waits for the grant.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] with the server's code and reason, [`ProbeError::Closed`] when it just closes.
    pub fn auth(&mut self, request: &AuthRequest) -> Result<(), ProbeError> {
        self.dialect = request.dialect;
        self.ask(op::AUTH, &request.to_body(), op::AUTH_REPLY)?.verdict().map(drop)
    }

    /// Says that the client is alive; the answer is the number of people online in its room.
    ///
    /// # Errors
    /// As the reply goes missing; [`ProbeError::Protocol`] when its body is no u32.
    pub fn heartbeat(&mut self) -> Result<u32, ProbeError> {
        let reply = self.ask(op::HEARTBEAT, b"", op::HEARTBEAT_REPLY)?;
        let body: [u8; 4] = reply.body.as_slice().try_into().map_err(|_| {
            ProbeError::Protocol(format!("a heartbeat reply with a body of {} bytes, not 4", reply.body.len()))
        })?;
        Ok(u32::from_be_bytes(body))
    }

    /// Moves to another room.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] when the server does not let it.
    pub fn change_room(&mut self, room: &str) -> Result<(), ProbeError> {
        self.ask(op::CHANGE_ROOM, room.as_bytes(), op::CHANGE_ROOM_REPLY)?.verdict().map(drop)
    }

    /// Accepts these operations from now on.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] when the server does not let it.
    pub fn subscribe(&mut self, operations: &[i32]) -> Result<(), ProbeError> {
        self.ask(op::SUBSCRIBE, &decimals(operations), op::SUBSCRIBE_REPLY)?.verdict().map(drop)
    }

    /// Accepts these operations no longer.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] when the server does not let it.
    pub fn unsubscribe(&mut self, operations: &[i32]) -> Result<(), ProbeError> {
        self.ask(op::UNSUBSCRIBE, &decimals(operations), op::UNSUBSCRIBE_REPLY)?.verdict().map(drop)
    }

    /// Sends a message to the client's room and waits for what became of it.
    ///
    /// # Errors
    /// [`ProbeError::Refused`] when admission or the bus did not take it.
    pub fn send_message(&mut self, body: &[u8]) -> Result<Packet, ProbeError> {
        self.ask(op::SEND_MESSAGE, body, op::SEND_MESSAGE_REPLY)?.verdict()
    }

    /// Sends a packet and waits for nothing; the sequence it got comes back.
    ///
    /// # Errors
    /// [`ProbeError::Closed`] when the server is gone.
    pub fn send_packet(&mut self, operation: i32, body: &[u8]) -> Result<i32, ProbeError> {
        self.sequence += 1;
        let header = Header { version: 1, operation, sequence: self.sequence };
        let mut packet = Vec::with_capacity(goim::HEADER_BYTES + body.len());
        header.put_packet(body, &mut packet);
        self.transport.send_message(&packet)?;
        Ok(self.sequence)
    }

    /// Sends bytes as they are: below WebSocket frames, without a header.
    ///
    /// # Errors
    /// [`ProbeError::Closed`] when the server is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        self.transport.send_raw(bytes)
    }

    /// Sends bytes as one message: as they are on TCP, one binary frame on WebSocket. For packets made by hand.
    ///
    /// # Errors
    /// [`ProbeError::Closed`] when the server is gone.
    pub fn send_in_message(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        self.transport.send_message(bytes)
    }

    /// The next thing heard, as it came: a batch is one packet of operation 9.
    ///
    /// # Errors
    /// [`ProbeError::Timeout`], or a format error when the server broke the format.
    pub fn recv(&mut self, within: Duration) -> Result<Event, ProbeError> {
        if let Some(packet) = self.batch.pop_front() {
            return Ok(Event::Packet(packet));
        }
        match self.kept.pop_front() {
            Some(event) => Ok(event),
            None => self.transport.recv(Instant::now() + within, within),
        }
    }

    /// The next packet that the server sent of its own accord, batches taken apart. Replies that nobody waits for
    /// any more, and pongs, are passed over.
    ///
    /// # Errors
    /// [`ProbeError::Closed`] at the end, [`ProbeError::Timeout`] when nothing came.
    pub fn recv_push(&mut self, within: Duration) -> Result<Packet, ProbeError> {
        let deadline = Instant::now() + within;
        loop {
            let event = match self.batch.pop_front() {
                Some(packet) => return Ok(packet),
                None => match self.kept.pop_front() {
                    Some(event) => event,
                    None => self.transport.recv(deadline, within)?,
                },
            };
            match event {
                Event::Packet(packet) if packet.operation == op::RAW => {
                    for inner in Packets::new(&packet.body, MAX_SERVER_BODY_BYTES) {
                        self.batch.push_back(inner?.into());
                    }
                }
                Event::Packet(packet) if packet.is_push() => return Ok(packet),
                Event::Packet(_) | Event::Pong(_) => {}
                Event::Closed(how) => return Err(ProbeError::Closed(how)),
            }
        }
    }

    /// Waits for the end and passes over everything before it.
    ///
    /// # Errors
    /// [`ProbeError::Timeout`] when the connection stays open.
    pub fn recv_close(&mut self, within: Duration) -> Result<Closed, ProbeError> {
        let deadline = Instant::now() + within;
        self.batch.clear();
        loop {
            let event = match self.kept.pop_front() {
                Some(event) => event,
                None => self.transport.recv(deadline, within)?,
            };
            if let Event::Closed(how) = event {
                return Ok(how);
            }
        }
    }

    /// Asserts silence: no push for as long as `for_as_long`. Replies do not count.
    ///
    /// # Errors
    /// [`ProbeError::Protocol`] with the push that came, [`ProbeError::Closed`] at an end.
    pub fn expect_no_push(&mut self, for_as_long: Duration) -> Result<(), ProbeError> {
        match self.recv_push(for_as_long) {
            Ok(packet) => Err(ProbeError::Protocol(format!("a push that should not be: {packet:?}"))),
            Err(ProbeError::Timeout { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a FIN and goes on listening: a half-open connection.
    ///
    /// # Errors
    /// [`ProbeError::Io`] when the connection is no more.
    pub fn finish_sending(&mut self) -> Result<(), ProbeError> {
        self.transport.finish_sending()
    }

    /// Ends the connection with a reset.
    ///
    /// # Errors
    /// [`ProbeError::Io`] when the system does not let it.
    pub fn abort(self) -> Result<(), ProbeError> {
        self.transport.abort()
    }

    /// Sends a request and waits for its reply; keeps what else arrives meanwhile.
    fn ask(&mut self, operation: i32, body: &[u8], reply: i32) -> Result<Packet, ProbeError> {
        let sequence = self.send_packet(operation, body)?;
        let deadline = Instant::now() + self.patience;
        // The Bilibili dialect's replies to auth and heartbeat need not carry the sequence; nothing else has their operations.
        let any_sequence = self.dialect == Dialect::Bilibili && reply != op::SEND_MESSAGE_REPLY;
        loop {
            let event = self.transport.recv(deadline, self.patience).map_err(|error| match error {
                ProbeError::Timeout { within, .. } => {
                    ProbeError::Timeout { awaited: format!("the reply {reply} to operation {operation}"), within }
                }
                other => other,
            })?;
            match event {
                Event::Packet(packet) if packet.operation == reply && (any_sequence || packet.sequence == sequence) => {
                    return Ok(packet);
                }
                Event::Packet(packet) if packet.operation == op::DISCONNECT_REPLY => {
                    let text = packet.text();
                    packet.verdict()?;
                    return Err(ProbeError::Protocol(format!("a disconnect that gives no reason: {text:?}")));
                }
                Event::Closed(how) => return Err(ProbeError::Closed(how)),
                other if self.kept.len() < MAX_KEPT_EVENTS => self.kept.push_back(other),
                _ => return Err(ProbeError::Protocol(format!("{MAX_KEPT_EVENTS} events before a reply"))),
            }
        }
    }
}

fn decimals(operations: &[i32]) -> Vec<u8> {
    operations.iter().map(i32::to_string).collect::<Vec<_>>().join(",").into_bytes()
}
