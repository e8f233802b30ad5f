//! For tests: a shard that the test turns itself, at the moments of its choice.
//!
//! Everything is real, sockets and poll included, but the time, and who turns the loop.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};
use socket2::{Domain, Socket, Type};
use wire::goim::{Header, Packets, op};
use wire::key::Place;

use super::counters::Counters;
use super::news::{News, NewsDesk, NewsIntake};
use super::order::{Admitted, Delivery, OperationRun, Order, Refusal, RoomRun, ShardHandle};
use super::presence::Presence;
use super::spawn::open;
use super::wait::Came;
use super::{Shard, ShardSettings, WAKER_TOKEN};
use crate::block::Run;
use crate::compress::Compressed;
use crate::config::{Config, Limits, SendPath};
use crate::lanes::{LaneOrder, LanePlan};

/// How long a turn waits for what is on its way over loopback.
const ON_ITS_WAY: Duration = Duration::from_millis(2);

/// Clients that admission may be asked about at once.
pub(crate) const MOST_ASKING: u32 = 64;

/// Turns within which anything has to happen that does.
const PATIENCE_TURNS: u32 = 5_000;

/// How long a viewer waits for what was sent to it.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct ByHand {
    shard: Shard,
    presence: Presence,
    handle: ShardHandle,
    pub(crate) counters: Arc<Counters>,
    news: NewsIntake,
    came: Came,
    tcp: SocketAddr,
    lanes: LaneOrder,
    /// The moment of the last turn.
    moment: Instant,
}

