//! One line: from its `Hello` to its end.
//!
//! What an edge asks is answered in the order in which it asked; a client's message is answered when the disk has it,
//! while later messages are on their way there already.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::room::RoomId;
use wire::trunk::{
    self, AuthRequest, AuthResult, ChatResult, ChatUp, CloseSessions, EdgeFrame, Hello, Refused, SessionBatch,
    TierFrame, Welcome, auth_result, edge_frame, tier_frame,
};

use super::edges::{Introduction, LineHandle, LineId};
use super::frames::FrameReader;
use super::writer::Writer;
use super::{FORGET_STEP, Trunk, hello};
use crate::bus::{Appending, ChatId, Origin, Record};
use crate::clock::wall_clock_ms;
use crate::metrics::{LineEnd, Outcome, OutcomeLabel, SessionLabel, SessionRefusal};
use crate::sessions::{EdgeId, place_text};

/// The code of a close because the key came again: the session is in conflict with a newer one.
const KEY_TAKEN: i32 = -409;

/// The code of a message that is not what the tier takes, as in the publisher API.
const BAD_REQUEST: i32 = -400;

/// The code of a message that the bus did not take, as in the publisher API.
const SERVER_ERROR: i32 = -500;

/// What became of a client's message, or will.
enum ChatAnswer {
    Known(ChatResult),
    Waiting(u64, Appending),
}

/// The side of a line that listens.
struct Listener {
    trunk: Arc<Trunk>,
    name: String,
    incarnation: u64,
    edge: EdgeId,
    line: LineId,
    answers: mpsc::Sender<TierFrame>,
    chats: mpsc::Sender<ChatAnswer>,
}

/// Serves a line until it ends, and says why it did.
pub(super) async fn serve(
    trunk: Arc<Trunk>,
    mut stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) -> LineEnd {
    let ping_interval = Duration::from_millis(trunk.config.trunk.ping_interval_ms.get());
    let (read_half, mut write_half) = stream.split();
    let mut reader = FrameReader::new(read_half, ping_interval * 2);
    let hello_timeout = Duration::from_millis(trunk.config.trunk.hello_timeout_ms.get());
    let first = tokio::select! {
        () = stop.cancelled() => return LineEnd::Stopping,
        first = tokio::time::timeout(hello_timeout, reader.first::<EdgeFrame>()) => first,
    };
    let frame = match first {
        Ok(Ok(frame)) => frame,
        Ok(Err(LineEnd::Silent)) | Err(_) => return LineEnd::NoHello,
        Ok(Err(end)) => return end,
    };
    let entered = match hello::judge(frame, &trunk.config) {
        Ok(hello) => enter(&trunk, hello, &stop).await,
        Err(reason) => Err(reason),
    };
    let entered = match entered {
        Ok(entered) => entered,
        Err(reason) => {
            tracing::warn!(%peer, reason, "a trunk line is not welcome");
            let body = tier_frame::Body::Refused(Refused { reason });
            let refusal = trunk::encode(&TierFrame { body: Some(body) });
            // It is told if it listens; it is closed anyway.
            let _ = tokio::time::timeout(hello_timeout, write_half.write_all(&refusal)).await;
            return LineEnd::Refused;
        }
    };
    let Entered { listener, handle, cursors, welcome, answers, chats, counts } = entered;
    tracing::info!(%peer, edge = listener.name, line = listener.line, "a trunk line is up");
    let mut out = BytesMut::new();
    trunk::encode_into(&TierFrame { body: Some(tier_frame::Body::Welcome(welcome)) }, &mut out);
    let news = trunk.job.news();
    let writer =
        Writer { trunk: trunk.clone(), socket: write_half, cursors, answers, counts, news, ping_interval, out };
    let end = tokio::select! {
        () = stop.cancelled() => handle.why.get().copied().unwrap_or(LineEnd::Stopping),
        end = writer.run() => end,
        end = listener.listen(&mut reader) => end,
        end = answer_chats(&trunk, chats, listener.answers.clone()) => end,
    };
    tracing::info!(%peer, edge = listener.name, line = listener.line, ?end, "a trunk line ended");
    if !trunk.edges.leave(&listener.name, listener.edge, listener.line, Instant::now()) {
        trunk.forget(listener.edge).await;
    }
    end
}

