//! Another implementation as the client: what `tungstenite` writes we read, and what we write it reads.

use std::io::{self, ErrorKind, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode as TheirCode;
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};
use wire::websocket::frame::{put_close, put_frame};
use wire::websocket::{CloseCode, Event, Fragments, Limits, MessageKind, Opcode, handshake, next};

const LIMITS: Limits = Limits { message_bytes: 1 << 20, fragments: 16 };

/// Both directions of a connection, in memory: an empty one would block, as a socket would.
#[derive(Debug, Default)]
struct Pipe {
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.to_client.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.to_client.len());
        buffer[..count].copy_from_slice(&self.to_client[..count]);
        self.to_client.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to_server.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any::<String>().prop_map(Message::text),
        vec(any::<u8>(), 0..300).prop_map(Message::binary),
        prop_oneof![124_usize..130, 65_530_usize..65_540].prop_map(|bytes| Message::binary(vec![3; bytes])),
        vec(any::<u8>(), 0..=125).prop_map(|data| Message::Ping(data.into())),
        vec(any::<u8>(), 0..=125).prop_map(|data| Message::Pong(data.into())),
    ]
}

fn as_theirs(event: Event<'_>) -> Message {
    match event {
        Event::Message { kind: MessageKind::Text, data } => {
            Message::text(std::str::from_utf8(data).expect("text has been checked"))
        }
        Event::Message { kind: MessageKind::Binary, data } => Message::binary(data.to_vec()),
        Event::Ping(data) => Message::Ping(data.to_vec().into()),
        Event::Pong(data) => Message::Pong(data.to_vec().into()),
        Event::Close { code, reason } => Message::Close(
            code.map(|code| CloseFrame { code: TheirCode::from(code.get()), reason: reason.to_owned().into() }),
        ),
        Event::Part => panic!("tungstenite sends no fragments by itself"),
    }
}

#[test]
fn it_upgrades_and_closes_with_us() {
    let request = "ws://127.0.0.1:3102/sub?room=1";
    let Err(HandshakeError::Interrupted(mut begun)) = tungstenite::client(request, Pipe::default()) else {
        panic!("the client waits for an answer")
    };
    let pipe = begun.get_mut().get_mut();
    let upgrade = handshake::parse(&pipe.to_server).unwrap().unwrap();
    assert_eq!((upgrade.path, upgrade.query, upgrade.host), ("/sub", "room=1", "127.0.0.1:3102"));
    assert_eq!(upgrade.consumed, pipe.to_server.len());
    let mut answer = Vec::new();
    handshake::put_accept(upgrade.key, None, &mut answer);
    put_close(CloseCode::GOING_AWAY, "drain", &mut answer);
    pipe.to_server.clear();
    pipe.to_client = answer;
    let (mut client, _) = begun.handshake().expect("our answer satisfies it");

    let close = CloseFrame { code: TheirCode::Away, reason: "drain".into() };
    assert_eq!(client.read().unwrap(), Message::Close(Some(close.clone())));
    client.flush().ok();
    let mut answer = client.get_ref().to_server.clone();
    let mut fragments = Fragments::default();
    let (event, _) = next(&mut answer, &mut fragments, &LIMITS).unwrap().unwrap();
    assert_eq!(as_theirs(event), Message::Close(Some(close)));
}

proptest! {
    #[test]
    fn we_read_what_it_writes(messages in vec(message(), 1..6)) {
        let mut client = WebSocket::from_raw_socket(Pipe::default(), Role::Client, None);
        for message in &messages {
            client.send(message.clone()).unwrap();
        }
        let mut stream = client.get_ref().to_server.clone();
        let (mut rest, mut fragments, mut read) = (&mut stream[..], Fragments::default(), Vec::new());
        while let Some((event, consumed)) = next(rest, &mut fragments, &LIMITS).unwrap() {
            read.push(as_theirs(event));
            rest = &mut rest[consumed..];
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn it_reads_what_we_write(messages in vec(message(), 1..6)) {
        let mut pipe = Pipe::default();
        for message in &messages {
            let opcode = match message {
                Message::Text(_) => Opcode::Text,
                Message::Binary(_) => Opcode::Binary,
                Message::Ping(_) => Opcode::Ping,
                _ => Opcode::Pong,
            };
            put_frame(opcode, &message.clone().into_data(), &mut pipe.to_client);
        }
        let mut client = WebSocket::from_raw_socket(pipe, Role::Client, None);
        for message in messages {
            prop_assert_eq!(client.read().unwrap(), message);
        }
    }
}
