//! One line of the trunk: a TCP connection to a logic tier that is opened again whenever it ends.
//!
//! It speaks frames and knows the handshake and the pings; what a frame means is the hub's business. After a
//! gap, a cut or a refusal it starts again from the arbiter's position, and the tier replays from there.

use std::sync::Arc;
use std::time::Duration;

use crate::sys::tell_of_received;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use wire::trunk::{EdgeFrame, Hello, Ping, TierFrame, Welcome, decode, edge_frame, encode, tier_frame};

/// First pause before a line is opened again; it doubles up to `reconnect_max_ms`.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for a connection and for the tier's welcome.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames that may wait for the socket; then the hub waits.
const WRITE_QUEUE: usize = 256;

/// Space for one read; a frame that is longer grows the buffer up to the format's limit.
const READ_BYTES: usize = 64 * 1024;

/// While frames gather, the socket wakes nobody for less than this.
const GATHERED_BYTES: i32 = 64 * 1024;

/// Longest batch of frames whose memory is kept for the next.
const KEPT_BYTES: usize = 16 * 1024;

/// Up to this part more of a pause, so that the edges of a tier that restarts do not come back all at once.
const JITTER: f64 = 0.3;

/// A tier that reads nothing for this long has its line ended.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How a line takes its time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Longest pause between two attempts to open it.
    pub(crate) reconnect_max: Duration,
    /// How long frames gather after others were read.
    pub(crate) gather: Duration,
}

/// What a line has to say to the hub.
#[derive(Debug)]
pub(crate) enum LineEvent {
    /// Asks for the hello to open with: positions may have moved since the last time.
    Opening(oneshot::Sender<Hello>),
    /// Welcomed; frames for the tier go to this sender.
    Up(Welcome, LineSender),
    /// What the tier sent, in order: the frames that one read has completed. Never empty.
    Frames(Vec<tier_frame::Body>),
    /// Ended, or did not open.
    Down {
        /// For the log.
        reason: String,
        /// The tier will not have this edge, which somebody has to mend.
        refused: bool,
    },
}

/// A way to send to the tier over one line.
#[derive(Debug, Clone)]
pub(crate) struct LineSender {
    frames: mpsc::Sender<Bytes>,
    hang_up: Arc<tokio::sync::Notify>,
}

impl LineSender {
    /// Sends a frame; waits while the socket is behind. False when the line has ended, or ends now because the
    /// tier does not read.
    pub(crate) async fn send(&self, body: edge_frame::Body) -> bool {
        match timeout(SEND_TIMEOUT, self.frames.send(encode(&EdgeFrame { body: Some(body) }))).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                self.hang_up();
                false
            }
        }
    }

    /// Ends the line, which then opens again from the arbiter's position.
    pub(crate) fn hang_up(&self) {
        self.hang_up.notify_one();
    }
}

#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: std::io::Error },
    #[error("no answer from {0} in {OPEN_TIMEOUT:?}")]
    Silent(String),
    #[error("the tier refused this edge: {0}")]
    Refused(String),
    #[error("the tier said something else than a welcome first")]
    NotWelcome,
    #[error("the tier closed the line")]
    Closed,
    #[error("the tier said nothing for {0:?}")]
    Dead(Duration),
    #[error("the line broke: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] wire::trunk::FrameError),
    #[error("the edge ended the line to start it again from its position")]
    HungUp,
    #[error("the edge is going down")]
    Stopping,
}

/// Keeps a line to `address` open until the hub is gone. Everything it has to say goes to `events`, by `index`.
pub(crate) async fn run(index: usize, address: String, pace: Pace, events: mpsc::Sender<(usize, LineEvent)>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut welcomed = false;
        let error = match open_and_serve(index, &address, pace.gather, &events, &mut welcomed).await {
            LineError::Stopping => return,
            error => error,
        };
        let down = LineEvent::Down { reason: error.to_string(), refused: matches!(error, LineError::Refused(_)) };
        if events.send((index, down)).await.is_err() {
            return;
        }
        if welcomed {
            pause = FIRST_PAUSE;
        }
        tokio::time::sleep(with_jitter(pause)).await;
        pause = (pause * 2).min(pace.reconnect_max);
    }
}

async fn open_and_serve(
    index: usize,
    address: &str,
    gather: Duration,
    events: &mpsc::Sender<(usize, LineEvent)>,
    welcomed: &mut bool,
) -> LineError {
    let (hello_to, hello) = oneshot::channel();
    if events.send((index, LineEvent::Opening(hello_to))).await.is_err() {
        return LineError::Stopping;
    }
    let Ok(hello) = hello.await else { return LineError::Stopping };
    let opened = timeout(OPEN_TIMEOUT, open(address, hello)).await;
    let (welcome, reader, writer) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return error,
        Err(_) => return LineError::Silent(address.to_owned()),
    };
    *welcomed = true;
    let ping_interval = Duration::from_millis(u64::from(welcome.ping_interval_ms.max(100)));
    let (frames, queue) = mpsc::channel(WRITE_QUEUE);
    let hang_up = Arc::new(tokio::sync::Notify::new());
    let sender = LineSender { frames, hang_up: Arc::clone(&hang_up) };
    if events.send((index, LineEvent::Up(welcome, sender))).await.is_err() {
        return LineError::Stopping;
    }
    tokio::select! {
        error = read(index, reader, ping_interval * 2, gather, events) => error,
        error = write(writer, queue, ping_interval) => error,
        () = hang_up.notified() => LineError::HungUp,
    }
}

