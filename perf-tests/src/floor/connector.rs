//! Clients that connect and say nothing, for the floor of accepting.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::FloorError;
use crate::load::engine::EngineError;
use crate::load::engine::socket::begin;
use crate::load::scenario::Scenario;
use crate::sys;

/// How long the kernel may take to connect one client.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

/// Connections, held by the threads that made them until this is dropped.
#[derive(Debug)]
pub(super) struct Connected {
    /// Dropped to let the threads end.
    hold: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// Connects all clients of `scenario`, each thread one after another.
pub(super) fn connect(scenario: &Scenario, threads: usize) -> Result<Connected, FloorError> {
    let mut connected = Connected { hold: Vec::new(), threads: Vec::new() };
    let (done, results) = channel();
    let (clients, count) = (u64::from(scenario.clients), threads as u64);
    for index in 0..count {
        let part = (clients * index / count) as u32..(clients * (index + 1) / count) as u32;
        let (hold, held) = channel();
        let (scenario, done) = (scenario.clone(), done.clone());
        let thread = thread::Builder::new()
            .name(format!("connects-{index}"))
            .spawn(move || hold_some(&scenario, part, &done, &held))
            .map_err(|source| EngineError::Io { doing: "start a client thread", source })?;
        connected.hold.push(hold);
        connected.threads.push(thread);
    }
    for _ in 0..count {
        results.recv().map_err(|_| EngineError::Panicked)??;
    }
    Ok(connected)
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.hold.clear();
        for thread in self.threads.drain(..) {
            // A panic there has been printed by the thread itself.
            let _ = thread.join();
        }
    }
}

fn hold_some(scenario: &Scenario, part: Range<u32>, done: &Sender<Result<(), FloorError>>, held: &Receiver<()>) {
    let mut streams = Vec::with_capacity(part.len());
    let result = sys::unshare_descriptor_table()
        .map_err(|source| EngineError::Io { doing: "get a descriptor table of the thread's own", source }.into())
        .and_then(|()| {
            part.into_iter().try_for_each(|client| {
                let stream = connect_one(scenario, client).map_err(|source| FloorError::Connect { client, source })?;
                streams.push(stream);
                Ok(())
            })
        });
    let connected = result.is_ok();
    // Nobody listens any more when another thread failed first.
    if done.send(result).is_ok() && connected {
        // Ends with an error when the other side is dropped, which is what is waited for.
        let _ = held.recv();
    }
}

fn connect_one(scenario: &Scenario, client: u32) -> io::Result<TcpStream> {
    let stream = begin(scenario, client)?;
    let within = Timespec { tv_sec: CONNECT_WITHIN.as_secs() as i64, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&stream, PollFlags::OUT)], Some(&within))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match stream.take_error()? {
        None => Ok(stream),
        Some(error) => Err(error),
    }
}
