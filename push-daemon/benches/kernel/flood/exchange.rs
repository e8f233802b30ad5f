//! A request and its answer over TCP, one at a time, client and server on the same CPU.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::site::Site;
use crate::cpus;

/// Bytes of a request, and of an answer.
const BYTES: usize = 64;

/// Without an answer for so long the connection is dead, not slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// The client's end of one connection. The server's ends with it.
pub(super) struct Exchange {
    client: TcpStream,
}

impl Exchange {
    /// Connects, through the filter.
    pub(super) fn start(site: &Site) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot connect through the filter: {error}");
        let listener = site.server().run(|| TcpListener::bind(Site::address())).map_err(failed)?;
        let client = site.clients().run(|| TcpStream::connect_timeout(&Site::address(), PATIENCE)).map_err(failed)?;
        let (server, _) = listener.accept().map_err(failed)?;
        for end in [&client, &server] {
            end.set_nodelay(true).and_then(|()| end.set_read_timeout(Some(PATIENCE))).map_err(failed)?;
        }
        // The listener lives on in there: without it the flood would meet a closed port.
        thread::spawn(move || answer(server, listener));
        Ok(Self { client })
    }

    /// Exchanges a second, over `time`.
    pub(super) fn rate(&mut self, time: Duration) -> Result<f64, String> {
        cpus::pin(None, cpus::WORKER)?;
        let started = Instant::now();
        let mut exchanges = 0_u32;
        let mut buffer = [0; BYTES];
        while started.elapsed() < time {
            self.client
                .write_all(&buffer)
                .and_then(|()| self.client.read_exact(&mut buffer))
                .map_err(|error| format!("the exchange under the flood ended: {error}"))?;
            exchanges += 1;
        }
        Ok(f64::from(exchanges) / started.elapsed().as_secs_f64())
    }
}

fn answer(mut server: TcpStream, _listener: TcpListener) {
    if cpus::pin(None, cpus::WORKER).is_err() {
        return;
    }
    let mut buffer = [0; BYTES];
    // Ends with the client; in its pauses it waits on.
    loop {
        match server.read_exact(&mut buffer).and_then(|()| server.write_all(&buffer)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