/// Runs `work` with a shard, on a thread whose descriptor table is the shard's.
pub(crate) fn by_hand(send: SendPath, limits: Limits, work: impl FnOnce(&mut ByHand) + Send) {
    // As in an edge: made, and dropped, on a thread that is not the shard's.
    let poll = Poll::new().unwrap();
    let handle = ShardHandle::new(256, Waker::new(poll.registry(), WAKER_TOKEN).unwrap());
    thread::scope(|scope| {
        let inside = handle.clone();
        let worked = scope.spawn(|| work(&mut ByHand::open(send, limits, poll, inside))).join();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

impl ByHand {
    fn open(send: SendPath, limits: Limits, poll: Poll, handle: ShardHandle) -> Self {
        let Config { shard, bilibili, .. } = Config::default();
        let settings = ShardSettings {
            id: 0,
            node: 1,
            cpu: None,
            capacity: 256,
            tcp: vec!["127.0.0.1:0".parse().unwrap()],
            websocket: Vec::new(),
            backlog: 256,
            accepts_per_turn: 64,
            rest_ms: 0,
            most_asking: MOST_ASKING,
            slice_sends: 256,
            turn_sends: 1_024,
            order_queue: 256,
            send,
            backlog_bytes: shard.backlog_bytes.count(),
            block_bytes: shard.block_bytes.count(),
            merge: super::MergeWindows::default(),
            bilibili_room_type: bilibili.room_type.into(),
            limits,
            seat: None,
        };
        let counters = Arc::new(Counters::new());
        let (desk, news) = NewsDesk::open(256).unwrap();
        let presence = Presence::new(1, 256);
        let (shard, (tcp, _)) = open(settings, poll, handle.clone(), desk, &presence, Arc::clone(&counters)).unwrap();
        let (came, lanes, moment) = (Came::new(), LaneOrder::none(), Instant::now());
        Self { shard, presence, handle, counters, news, came, tcp: tcp[0], lanes, moment }
    }

    /// One turn of the loop, `later` than the last, with whatever has come.
    pub(crate) fn turn(&mut self, later: Duration) {
        self.turn_with(later, ON_ITS_WAY);
    }

    /// The same with what is there now.
    pub(crate) fn turn_at_once(&mut self, later: Duration) {
        self.turn_with(later, Duration::ZERO);
    }

    fn turn_with(&mut self, later: Duration, on_its_way: Duration) {
        self.moment += later;
        self.shard.waits.wait(&mut self.came, on_its_way, false).unwrap();
        assert!(self.shard.turn(&self.came, self.moment).unwrap(), "nobody asked it to stop");
    }

    /// How long the loop would wait for news now.
    pub(crate) fn would_wait(&self) -> Duration {
        if self.shard.has_work() { Duration::ZERO } else { self.shard.sleep() }
    }

    /// Each turn sends to so many clients at most.
    pub(crate) fn set_turn_sends(&mut self, sends: usize) {
        self.shard.turn_sends = sends;
    }

    /// Turns, without time passing, until `happened`.
    pub(crate) fn turn_until(&mut self, what: &str, mut happened: impl FnMut(&mut Self) -> bool) {
        for _ in 0..PATIENCE_TURNS {
            if happened(self) {
                return;
            }
            self.turn(Duration::ZERO);
        }
        panic!("{PATIENCE_TURNS} turns, and {what} did not happen");
    }

    /// Clients that have connected and sent their auth packet.
    pub(crate) fn knock(&self, count: usize) -> Vec<Viewer> {
        self.knock_from(Ipv4Addr::LOCALHOST, count)
    }

    fn knock_from(&self, address: Ipv4Addr, count: usize) -> Vec<Viewer> {
        let mut viewers: Vec<Viewer> = (0..count).map(|_| Viewer::connect(address, self.tcp)).collect();
        for viewer in &mut viewers {
            viewer.send(op::AUTH, br#"{"mid":0,"room_id":"live://1","accepts":[1000]}"#);
        }
        viewers
    }

    /// Those that admission was asked about since.
    pub(crate) fn asked(&mut self) -> Vec<Place> {
        let news = std::iter::from_fn(|| self.news.try_next());
        news.filter_map(|news| if let News::Auth { place, .. } = news { Some(place) } else { None }).collect()
    }

    /// Admission lets a client in.
    pub(crate) fn grant(&mut self, place: Place) {
        let rooms = None;
        let grant = Admitted {
            mid: 0,
            key: None,
            room: Some("live://1".into()),
            accepts: vec![1000],
            rooms,
            address: String::new(),
        };
        self.order(Order::Admitted(place, Box::new(grant)));
    }

    /// Admission does not.
    pub(crate) fn deny(&mut self, place: Place) {
        self.order(Order::Refused(place, Refusal { code: -101, reason: "no".into() }));
    }

    /// Clients that are in, in the room `live://1`, with nothing left to read.
    pub(crate) fn join(&mut self, count: usize) -> Vec<Viewer> {
        self.join_from(Ipv4Addr::LOCALHOST, count)
    }

    /// The same from an address of this host's network of its own.
    pub(crate) fn join_from(&mut self, address: Ipv4Addr, count: usize) -> Vec<Viewer> {
        let mut viewers = self.knock_from(address, count);
        let joined = self.counters.joined.get() + count as u64;
        self.turn_until("everybody is in", |by_hand| {
            for place in by_hand.asked() {
                by_hand.grant(place);
            }
            by_hand.counters.joined.get() == joined
        });
        for viewer in &mut viewers {
            assert_eq!(viewer.hears(1), [(op::AUTH_REPLY, String::new())]);
        }
        viewers
    }

    /// A message to the room.
    pub(crate) fn push(&mut self, body: &str) {
        self.order(Order::DeliverToRoom(Arc::new(RoomRun { room: self.presence.name("live://1"), run: run(body) })));
    }

    /// A message to everybody.
    pub(crate) fn push_to_all(&mut self, body: &str) {
        let runs = Arc::new([OperationRun { operation: 1000, run: run(body) }]);
        self.order(Order::Deliver(Arc::new(Delivery::All(0, runs))));
    }

    /// Keeps to this plan of lanes.
    pub(crate) fn set_lanes(&mut self, plan: LanePlan) {
        self.lanes = self.lanes.replaced(plan);
        self.order(Order::Lanes(self.lanes.clone()));
    }

    /// Everybody that is in has to go.
    pub(crate) fn kick_all(&mut self) {
        let places = (0..self.shard.connections.end()).map(|slot| self.shard.place(slot)).collect();
        self.order(Order::Close(places, Refusal { code: 1, reason: "go".into() }));
    }

    fn order(&mut self, order: Order) {
        assert!(self.handle.queue(order).is_ok(), "the queue is long enough for a test");
    }
}

fn run(body: &str) -> Run {
    let mut packets = Vec::new();
    Header { version: 1, operation: 1000, sequence: 0 }.put_packet(body.as_bytes(), &mut packets);
    Run { packets: packets.into(), count: 1, compressed: Compressed::default() }
}

/// One client, whose socket never waits.
pub(crate) struct Viewer {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Viewer {
    fn connect(from: Ipv4Addr, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket: socket.into(), unread: Vec::new() }
    }

    pub(crate) fn send(&mut self, operation: i32, body: &[u8]) {
        let mut packet = Vec::new();
        Header { version: 1, operation, sequence: 1 }.put_packet(body, &mut packet);
        self.socket.write_all(&packet).unwrap();
    }

    /// Sends until the other end, which has closed, says that it takes nothing.
    pub(crate) fn is_refused_what_it_sends(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let is_over = |error: io::Error| error.kind() != ErrorKind::WouldBlock;
        while !self.socket.write(b"anybody there?").is_err_and(is_over) {
            assert!(Instant::now() < deadline, "somebody still has the other end");
            thread::yield_now();
        }
    }

    /// Operations and bodies of the next packets, which have been sent: at least `count`.
    pub(crate) fn hears(&mut self, count: usize) -> Vec<(i32, String)> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = self.heard();
        while heard.len() < count {
            assert!(Instant::now() < deadline, "{heard:?} and no more");
            thread::yield_now();
            heard.extend(self.heard());
        }
        heard
    }

    /// Operations and bodies of what has come since.
    pub(crate) fn heard(&mut self) -> Vec<(i32, String)> {
        let (heard, is_over) = self.heard_or_over();
        assert!(!is_over, "the shard has closed the connection, after {heard:?}");
        heard
    }

    /// The same of a client whose connection may be over: whether it is.
    pub(crate) fn heard_or_over(&mut self) -> (Vec<(i32, String)>, bool) {
        let mut scratch = [0; 16 << 10];
        let mut is_over = false;
        loop {
            match self.socket.read(&mut scratch) {
                Ok(0) => {
                    is_over = true;
                    break;
                }
                Ok(count) => self.unread.extend_from_slice(&scratch[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let mut packets = Packets::new(&self.unread, usize::MAX);
        let heard = packets.by_ref().map(Result::unwrap);
        let heard = heard.map(|packet| (packet.header.operation, String::from_utf8_lossy(packet.body).into_owned()));
        let heard = heard.collect();
        self.unread = packets.rest().to_vec();
        (heard, is_over)
    }
}
