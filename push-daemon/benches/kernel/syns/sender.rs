//! The flood: SYNs as Linux sends them, from sources that nobody has.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::site::Pair;
use crate::{
    cpus,
    flood::sender::{fill_checksums, index_of},
    netns::Namespace,
    packets::tcp,
    sys::frame_socket,
};

/// Frames between two looks at the clock.
const BURST: usize = 32;

/// Sources, each with a port of its own: more than any queue holds.
const SOURCES: u32 = 8192;
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// MSS 1460, SACK permitted, timestamps, padding, window scale 7.
const OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];

/// What was sent.
pub(super) struct Flood {
    pub(super) sent: u64,
    elapsed: Duration,
}

impl Flood {
    pub(super) fn ns_per_syn(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.sent as f64
    }
}

/// Sends as fast as it can until it is over.
pub(super) fn send(clients: &Namespace, pair: Pair, over: &AtomicBool) -> Result<Flood, String> {
    let frames = frames(pair.address());
    let interface = pair.clients_end();
    clients.run(|| {
        cpus::pin(None, cpus::OTHER)?;
        let failed = |error: std::io::Error| format!("cannot send a flood out of {interface}: {error}");
        let socket = frame_socket(index_of(interface)?).map_err(failed)?;
        let started = Instant::now();
        let mut sent = 0;
        for burst in frames.chunks_exact(BURST).cycle() {
            if over.load(Ordering::Relaxed) {
                break;
            }
            for frame in burst {
                match socket.send(frame) {
                    Ok(_) => sent += 1,
                    // The queue at the other end is full, which is a loss like any other.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => sent += 1,
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(Flood { sent, elapsed: started.elapsed() })
    })
}

fn frames(to: SocketAddr) -> Vec<Vec<u8>> {
    const TCP: usize = 14 + 20;
    const HEADER_WORDS: u8 = 10;
    let frame = |number: u32| {
        let source = IpAddr::from(Ipv4Addr::from(u32::from(FIRST_SOURCE) + number));
        let from = SocketAddr::new(source, 1024 + number as u16);
        let mut frame = tcp(&format!("{from} > {to}")).tcp_byte(12, HEADER_WORDS << 4).payload(OPTIONS.len()).build();
        frame[TCP + 20..].copy_from_slice(&OPTIONS);
        fill_checksums(&mut frame);
        frame
    };
    (0..SOURCES).map(frame).collect()
}
