//! Clients that mean it, one after the other, and a server that greets each.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use super::site::{Pair, Site};
use crate::{cpus, netns::Namespace, subject::PORT, sys};

/// Half-open connections that fill the queue.
const BACKLOG: i32 = 128;

/// A client that is not greeted by then has not got in: the time after which a SYN that was lost is sent again, and a little.
const PATIENCE: Duration = Duration::from_millis(1200);

/// Timestamps, SACK and window scaling, as the kernel says that a connection has them.
const ALL_OPTIONS: u8 = 1 | 2 | 4;

/// The listener, whose queue the flood fills. A thread of its own greets all who come, for as long as the bench runs.
pub(super) struct Door(());

/// Who got in.
pub(super) struct Arrivals {
    pub(super) arrived: u32,
    /// Those with window scaling, SACK and timestamps, where both ends agree on the scales.
    pub(super) with_options: u32,
    pub(super) elapsed: Duration,
}

impl Door {
    pub(super) fn open(server: &Namespace) -> Result<Self, String> {
        let failed = |error: rustix::io::Errno| format!("cannot listen behind the filter: {error}");
        let listener = server.run(|| {
            let listener = socket(AddressFamily::INET, SocketType::STREAM, None).map_err(failed)?;
            bind(&listener, &SocketAddr::from(([0, 0, 0, 0], PORT))).map_err(failed)?;
            listen(&listener, BACKLOG).map_err(failed)?;
            Ok::<_, String>(TcpListener::from(listener))
        })?;
        thread::spawn(move || {
            if cpus::pin(None, cpus::WORKER).is_err() {
                return;
            }
            for client in listener.incoming().flatten() {
                // Who has gone needs no greeting.
                let _greeted = greet(client);
            }
        });
        Ok(Self(()))
    }

    /// Has `clients` come one after the other.
    pub(super) fn let_in(&self, site: &Site, pair: Pair, clients: u32) -> Result<Arrivals, String> {
        site.clients().run(|| {
            cpus::pin(None, cpus::WORKER)?;
            let started = Instant::now();
            let mut arrivals = Arrivals { arrived: 0, with_options: 0, elapsed: Duration::ZERO };
            for _ in 0..clients {
                if let Ok(has_all_options) = come(pair.address()) {
                    arrivals.arrived += 1;
                    arrivals.with_options += u32::from(has_all_options);
                }
            }
            arrivals.elapsed = started.elapsed();
            Ok(arrivals)
        })
    }
}

/// With what this end makes of the connection.
fn greet(mut client: TcpStream) -> io::Result<()> {
    let greeting = sys::options_and_scales(&client)?;
    client.write_all(&greeting)
}

/// Says whether both ends have all options, and each scales as the other believes.
fn come(address: SocketAddr) -> io::Result<bool> {
    let mut client = TcpStream::connect_timeout(&address, PATIENCE)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = [0; 2];
    client.read_exact(&mut greeting)?;
    let [options, scales] = sys::options_and_scales(&client)?;
    // One end's scale for what it sends is the other's for what it receives; they are the halves of the byte.
    let agreed = [options & ALL_OPTIONS, scales.rotate_left(4)];
    Ok(options & ALL_OPTIONS == ALL_OPTIONS && [greeting[0] & ALL_OPTIONS, greeting[1]] == agreed)
}