/// Connects, says hello and waits for the welcome.
async fn open(address: &str, hello: Hello) -> Result<(Welcome, Reader, OwnedWriteHalf), LineError> {
    let stream =
        TcpStream::connect(address).await.map_err(|error| LineError::Connect { address: address.to_owned(), error })?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    writer.write_all(&encode(&EdgeFrame { body: Some(edge_frame::Body::Hello(hello)) })).await?;
    let mut reader = Reader { socket: reader, buffer: BytesMut::new(), full: false };
    match reader.first().await? {
        tier_frame::Body::Welcome(welcome) => Ok((welcome, reader, writer)),
        tier_frame::Body::Refused(refused) => Err(LineError::Refused(refused.reason)),
        _ => Err(LineError::NotWelcome),
    }
}

struct Reader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    /// The last read found as much as it had room for: more is there.
    full: bool,
}

impl Reader {
    /// A body that this version does not know decodes to none and is passed over.
    fn whole(&mut self) -> Result<Option<tier_frame::Body>, LineError> {
        while let Some(frame) = decode::<TierFrame>(&mut self.buffer)? {
            if frame.body.is_some() {
                return Ok(frame.body);
            }
        }
        Ok(None)
    }

    async fn fill(&mut self) -> Result<(), LineError> {
        self.buffer.reserve(READ_BYTES);
        let read = self.socket.read_buf(&mut self.buffer).await?;
        self.full = read >= READ_BYTES;
        if read == 0 { Err(LineError::Closed) } else { Ok(()) }
    }

    /// Lets frames gather until `moment`. The runtime is told of each segment that comes, whether or not anybody waits for
    /// it, which would cost more than the frames: so the socket is told not to.
    async fn gather_until(&mut self, moment: Instant) -> Result<(), LineError> {
        if moment > Instant::now() {
            tell_of_received(self.socket.as_ref(), GATHERED_BYTES)?;
            if self.buffer.is_empty() {
                // What a burst needed goes with it; batches that are still on their way hold what they are parts of.
                self.buffer = BytesMut::new();
            }
            sleep_until(moment).await;
            tell_of_received(self.socket.as_ref(), 1)?;
        }
        Ok(())
    }

    async fn first(&mut self) -> Result<tier_frame::Body, LineError> {
        loop {
            if let Some(body) = self.whole()? {
                return Ok(body);
            }
            self.fill().await?;
        }
    }

    /// All frames that are there, once one is.
    async fn several(&mut self) -> Result<Vec<tier_frame::Body>, LineError> {
        let mut bodies = vec![self.first().await?];
        while let Some(body) = self.whole()? {
            bodies.push(body);
        }
        Ok(bodies)
    }
}

/// Passes on what the tier sends. At a high rate frames gather for a moment, and share the wakings of the hub and of the
/// shards, and the submissions there.
async fn read(
    index: usize,
    mut reader: Reader,
    dead_after: Duration,
    gather: Duration,
    events: &mpsc::Sender<(usize, LineEvent)>,
) -> LineError {
    let mut next = Instant::now();
    loop {
        if !reader.full
            && let Err(error) = reader.gather_until(next).await
        {
            return error;
        }
        let mut bodies = match timeout(dead_after, reader.several()).await {
            Ok(Ok(bodies)) => bodies,
            Ok(Err(error)) => return error,
            Err(_) => return LineError::Dead(dead_after),
        };
        next = Instant::now() + gather;
        bodies.retain(|body| !matches!(body, tier_frame::Body::Ping(_)));
        if !bodies.is_empty() && events.send((index, LineEvent::Frames(bodies))).await.is_err() {
            return LineError::Stopping;
        }
    }
}

/// Writes what is queued, several frames in one call when there are several, and a ping when there is nothing.
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>, ping_interval: Duration) -> LineError {
    let mut pings = 0;
    let mut batch = Vec::with_capacity(WRITE_QUEUE);
    let mut buffer = BytesMut::new();
    loop {
        match timeout(ping_interval, queue.recv_many(&mut batch, WRITE_QUEUE)).await {
            Ok(0) => return LineError::Stopping,
            Ok(_) => {}
            Err(_) => {
                pings += 1;
                batch.push(encode(&EdgeFrame { body: Some(edge_frame::Body::Ping(Ping { id: pings })) }));
            }
        }
        for frame in batch.drain(..) {
            buffer.extend_from_slice(&frame);
        }
        if let Err(error) = writer.write_all(&buffer).await {
            return error.into();
        }
        if buffer.len() > KEPT_BYTES {
            // What a storm of clients needed goes with it.
            buffer = BytesMut::new();
        }
        buffer.clear();
    }
}

fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + JITTER * fastrand::f64())
}
