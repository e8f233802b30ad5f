//! The server's process, from outside. It lives as long as its stdin is open: ours, so it cannot outlive us.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::FloorError;
use super::orders::{Answer, Order};

/// The verb under which the program is a server.
pub(super) const SERVER_VERB: &str = "floor-server";

/// How long the process may take to end when its stdin closes, before it is killed.
const FAREWELL: Duration = Duration::from_secs(10);

/// How often its end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    /// `None` once it is told to end.
    stdin: Option<ChildStdin>,
    /// Closed when the server's stdout is.
    answers: Receiver<Answer>,
}

impl Child {
    /// Starts `binary` as a server that waits for its first order.
    pub(super) fn start(binary: &Path) -> Result<Self, FloorError> {
        let failed = |source| FloorError::Start { binary: binary.display().to_string(), source };
        let mut process = Command::new(binary)
            .arg(SERVER_VERB)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C on the terminal is for us: we end the server when we have said what we know of it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let (sender, answers) = channel();
        // Made first, so that whatever fails below, dropping it ends the process.
        let child = Self { process, stdin, answers };
        if let Some(stdout) = stdout {
            let read = move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // What is no answer is somebody's stray print: it is shown and not taken.
                    let Ok(answer) = serde_json::from_str(&line) else {
                        eprintln!("{line}");
                        continue;
                    };
                    if sender.send(answer).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new().name("floor-answers".to_owned()).spawn(read).map_err(failed)?;
        }
        Ok(child)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives `order`; the answer is still to be awaited.
    pub(super) fn tell(&mut self, order: &Order, doing: &'static str) -> Result<(), FloorError> {
        let written = serde_json::to_string(order).map_err(std::io::Error::from).and_then(|line| {
            let stdin = self.stdin.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
            writeln!(stdin, "{line}")
        });
        written.map_err(|_| self.died(doing))
    }

    /// Gives `order` and waits for its answer.
    pub(super) fn ask(&mut self, order: &Order, doing: &'static str, patience: Duration) -> Result<Answer, FloorError> {
        self.tell(order, doing)?;
        match self.answers.recv_timeout(patience) {
            Ok(answer) => sound(answer),
            Err(RecvTimeoutError::Timeout) => Err(FloorError::Silent { doing, seconds: patience.as_secs() }),
            Err(RecvTimeoutError::Disconnected) => Err(self.died(doing)),
        }
    }

    /// The answer to the order before, if it has come.
    pub(super) fn look(&mut self, doing: &'static str) -> Result<Option<Answer>, FloorError> {
        match self.answers.try_recv() {
            Ok(answer) => sound(answer).map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.died(doing)),
        }
    }

    fn died(&mut self, doing: &'static str) -> FloorError {
        let how = self.end().map_or_else(|| "exit status unknown".to_owned(), |status| status.to_string());
        FloorError::Died { doing, how }
    }

    /// Ends the process, by force when it does not end by itself.
    fn end(&mut self) -> Option<ExitStatus> {
        drop(self.stdin.take());
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            match self.process.try_wait() {
                Ok(None) => thread::sleep(LOOK_EVERY),
                Ok(status) => return status,
                Err(_) => break,
            }
        }
        // It may have ended just now; then there is nothing to kill, and the wait below still collects it.
        let _ = self.process.kill();
        self.process.wait().ok()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// The answers after which the server is of no use are errors.
fn sound(answer: Answer) -> Result<Answer, FloorError> {
    match answer {
        Answer::NoRing { words } => Err(FloorError::NoRing(words)),
        Answer::Failed { words } => Err(FloorError::Server(words)),
        other => Ok(other),
    }
}