/// A line that was taken in.
struct Entered {
    listener: Listener,
    handle: LineHandle,
    cursors: Vec<u64>,
    welcome: Welcome,
    answers: mpsc::Receiver<TierFrame>,
    chats: mpsc::Receiver<ChatAnswer>,
    counts: tokio::sync::broadcast::Receiver<Arc<[bytes::Bytes]>>,
}

async fn enter(trunk: &Arc<Trunk>, hello: Hello, stop: &CancellationToken) -> Result<Entered, String> {
    let (name, incarnation) = (hello.edge.clone(), hello.incarnation);
    let last_chat = {
        let (bus, name) = (trunk.bus.clone(), name.clone());
        tokio::task::spawn_blocking(move || bus.last_chat(&name, incarnation))
    };
    let last_chat = match last_chat.await {
        Ok(Ok(last_chat)) => last_chat,
        Ok(Err(error)) => return Err(format!("the tier's bus failed: {error}")),
        Err(_) => return Err("the tier is stopping".to_owned()),
    };
    let spans = trunk.bus.spans().borrow().clone();
    let cursors = hello::start(&hello, trunk.bus.id(), &spans);
    let queue = trunk.config.trunk.answer_queue.count();
    let (answers_in, answers) = mpsc::channel(queue);
    let (chats_in, chats) = mpsc::channel(queue);
    let handle = LineHandle {
        id: trunk.edges.next_line(),
        answers: answers_in.clone(),
        stop: stop.clone(),
        why: Arc::new(OnceLock::new()),
    };
    let who =
        Introduction { name: name.clone(), incarnation, node: hello.node, address: hello.address.unwrap_or_default() };
    // Counts are listened to before all of them are read, so that no change falls between.
    let counts = trunk.counts.subscribe();
    let welcomed = trunk.edges.welcome(who, handle.clone(), cursors.clone(), wall_clock_ms())?;
    if let Some(replaced) = welcomed.replaced {
        tracing::info!(edge = name, "a new run of the edge; what the old one had is forgotten");
        trunk.forget(replaced).await;
    }
    let welcome = Welcome {
        bus: trunk.bus.id(),
        positions: hello::positions(&cursors),
        ping_interval_ms: trunk.config.trunk.ping_interval_ms.get() as u32,
        last_chat,
    };
    let listener = Listener {
        trunk: trunk.clone(),
        name,
        incarnation,
        edge: welcomed.edge,
        line: handle.id,
        answers: answers_in,
        chats: chats_in,
    };
    Ok(Entered { listener, handle, cursors, welcome, answers, chats, counts })
}

