//! The tier's end of the trunk: it lets everybody in, and pushes what the test wants pushed.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::{Bytes, BytesMut};
use wire::goim::Header;
use wire::trunk::auth_result::Outcome;
use wire::trunk::batch::Target;
use wire::trunk::session_event::Event;
use wire::trunk::{
    AuthResult, Batch, EdgeFrame, Granted, Position, Push, TierFrame, Welcome, decode, edge_frame, encode, tier_frame,
};

use super::eventually;

/// A tier of one partition. Its threads end with the edge's lines, or with the process.
pub(crate) struct Tier {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    line: Option<TcpStream>,
    /// Plain TCP and WebSocket, as the edge says.
    ports: Option<(u16, u16)>,
    /// The key that the edge made for each user.
    keys: HashMap<i64, String>,
    offset: u64,
}

impl Tier {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::Builder::new()
            .name("tier".to_owned())
            .spawn(move || {
                for line in listener.incoming().map_while(Result::ok) {
                    serve(line, &shared);
                }
            })
            .unwrap();
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the edge listens, once it has said so: plain TCP and WebSocket.
    pub(crate) fn ports(&self) -> (u16, u16) {
        eventually("the edge's hello", || self.state.lock().unwrap().ports)
    }

    /// The key of the user's connection, once the edge has told of it.
    pub(crate) fn key_of(&self, mid: i64) -> String {
        eventually("the edge's news of a session", || self.state.lock().unwrap().keys.get(&mid).cloned())
    }

    /// Pushes one packet of operation 1000 for each body to each target, all in one frame.
    pub(crate) fn push(&self, targets: &[Target], bodies: &[&[u8]]) {
        let mut state = self.state.lock().unwrap();
        let previous = state.offset;
        let batches = targets.iter().map(|target| {
            let mut packets = Vec::new();
            for body in bodies {
                Header { version: 1, operation: 1000, sequence: 0 }.put_packet(body, &mut packets);
            }
            let first = state.offset + 1;
            state.offset += bodies.len() as u64;
            let offsets = (first..=state.offset).collect();
            Batch { target: Some(target.clone()), offsets, packets: Bytes::from(packets) }
        });
        let batches = batches.collect();
        let push = Push { partition: 0, previous, last: state.offset, batches };
        state.tell(tier_frame::Body::Push(push));
    }
}

impl State {
    fn tell(&mut self, body: tier_frame::Body) {
        if let Some(line) = &mut self.line {
            // A line that has ended is the edge's to open again.
            let _gone = line.write_all(&encode(&TierFrame { body: Some(body) }));
        }
    }
}

/// One line, to its end.
fn serve(mut line: TcpStream, state: &Mutex<State>) {
    let mut unread = BytesMut::with_capacity(64 << 10);
    let mut scratch = [0; 16 << 10];
    while let Ok(count @ 1..) = line.read(&mut scratch) {
        unread.extend_from_slice(&scratch[..count]);
        while let Some(frame) = decode::<EdgeFrame>(&mut unread).unwrap() {
            match frame.body {
                Some(edge_frame::Body::Hello(hello)) => {
                    let mut state = state.lock().unwrap();
                    state.line = Some(line.try_clone().unwrap());
                    let positions = vec![Position { partition: 0, offset: state.offset }];
                    // An edge that is stopped for a while must not take the line for dead.
                    let welcome = Welcome { bus: 1, positions, ping_interval_ms: 60_000, last_chat: 0 };
                    state.tell(tier_frame::Body::Welcome(welcome));
                    let address = hello.address.unwrap();
                    state.ports = Some((address.tcp_port as u16, address.ws_port as u16));
                }
                Some(edge_frame::Body::Auth(auth)) => {
                    let granted =
                        Granted { mid: auth.mid, room: auth.room, accepts: auth.accepts, ..Granted::default() };
                    let result = AuthResult { id: auth.id, outcome: Some(Outcome::Granted(granted)) };
                    state.lock().unwrap().tell(tier_frame::Body::Auth(result));
                }
                Some(edge_frame::Body::Sessions(batch)) => {
                    for event in batch.events {
                        if let Some(Event::Joined(joined)) = event.event {
                            state.lock().unwrap().keys.insert(joined.mid, joined.key);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}
