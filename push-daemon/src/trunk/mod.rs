//! The upstream link: lines to logic tiers, the arbiter behind them, and the shards in front.
//!
//! One task, the hub, owns the arbiter and what is pending, so nothing here is shared. Lines run on tasks of
//! their own and bring it frames; shards bring it news. Down: frame → arbiter → orders for shards. Up: news →
//! frames on the primary line, which is the first that is up. What has no answer when a line ends is asked
//! again on the next, under the same id, so the tier takes it once.
//!
//! It does not hold connections or rooms (`shard`), nor decide anything about clients (the logic tier).
//!
//! Layout: `line` one TCP connection · `arbiter` what is new in a frame · `down` frames to orders · `up` news to
//! frames · `status` what is counted

pub mod arbiter;
mod down;
mod line;
mod status;
mod up;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use settings::Secret;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use wire::goim::Header;
use wire::key::{KeySecret, Place};
use wire::trunk::{Ack, AuthRequest, ChatUp, Hello, NodeAddress, PROTOCOL, Position, SessionBatch, edge_frame};

use crate::config::Trunk;
use crate::shard::counters::Counters;
use crate::shard::news::{NewsDesk, NewsIntake};
use crate::shard::order::{Order, ShardHandle};
use crate::shard::presence::Presence;
use arbiter::Arbiter;
use line::{LineEvent, LineSender, Pace};
use status::count;
pub use status::{LineStatus, TrunkStatus};

/// Frames of all lines that may wait for the hub; then the lines wait, and so does TCP.
const EVENT_QUEUE: usize = 64;

/// How often positions are acknowledged and overdue requests are dropped.
const TICK: Duration = Duration::from_millis(200);

/// How often the edge reports its load, in ticks.
const REPORT_TICKS: u32 = 10;

/// News for which the hub keeps memory; a storm needs more, for a while.
const KEPT_NEWS: usize = 64;

/// How long an order waits before a full queue is tried again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// Who the edge is, as it says in each hello.
#[derive(Clone)]
pub struct Identity {
    /// Unique among edges.
    pub name: String,
    /// The edge's number inside keys.
    pub node: u16,
    /// This run of the edge.
    pub incarnation: u64,
    /// Makes and checks keys.
    pub secret: KeySecret,
    /// Where clients reach it.
    pub address: NodeAddress,
    /// Connections that it may hold.
    pub max_connections: u64,
    /// How long a client waits for admission.
    pub handshake_timeout: Duration,
}

/// What the hub is made of.
pub struct Parts {
    /// Who we are.
    pub identity: Identity,
    /// The settings.
    pub settings: Trunk,
    /// How long frames of a line gather after others were read.
    pub gather: Duration,
    /// All shards, by their number.
    pub shards: Vec<ShardHandle>,
    /// Which of them may have members of a room.
    pub presence: Presence,
    /// What they count.
    pub counters: Vec<Arc<Counters>>,
    /// Where they put their news.
    pub desk: NewsDesk,
    /// The other end of it.
    pub news: NewsIntake,
    /// Where figures go.
    pub status: Arc<TrunkStatus>,
    /// Set when the edge takes no more clients.
    pub draining: Arc<AtomicBool>,
}

struct Hub {
    identity: Identity,
    secret: Secret,
    max_pending: usize,
    shards: Vec<ShardHandle>,
    presence: Presence,
    /// Shards that a push to a room goes to; kept for its memory.
    there: Vec<usize>,
    counters: Vec<Arc<Counters>>,
    desk: NewsDesk,
    status: Arc<TrunkStatus>,
    draining: Arc<AtomicBool>,
    arbiter: Arbiter,
    /// Shards that were given orders and not yet woken for them.
    told: Vec<bool>,
    /// By the order of the settings; `None` is down.
    lines: Vec<Line>,
    /// Auth requests without an answer, by id. At most `max_pending`, with the messages.
    auths: BTreeMap<u64, (AuthRequest, Place, Instant)>,
    /// Clients' messages without an answer, by id.
    messages: BTreeMap<u64, (ChatUp, Place, Header)>,
    last_id: u64,
    last_message: u64,
    /// Positions as last acknowledged.
    acked: Vec<Position>,
    ticks: u32,
}

#[derive(Default)]
struct Line {
    sender: Option<LineSender>,
    /// A gap was seen; what comes until the line has ended is of no use.
    replaying: bool,
}

/// Runs the trunk until `stop` fires or is dropped.
pub async fn run(parts: Parts, mut stop: oneshot::Receiver<()>) {
    let (to_hub, mut events) = mpsc::channel(EVENT_QUEUE);
    let pace =
        Pace { reconnect_max: Duration::from_millis(parts.settings.reconnect_max_ms.get()), gather: parts.gather };
    for (index, line) in parts.settings.lines.iter().enumerate() {
        tokio::spawn(line::run(index, line.address.clone(), pace, to_hub.clone()));
    }
    drop(to_hub);
    let mut news = parts.news;
    let mut hub = Hub {
        identity: parts.identity,
        secret: parts.settings.secret,
        told: vec![false; parts.shards.len()],
        max_pending: parts.settings.pending.count(),
        shards: parts.shards,
        presence: parts.presence,
        there: Vec::new(),
        counters: parts.counters,
        desk: parts.desk,
        status: parts.status,
        draining: parts.draining,
        arbiter: Arbiter::default(),
        lines: parts.settings.lines.iter().map(|_| Line::default()).collect(),
        auths: BTreeMap::new(),
        messages: BTreeMap::new(),
        last_id: 0,
        last_message: 0,
        acked: Vec::new(),
        ticks: 0,
    };
    let mut ticker = interval(TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            _ = &mut stop => return,
            event = events.recv() => match event {
                Some((index, event)) => hub.line_event(index, event).await,
                None => return,
            },
            () = news.take(&mut batch) => {
                hub.take_news(&mut batch).await;
                batch.shrink_to(KEPT_NEWS);
            }
            _ = ticker.tick() => hub.tick().await,
        }
        hub.wake_told();
    }
}