impl Listener {
    /// Reads until the line ends. A queue of answers that is full makes it wait: who does not take answers is not
    /// asked for more questions.
    async fn listen<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R>) -> LineEnd {
        loop {
            let frame: EdgeFrame = match reader.next().await {
                Ok(frame) => frame,
                Err(end) => return end,
            };
            let taken = match frame.body {
                Some(edge_frame::Body::Auth(request)) => self.auth(request).await,
                Some(edge_frame::Body::Chat(chat)) => self.chat(chat).await,
                Some(edge_frame::Body::Sessions(batch)) => {
                    self.sessions(batch).await;
                    Ok(())
                }
                Some(edge_frame::Body::Ack(ack)) => {
                    self.trunk.edges.ack(&self.name, self.edge, &ack.positions);
                    Ok(())
                }
                Some(edge_frame::Body::Report(report)) => {
                    for isp in &report.isps {
                        tracing::debug!(edge = self.name, ?isp, "what clients' networks are like");
                    }
                    self.trunk.edges.report(&self.name, self.edge, report, wall_clock_ms());
                    Ok(())
                }
                // A ping is answered by our own; a kind that this version does not know is none of ours.
                Some(edge_frame::Body::Ping(_)) | None => Ok(()),
                Some(edge_frame::Body::Hello(_)) => Err(LineEnd::Malformed),
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    async fn auth(&self, request: AuthRequest) -> Result<(), LineEnd> {
        let (outcome, answer) = match self.trunk.admission.judge(&request) {
            Ok(granted) => (Outcome::Ok, auth_result::Outcome::Granted(granted)),
            Err(refusal) => (refusal.outcome, auth_result::Outcome::Denied(refusal.into_denied())),
        };
        self.trunk.metrics.auths.get_or_create(&OutcomeLabel { outcome }).inc();
        let body = tier_frame::Body::Auth(AuthResult { id: request.id, outcome: Some(answer) });
        self.answers.send(TierFrame { body: Some(body) }).await.map_err(|_| LineEnd::Stopping)
    }

    async fn chat(&self, chat: ChatUp) -> Result<(), LineEnd> {
        let id = chat.id;
        let answer = match self.record(chat) {
            Ok(record) => {
                let chat = ChatId { edge: self.name.clone(), incarnation: self.incarnation, id };
                match self.trunk.bus.append_chat(chat, record).await {
                    Ok(appending) => ChatAnswer::Waiting(id, appending),
                    Err(error) => self.refuse_chat(id, SERVER_ERROR, Outcome::Bus, error.to_string()),
                }
            }
            Err((outcome, reason)) => self.refuse_chat(id, BAD_REQUEST, outcome, reason),
        };
        self.chats.send(answer).await.map_err(|_| LineEnd::Stopping)
    }

    fn record(&self, chat: ChatUp) -> Result<Record, (Outcome, String)> {
        let limits = &self.trunk.config.chat;
        let max = limits.max_body_bytes.count();
        if chat.body.len() > max {
            return Err((Outcome::TooLarge, format!("the message has more than {max} bytes")));
        }
        let room = RoomId::parse(&chat.room).map_err(|error| (Outcome::BadRoom, error.to_string()))?;
        let operation = limits.operation.get_i32();
        Ok(Record::room(&room, operation, chat.body, Origin::Client { mid: chat.mid }))
    }

    fn refuse_chat(&self, id: u64, code: i32, outcome: Outcome, reason: String) -> ChatAnswer {
        self.trunk.metrics.chats.get_or_create(&OutcomeLabel { outcome }).inc();
        ChatAnswer::Known(ChatResult { id, code, reason })
    }

    async fn sessions(&self, batch: SessionBatch) {
        if !self.trunk.edges.may_report(&self.name, self.edge, self.line, batch.resync) {
            self.refuse_sessions(SessionRefusal::Superseded, batch.events.len());
            return;
        }
        if batch.resync {
            self.trunk.forget(self.edge).await;
        }
        let mut events = batch.events.into_iter();
        while events.len() > 0 {
            let displaced = self.apply(events.by_ref().take(FORGET_STEP));
            for (edge, places) in displaced {
                self.trunk.metrics.keys_taken.inc_by(places.len() as u64);
                let reason = "key connected elsewhere".to_owned();
                let close = CloseSessions { places, code: KEY_TAKEN, reason };
                self.trunk.edges.send(edge, TierFrame { body: Some(tier_frame::Body::Close(close)) });
            }
            tokio::task::yield_now().await;
        }
    }

    /// Applies one step of events and says whose sessions lost their keys, by edge.
    fn apply(
        &self,
        events: impl Iterator<Item = trunk::SessionEvent>,
    ) -> std::collections::HashMap<EdgeId, Vec<String>> {
        let mut displaced = std::collections::HashMap::<EdgeId, Vec<String>>::new();
        let mut sessions = self.trunk.sessions();
        for event in events {
            match sessions.apply(self.edge, event) {
                Ok(None) => {}
                Ok(Some(old)) => displaced.entry(old.edge).or_default().push(place_text(old.place)),
                Err(refusal) => self.refuse_sessions(refusal, 1),
            }
        }
        displaced
    }

    fn refuse_sessions(&self, reason: SessionRefusal, events: usize) {
        self.trunk.metrics.sessions_refused.get_or_create(&SessionLabel { reason }).inc_by(events as u64);
    }
}

/// Answers clients' messages in the order in which they came, each when the disk has it.
async fn answer_chats(
    trunk: &Trunk,
    mut chats: mpsc::Receiver<ChatAnswer>,
    answers: mpsc::Sender<TierFrame>,
) -> LineEnd {
    while let Some(chat) = chats.recv().await {
        let result = match chat {
            ChatAnswer::Known(result) => result,
            ChatAnswer::Waiting(id, appending) => {
                let (outcome, code, reason) = match appending.durable().await {
                    Ok(()) => (Outcome::Ok, 0, String::new()),
                    Err(error) => (Outcome::Bus, SERVER_ERROR, error.to_string()),
                };
                trunk.metrics.chats.get_or_create(&OutcomeLabel { outcome }).inc();
                ChatResult { id, code, reason }
            }
        };
        if answers.send(TierFrame { body: Some(tier_frame::Body::Chat(result)) }).await.is_err() {
            break;
        }
    }
    LineEnd::Stopping
}
