//! One client on any path: plain TCP or WebSocket, goim's dialect or Bilibili's.

use std::fmt;
use std::time::{Duration, Instant};

use perf_tests::probe::daemons::Stack;
use perf_tests::probe::{AuthRequest, Closed, ConnectOptions, Event, Packet, ProbeError, TcpProbe, WsProbe};
use wire::goim::Header;
use wire::trunk::Dialect;

use super::SOON;

/// What carries a client's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    WebSocket,
}

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) over: Over,
    pub(crate) dialect: Dialect,
}

/// All ways in.
pub(crate) const EVERY_PATH: [Path; 4] = [
    Path { over: Over::Tcp, dialect: Dialect::Goim },
    Path { over: Over::WebSocket, dialect: Dialect::Goim },
    Path { over: Over::Tcp, dialect: Dialect::Bilibili },
    Path { over: Over::WebSocket, dialect: Dialect::Bilibili },
];

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {:?}", self.dialect, self.over)
    }
}

impl Path {
    pub(crate) fn is_bilibili(self) -> bool {
        self.dialect == Dialect::Bilibili
    }

    /// What a client of this path says to get into `live://ROOM`.
    pub(crate) fn request(self, mid: i64, room: u64) -> AuthRequest {
        match self.dialect {
            Dialect::Goim => AuthRequest::goim(mid, &format!("live://{room}")),
            Dialect::Bilibili => AuthRequest::bilibili(mid, room),
        }
    }

    /// Operation and version under which a push of `operation` arrives.
    pub(crate) fn heard_as(self, operation: i32) -> (i32, i16) {
        if self.is_bilibili() { (wire::goim::op::SEND_MESSAGE_REPLY, 0) } else { (operation, 1) }
    }
}

/// A whole packet.
pub(crate) fn packet(version: i16, operation: i32, sequence: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Header { version, operation, sequence }.put_packet(body, &mut out);
    out
}

/// A probe on either transport.
pub(crate) enum Client {
    Tcp(TcpProbe),
    WebSocket(WsProbe),
}

macro_rules! probe {
    ($client:expr, $probe:ident => $does:expr) => {
        match $client {
            Client::Tcp($probe) => $does,
            Client::WebSocket($probe) => $does,
        }
    };
}

impl Client {
    /// Connected, and on WebSocket upgraded; not authenticated.
    pub(crate) fn connect(stack: &Stack, over: Over) -> Self {
        Self::connect_with(stack, over, &ConnectOptions::default())
    }

    pub(crate) fn connect_with(stack: &Stack, over: Over, options: &ConnectOptions) -> Self {
        let mut client = match over {
            Over::Tcp => Self::Tcp(TcpProbe::connect_with(stack.addresses().tcp, options).unwrap()),
            Over::WebSocket => Self::WebSocket(WsProbe::connect_with(stack.addresses().websocket, options).unwrap()),
        };
        probe!(&mut client, probe => probe.set_patience(SOON));
        client
    }

    /// In.
    pub(crate) fn join(stack: &Stack, over: Over, request: &AuthRequest) -> Self {
        let mut client = Self::connect(stack, over);
        client.auth(request).unwrap();
        client
    }

    /// In, in `live://ROOM`, as nobody in particular.
    pub(crate) fn in_room(stack: &Stack, path: Path, room: u64) -> Self {
        Self::join(stack, path.over, &path.request(0, room))
    }

    /// In the room, with a receive buffer of the least size: it soon holds the server up when it does not read.
    pub(crate) fn slow_in_room(stack: &Stack, path: Path, room: u64) -> Self {
        let options = ConnectOptions { receive_buffer_bytes: Some(4096), ..ConnectOptions::default() };
        let mut client = Self::connect_with(stack, path.over, &options);
        client.auth(&path.request(0, room)).unwrap();
        client
    }

    pub(crate) fn auth(&mut self, request: &AuthRequest) -> Result<(), ProbeError> {
        probe!(self, probe => probe.auth(request))
    }

    pub(crate) fn heartbeat(&mut self) -> u32 {
        probe!(self, probe => probe.heartbeat()).unwrap()
    }

    pub(crate) fn change_room(&mut self, room: &str) -> Result<(), ProbeError> {
        probe!(self, probe => probe.change_room(room))
    }

    pub(crate) fn subscribe(&mut self, operations: &[i32]) -> Result<(), ProbeError> {
        probe!(self, probe => probe.subscribe(operations))
    }

