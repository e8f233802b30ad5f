//! Carries what the programs log to our own log. A thread of its own waits for it: there is none of it unless the config asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aya_log::EbpfLogger;
use log::Log;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::KernelError;

/// How soon the thread sees that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Carries while it lives.
pub(super) struct Tracer {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tracer {
    pub(super) fn start(mut logger: EbpfLogger<&'static dyn Log>) -> Result<Self, KernelError> {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let carry = move || {
            let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.as_nanos() as i64 };
            while !ends.load(Ordering::Relaxed) {
                // An interrupted wait is a short one.
                let _ = poll(&mut [PollFd::new(&logger, PollFlags::IN)], Some(&timeout));
                logger.flush();
            }
        };
        let thread = thread::Builder::new().name("kernel-trace".into()).spawn(carry);
        let thread =
            thread.map_err(|error| KernelError::system("start a thread for the log of the programs", error))?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported where it happened.
            let _ = thread.join();
        }
    }
}
