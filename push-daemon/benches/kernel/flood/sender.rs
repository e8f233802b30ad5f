//! The flood: first packets of connections, from many hosts and ports, out of the clients' namespace.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::site::{Site, TO_FILTER, TO_SINK};
use crate::{cpus, netns::Namespace, packets::tcp, sys::frame_socket};

/// Where it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing is sent, but the sender's CPU is as busy: an idle one slows the other down on some machines.
    Nowhere,
    Filter,
    Sink,
}

/// Frames between two looks at the clock.
const BURST: usize = 32;
/// A sender that is so far ahead sleeps.
const NAP: Duration = Duration::from_micros(200);
/// One that is so far behind does not catch up.
const LATE: Duration = Duration::from_millis(10);

/// Sends until it is over, as fast as it can or `pace` packets a second, and says how many.
pub(super) fn flood(clients: &Namespace, target: Target, pace: Option<u64>, over: &AtomicBool) -> Result<u64, String> {
    let interface = match target {
        Target::Nowhere => return spin(over),
        Target::Filter => TO_FILTER,
        Target::Sink => TO_SINK,
    };
    let frames = frames();
    clients.run(|| {
        cpus::pin(None, cpus::OTHER)?;
        let failed = |error: std::io::Error| format!("cannot send a flood out of {interface}: {error}");
        let socket = frame_socket(index_of(interface)?).map_err(failed)?;
        let mut sent = 0;
        let mut due = Instant::now();
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
            if let Some(pace) = pace {
                due += Duration::from_nanos(BURST as u64 * 1_000_000_000 / pace);
                wait_until(&mut due);
            }
        }
        Ok(sent)
    })
}

fn spin(over: &AtomicBool) -> Result<u64, String> {
    cpus::pin(None, cpus::OTHER)?;
    while !over.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    Ok(0)
}

fn wait_until(due: &mut Instant) {
    let now = Instant::now();
    if now > *due + LATE {
        *due = now;
    }
    while let Some(ahead) = due.checked_duration_since(Instant::now()).filter(|ahead| !ahead.is_zero()) {
        if ahead > NAP {
            thread::sleep(ahead - NAP);
        } else {
            std::hint::spin_loop();
        }
    }
}

/// The number of an interface of this thread's network namespace.
pub(crate) fn index_of(interface: &str) -> Result<u32, String> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .and_then(|socket| netdevice::name_to_index(&socket, interface))
        .map_err(|error| format!("cannot look up the interface {interface}: {error}"))
}

/// A frame from each host, by a port of its own, with checksums that the server accepts.
fn frames() -> Vec<Vec<u8>> {
    let ports = 1024..;
    let mut frames: Vec<Vec<u8>> = Site::flooders()
        .zip(ports)
        .map(|(host, port)| {
            let from = SocketAddr::new(IpAddr::from(host), port);
            let mut frame = tcp(&format!("{from} > {}", Site::address())).build();
            fill_checksums(&mut frame);
            frame
        })
        .collect();
    frames.truncate(frames.len() / BURST * BURST);
    frames
}

/// Both checksums of a frame that holds IPv4 without options and TCP.
pub(crate) fn fill_checksums(frame: &mut [u8]) {
    const IP: usize = 14;
    const TCP: usize = IP + 20;
    const PROTOCOL: u32 = 6;
    let ip = !sum(&frame[IP..TCP], 0);
    frame[IP + 10..IP + 12].copy_from_slice(&ip.to_be_bytes());
    let tcp_bytes = (frame.len() - TCP) as u32;
    let addresses = u32::from(sum(&frame[IP + 12..IP + 20], 0));
    let tcp = !sum(&frame[TCP..], addresses + PROTOCOL + tcp_bytes);
    frame[TCP + 16..TCP + 18].copy_from_slice(&tcp.to_be_bytes());
}

/// RFC 1071, of an even number of bytes.
fn sum(bytes: &[u8], more: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u32>() + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