    pub(crate) fn unsubscribe(&mut self, operations: &[i32]) -> Result<(), ProbeError> {
        probe!(self, probe => probe.unsubscribe(operations))
    }

    pub(crate) fn send_message(&mut self, body: &[u8]) -> Result<Packet, ProbeError> {
        probe!(self, probe => probe.send_message(body))
    }

    pub(crate) fn send_packet(&mut self, operation: i32, body: &[u8]) -> Result<i32, ProbeError> {
        probe!(self, probe => probe.send_packet(operation, body))
    }

    /// Sends bytes below everything that wraps packets. `false`: the server has ended the connection.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> bool {
        match probe!(self, probe => probe.send_raw(bytes)) {
            Ok(()) => true,
            Err(ProbeError::Closed(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends packets in one message: one binary frame on WebSocket. `false`: the server has ended the connection.
    pub(crate) fn send_in_message(&mut self, packets: &[u8]) -> bool {
        match probe!(self, probe => probe.send_in_message(packets)) {
            Ok(()) => true,
            Err(ProbeError::Closed(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends one packet and gives the next that comes back: for replies that are judged field by field.
    pub(crate) fn ask(&mut self, version: i16, operation: i32, sequence: i32, body: &[u8]) -> Packet {
        assert!(self.send_in_message(&packet(version, operation, sequence, body)));
        self.next_packet()
    }

    /// The next event, as it came.
    pub(crate) fn recv(&mut self) -> Event {
        probe!(self, probe => probe.recv(SOON)).unwrap()
    }

    /// What came within a moment, if anything: paces a client that sends a little at a time.
    pub(crate) fn recv_within(&mut self, within: Duration) -> Option<Event> {
        match probe!(self, probe => probe.recv(within)) {
            Ok(event) => Some(event),
            Err(ProbeError::Timeout { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next event, which is a packet.
    pub(crate) fn next_packet(&mut self) -> Packet {
        match self.recv() {
            Event::Packet(packet) => packet,
            other => panic!("{other:?} instead of a packet"),
        }
    }

    /// The next packet, or those of the next batch.
    pub(crate) fn next_packets(&mut self) -> Vec<Packet> {
        let packet = self.next_packet();
        if packet.operation != wire::goim::op::RAW {
            return vec![packet];
        }
        wire::goim::Packets::new(&packet.body, usize::MAX).map(|inner| inner.unwrap().into()).collect()
    }

    /// The next push, batches taken apart.
    pub(crate) fn push(&mut self) -> Packet {
        probe!(self, probe => probe.recv_push(SOON)).unwrap()
    }

    /// The body of the next push.
    pub(crate) fn hears(&mut self) -> String {
        self.push().text()
    }

    /// The code and the words of the goodbye, and how the connection ended behind it.
    pub(crate) fn goodbye(&mut self) -> (i64, String, Closed) {
        let goodbye = loop {
            match self.recv() {
                Event::Packet(packet) if packet.operation == wire::goim::op::DISCONNECT_REPLY => break packet,
                Event::Packet(_) | Event::Pong(_) => {}
                Event::Closed(how) => panic!("no goodbye before the end: {how}"),
            }
        };
        let body: serde_json::Value = serde_json::from_slice(&goodbye.body).unwrap();
        let Event::Closed(how) = self.recv() else { panic!("something came behind the goodbye") };
        (body["code"].as_i64().unwrap(), body["message"].as_str().unwrap().to_owned(), how)
    }

    /// Everything up to the end, and how that was.
    pub(crate) fn until_the_end(&mut self) -> (Vec<Packet>, Closed) {
        let (mut packets, deadline) = (Vec::new(), Instant::now() + SOON);
        loop {
            match self.recv() {
                Event::Packet(packet) => packets.push(packet),
                Event::Pong(_) => {}
                Event::Closed(how) => return (packets, how),
            }
            assert!(Instant::now() < deadline, "no end after {} packets", packets.len());
        }
    }

    pub(crate) fn finish_sending(&mut self) {
        probe!(self, probe => probe.finish_sending()).unwrap();
    }

    /// Ends the connection with a reset.
    pub(crate) fn abort(self) {
        probe!(self, probe => probe.abort()).unwrap();
    }

    pub(crate) fn websocket(&mut self) -> &mut WsProbe {
        match self {
            Self::WebSocket(probe) => probe,
            Self::Tcp(_) => panic!("a test of WebSocket frames on plain TCP"),
        }
    }
}
