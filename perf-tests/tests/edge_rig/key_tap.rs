//! A relay between edge and tier that reads which keys the edge gives to clients: nobody else is told them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::BytesMut;
use wire::trunk::session_event::Event;
use wire::trunk::{EdgeFrame, decode, edge_frame};

use super::eventually;

/// The newest key of each user.
type Keys = Arc<Mutex<HashMap<i64, String>>>;

/// The relay. Its threads end with the connections that they carry.
pub(crate) struct KeyTap {
    address: SocketAddr,
    keys: Keys,
}

impl KeyTap {
    /// Relays to the tier's trunk.
    pub(crate) fn start(tier: SocketAddr) -> Self {
        let listener = TcpListener::bind((tier.ip(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let keys = Keys::default();
        thread::spawn({
            let keys = Arc::clone(&keys);
            move || {
                for edge in listener.incoming().map_while(Result::ok) {
                    // A tier that is not up yet: the edge sees the end and tries again.
                    let Ok(tier) = TcpStream::connect(tier) else { continue };
                    let (edge_in, tier_in) = (edge.try_clone().unwrap(), tier.try_clone().unwrap());
                    thread::spawn(move || relay(tier_in, edge, |_| ()));
                    let (keys, mut unread) = (Arc::clone(&keys), BytesMut::new());
                    thread::spawn(move || relay(edge_in, tier, |bytes| note(bytes, &mut unread, &keys)));
                }
            }
        });
        Self { address, keys }
    }

    /// Where the edge has to dial.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key of the newest connection of `mid`, once the tier was told.
    pub(crate) fn key_of(&self, mid: i64) -> String {
        eventually("the session's way upstream", || self.keys.lock().unwrap().get(&mid).cloned())
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        see(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Whoever is left hears of the end; it may have gone itself.
    let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn note(bytes: &[u8], unread: &mut BytesMut, keys: &Keys) {
    unread.extend_from_slice(bytes);
    while let Some(frame) = decode::<EdgeFrame>(unread).unwrap() {
        let Some(edge_frame::Body::Sessions(batch)) = frame.body else { continue };
        for event in batch.events {
            if let Some(Event::Joined(joined)) = event.event {
                keys.lock().unwrap().insert(joined.mid, joined.key);
            }
        }
    }
}