impl Hub {
    async fn line_event(&mut self, index: usize, event: LineEvent) {
        let status = Arc::clone(&self.status);
        let line_status = &status.lines[index];
        match event {
            LineEvent::Opening(reply) => {
                // A line that has gone asks again.
                let _gone = reply.send(self.hello());
            }
            LineEvent::Up(welcome, sender) => {
                tracing::info!(line = %line_status.name, address = %line_status.address, "line is up");
                line_status.up.store(true, Relaxed);
                count(&line_status.welcomes_total);
                if self.arbiter.welcome(welcome.bus, &welcome.positions) {
                    count(&status.bus_changes_total);
                    tracing::warn!("the tier has another bus than before; what was published between is not here");
                }
                self.lines[index] = Line { sender: Some(sender), replaying: false };
                if self.primary() == Some(index) {
                    self.ask_again().await;
                }
            }
            LineEvent::Frames(bodies) => {
                for body in bodies {
                    self.frame(index, body).await;
                }
            }
            LineEvent::Down { reason, refused } => {
                let was_up = line_status.up.swap(false, Relaxed);
                if was_up || refused {
                    tracing::warn!(line = %line_status.name, %reason, "line is down");
                } else {
                    tracing::debug!(line = %line_status.name, %reason, "line does not open");
                }
                let was_primary = self.primary() == Some(index);
                self.lines[index] = Line::default();
                if was_primary && self.primary().is_some() {
                    self.ask_again().await;
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            edge: self.identity.name.clone(),
            incarnation: self.identity.incarnation,
            node: u32::from(self.identity.node),
            secret: self.secret.expose().to_owned(),
            bus: self.arbiter.bus(),
            positions: self.arbiter.positions(),
            address: Some(self.identity.address.clone()),
        }
    }

    /// The line that news go up on: the first that is up.
    fn primary(&self) -> Option<usize> {
        self.lines.iter().position(|line| line.sender.is_some())
    }

    /// Sends to the tier on the primary line. False when there is none.
    async fn send_up(&self, body: edge_frame::Body) -> bool {
        match self.primary().and_then(|index| self.lines[index].sender.as_ref()) {
            Some(sender) => sender.send(body).await,
            None => false,
        }
    }

    /// A new primary line: the tier hears again what it may not know.
    async fn ask_again(&mut self) {
        count(&self.status.resyncs_total);
        self.send_up(edge_frame::Body::Sessions(SessionBatch { resync: true, events: Vec::new() })).await;
        for shard in 0..self.shards.len() {
            self.give(shard, Order::Resync).await;
        }
        for (request, ..) in self.auths.values() {
            self.send_up(edge_frame::Body::Auth(request.clone())).await;
        }
        for (message, ..) in self.messages.values() {
            self.send_up(edge_frame::Body::Chat(message.clone())).await;
        }
    }

    /// Puts an order in a shard's queue, and has the shard woken when the event under way has been dealt with: a shard
    /// that is given several orders is woken once. While the queue is full, everything behind it waits, down to the
    /// bus.
    async fn give(&mut self, shard: usize, order: Order) {
        let Some(handle) = self.shards.get(shard) else { return };
        let mut order = order;
        let mut waits = false;
        while let Err(back) = handle.queue(order) {
            if !waits {
                count(&self.status.order_queue_full_total);
                waits = true;
            }
            // Who was told before this one may be waited for as well.
            handle.wake();
            tokio::time::sleep(FULL_QUEUE_PAUSE).await;
            order = back;
        }
        self.told[shard] = true;
    }

    fn wake_told(&mut self) {
        for (shard, told) in self.shards.iter().zip(&mut self.told) {
            if std::mem::take(told) {
                shard.wake();
            }
        }
    }

    async fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let positions = self.arbiter.positions();
        if positions != self.acked {
            for sender in self.lines.iter().filter_map(|line| line.sender.as_ref()) {
                sender.send(edge_frame::Body::Ack(Ack { positions: positions.clone() })).await;
            }
            self.acked = positions;
        }
        let timeout = self.identity.handshake_timeout;
        self.auths.retain(|_, (_, _, asked)| asked.elapsed() < timeout);
        if self.desk.take_resync_due() {
            self.ask_again().await;
        }
        if self.ticks % REPORT_TICKS == 1 {
            self.send_up(edge_frame::Body::Report(self.report())).await;
        }
        self.status.pending.store((self.auths.len() + self.messages.len()) as u64, Relaxed);
    }
}
