//! Builds the parts of the edge, starts them in order, watches them, and stops them in order.
//!
//! Start: kernel plane (so that no port opens unguarded), shards, admin, trunk. Stop: no new clients, goodbyes
//! spread over time, shards, trunk, admin. A shard that ends by itself takes the process down: an edge that
//! serves a part of its clients is worse than one that is restarted.

mod lanes;
mod tables;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use sd_notify::NotifyState;
use settings::ListenAddress;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};
use wire::key::KeySecret;
use wire::trunk::NodeAddress;

use self::tables::Follower;
use crate::admin::{self, ShardView, Sources};
use crate::config::Config;
use crate::kernel::steer::Steering;
use crate::kernel::{KernelError, KernelPlane};
use crate::lanes::LaneOrder;
use crate::plan::Plan;
use crate::shard::news::NewsDesk;
use crate::shard::order::Order;
use crate::shard::presence::Presence;
use crate::shard::{MergeWindows, Running, ShardSettings, spawn};
use crate::storm::Storm;
use crate::sys::give_heap_back;
use crate::trunk::{self, Identity, Parts, TrunkStatus};

/// How often the parts are looked after.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long an order waits before a full queue is tried again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// Beyond the drain, for goodbyes that linger.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// For how long, when it stops, connections that were on their way still come in: longer than the kernel holds back a client
/// that has not said anything yet. Only where steering keeps new ones away meanwhile.
const LAST_CALL_MS: u32 = 1_500;

/// Why the edge cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ApplianceError {
    /// The kernel plane was asked for and cannot be had.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// `protected_ports` is empty and cannot be filled in.
    #[error("kernel.protected_ports: name the ports, since listen leaves them to the kernel (port 0)")]
    UnknownPorts,
    /// A shard cannot start.
    #[error("cannot start shard {id}: {error}")]
    Shard {
        /// Its number.
        id: u16,
        /// Why.
        error: io::Error,
    },
    /// The admin address cannot be listened on.
    #[error("cannot listen on {address} for operators: {error} (admin.listen)")]
    Admin {
        /// As configured.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A shard ended by itself.
    #[error("shard {0} ended by itself; the edge stops rather than serve a part of its clients")]
    ShardEnded(usize),
    /// The trunk ended by itself.
    #[error("the trunk's thread ended by itself; the edge stops, since it would hear nothing any more")]
    TrunkEnded,
    /// Something that every host has is not there.
    #[error("cannot {what}: {error}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// The trunk's thread: one, so that hub and lines pass things on without waking each other.
struct TrunkThread {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// The edge, running.
pub struct Appliance {
    shards: Vec<Running>,
    sources: Arc<Sources>,
    trunk: TrunkThread,
    stop_admin: oneshot::Sender<()>,
    /// Held by who changes the plan of lanes.
    changing_lanes: tokio::sync::Mutex<()>,
    tables: Follower,
    draining: Arc<AtomicBool>,
    drain_ms: u32,
    admin_address: SocketAddr,
}

impl Appliance {
    /// Builds and starts everything. Returns once clients can connect.
    ///
    /// # Errors
    /// [`ApplianceError`] says which part and what to do; what was started is stopped again.
    pub async fn start(config: &Config) -> Result<Self, ApplianceError> {
        let started = Instant::now();
        let kernel = bring_up_kernel(config)?;
        let tables = match &kernel {
            Some(plane) => Follower::start(plane.pin_root().to_path_buf()).map_err(|error| ApplianceError::Host {
                what: "start the thread that follows the kernel's tables",
                error,
            })?,
            None => Follower::of_nothing(),
        };
        let plan = Plan::of(config)?;
        let secret = KeySecret::new(u128::from_ne_bytes(random()?));
        let incarnation = u64::from_ne_bytes(random()?);
        let (desk, news) = NewsDesk::open(config.trunk.news_queue.count())
            .map_err(|error| ApplianceError::Host { what: "start the courier's thread", error })?;
        let presence = Presence::new(usize::from(plan.count), plan.capacity);
        let steering =
            config.kernel.as_ref().and_then(|kernel| Steering::load_if_wanted(kernel, &plan.cpus_of_shards()));
        let steering = steering.map(Arc::new);
        let (shards, tcp, websocket) = start_shards(config, &plan, &desk, &presence, steering.as_deref())?;

        let listener = admin::listen(config.admin.listen.0)
            .await
            .map_err(|error| ApplianceError::Admin { address: config.admin.listen.0, error })?;
        let admin_address = listener.local_addr().unwrap_or(config.admin.listen.0);
        let views =
            shards.iter().enumerate().map(|(id, shard)| ShardView::new(Arc::clone(&shard.counters), plan.cpu(id)));
        let sources = Arc::new(Sources {
            node: config.node.name.clone(),
            tcp_port: tcp.first().map_or(0, SocketAddr::port),
            ws_port: websocket.first().map_or(0, SocketAddr::port),
            shards: views.collect(),
            trunk: Arc::new(TrunkStatus::new(&config.trunk.lines)),
            kernel: kernel.map(Mutex::new),
            lanes: Mutex::new(LaneOrder::none()),
            steering,
            started,
        });
        let (stop_admin, admin_stops) = oneshot::channel();
        tokio::spawn(admin::serve(listener, Arc::clone(&sources), admin_stops));

        let identity = Identity {
            name: config.node.name.clone(),
            node: config.node.number,
            incarnation,
            secret,
            address: node_address(config, &tcp, &websocket),
            max_connections: u64::from(plan.capacity) * u64::from(plan.count),
            handshake_timeout: Duration::from_millis(config.limits.handshake_timeout_ms.get()),
        };
        let draining = Arc::new(AtomicBool::new(false));
        let trunk = Parts {
            gather: plan.gather,
            identity,
            settings: config.trunk.clone(),
            shards: shards.iter().map(|shard| shard.handle.clone()).collect(),
            presence,
            counters: shards.iter().map(|shard| Arc::clone(&shard.counters)).collect(),
            desk,
            news,
            status: Arc::clone(&sources.trunk),
            draining: Arc::clone(&draining),
        };
        let trunk =
            start_trunk(trunk).map_err(|error| ApplianceError::Host { what: "start the trunk's thread", error })?;
        let in_ring = sources.shards.iter().all(|shard| shard.counters.io_uring.get() == 1);
        tracing::info!(
            shards = plan.count, capacity = plan.capacity, ?tcp, ?websocket, admin = %admin_address,
            sends = if in_ring { "io_uring" } else { "one by one" }, "ready for clients"
        );
        let drain_ms = config.limits.drain_ms.get_u32();
        let changing_lanes = tokio::sync::Mutex::new(());
        Ok(Self { shards, sources, trunk, stop_admin, changing_lanes, tables, draining, drain_ms, admin_address })
    }

    /// Where operators look.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Looks after the parts until `signal` fires.
    ///
    /// # Errors
    /// A shard or the trunk ended by itself.
    pub async fn watch(&self, signal: impl Future<Output = ()>) -> Result<(), ApplianceError> {
        let mut ticker = interval(WATCH_INTERVAL);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        let mut storm = Storm::default();
        let mut plans = self.tables.plans();
        plans.mark_changed();
        tokio::pin!(signal);
        loop {
            tokio::select! {
                () = &mut signal => return Ok(()),
                Ok(()) = plans.changed() => {
                    let plan = plans.borrow_and_update().clone();
                    // A shard that does not take it must not keep us from the others, nor from the signal.
                    if timeout(WATCH_INTERVAL, self.set_lanes(plan)).await.is_err() {
                        plans.mark_changed();
                    }
                }
                _ = ticker.tick() => {
                    self.sources.sample(last.elapsed());
                    self.sources.look_after_kernel();
                    self.after_a_storm(&mut storm);
                    last = Instant::now();
                    if let Some(ended) = self.shards.iter().position(|shard| shard.thread.is_finished()) {
                        return Err(ApplianceError::ShardEnded(ended));
                    }
                    if self.trunk.thread.is_finished() {
                        return Err(ApplianceError::TrunkEnded);
                    }
                    // The service manager restarts an edge of which a shard is stuck.
                    if self.sources.shards_turn() {
                        notify(NotifyState::Watchdog);
                    }
                }
            }
        }
    }

    /// Says goodbye to all clients, spread over the drain time, and ends every part.
    pub async fn stop(self, at_once: impl Future<Output = ()>) {
        self.draining.store(true, Relaxed);
        let last_call_ms = self.last_call_ms();
        tracing::info!(drain_ms = self.drain_ms, last_call_ms, "drains");
        self.order_all(|| Order::Drain { over_ms: self.drain_ms, last_call_ms });
        let last_call = Duration::from_millis(u64::from(last_call_ms));
        let patience = Duration::from_millis(u64::from(self.drain_ms)) + STOP_GRACE;
        tokio::select! {
            () = self.all_gone_after(last_call) => {}
            () = tokio::time::sleep(patience) => {}
            () = at_once => tracing::info!("stops at once"),
        }
        self.order_all(|| Order::Stop);
        for (id, shard) in self.shards.into_iter().enumerate() {
            match shard.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(shard = id, %error, "shard failed"),
                Err(_) => tracing::error!(shard = id, "shard panicked"),
            }
        }
        // Tasks that have ended already need no telling.
        let _ended = (self.trunk.stop.send(()), self.stop_admin.send(()));
        if self.trunk.thread.join().is_err() {
            tracing::error!("the trunk's thread panicked");
        }
        tracing::info!("stopped");
    }

    /// Gives back the memory that many clients needed at once, when they are in.
    fn after_a_storm(&self, storm: &mut Storm) {
        let accepted = self.shards.iter().map(|shard| shard.counters.accepted_total.get()).sum();
        if storm.is_over(accepted) {
            give_heap_back();
        }
    }

    /// 0 where a successor listens already: what waits here is its.
    fn last_call_ms(&self) -> u32 {
        let alone = self.sources.steering.as_ref().is_some_and(|steering| !steering.is_superseded());
        if alone { self.drain_ms.min(LAST_CALL_MS) } else { 0 }
    }

    async fn all_gone_after(&self, last_call: Duration) {
        tokio::time::sleep(last_call).await;
        let mut ticker = interval(Duration::from_millis(20));
        // What a shard that has ended last counted does not go down any more.
        while self.shards.iter().any(|shard| !shard.thread.is_finished() && shard.counters.connections.get() > 0) {
            ticker.tick().await;
        }
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        for shard in &self.shards {
            let mut next = order();
            while !shard.thread.is_finished() {
                match shard.handle.queue(next) {
                    Ok(()) => break,
                    // The queue is bounded and its shard takes from it: there is room in a moment.
                    Err(back) => {
                        shard.handle.wake();
                        std::thread::sleep(FULL_QUEUE_PAUSE);
                        next = back;
                    }
                }
            }
            shard.handle.wake();
        }
    }
}

/// Tells the service manager, if there is one.
pub fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

fn random<const N: usize>() -> Result<[u8; N], ApplianceError> {
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| ApplianceError::Host { what: "get random bytes from the kernel", error: error.into() })?;
    Ok(bytes)
}

fn bring_up_kernel(config: &Config) -> Result<Option<KernelPlane>, ApplianceError> {
    let Some(kernel) = &config.kernel else {
        tracing::info!("no [kernel] in the settings: runs without the XDP filter");
        return Ok(None);
    };
    let mut kernel = kernel.clone();
    if kernel.protected_ports.is_empty() {
        let addresses = config.listen.tcp.iter().chain(&config.listen.websocket);
        kernel.protected_ports = addresses.map(|address| address.0.port()).collect();
        kernel.protected_ports.sort_unstable();
        kernel.protected_ports.dedup();
        if kernel.protected_ports.contains(&0) {
            return Err(ApplianceError::UnknownPorts);
        }
    }
    let plane = KernelPlane::bring_up(&kernel)?;
    tracing::info!(
        interface = kernel.interface, mode = %kernel.mode, ports = ?kernel.protected_ports, arrival = ?plane.arrival(),
        pins = %plane.pin_dir().display(), "the filter is in force"
    );
    for note in plane.notes() {
        tracing::warn!("{note}");
    }
    if let Some(Ok(backend)) = plane.shaping() {
        tracing::info!(interface = kernel.interface, %backend, "egress is shaped");
    }
    Ok(Some(plane))
}

type Started = (Vec<Running>, Vec<SocketAddr>, Vec<SocketAddr>);

/// Starts shards one after another: the first finds out which ports the kernel gives for port 0.
fn start_shards(
    config: &Config,
    plan: &Plan,
    desk: &NewsDesk,
    presence: &Presence,
    steering: Option<&Steering>,
) -> Result<Started, ApplianceError> {
    let mut shards: Vec<Running> = Vec::with_capacity(usize::from(plan.count));
    let sockets = |addresses: &[ListenAddress]| addresses.iter().map(|address| address.0).collect::<Vec<_>>();
    let (mut tcp, mut websocket) = (sockets(&config.listen.tcp), sockets(&config.listen.websocket));
    for id in 0..plan.count {
        let settings = ShardSettings {
            id,
            node: config.node.number,
            cpu: plan.cpu(usize::from(id)),
            capacity: plan.capacity,
            tcp,
            websocket,
            backlog: config.listen.backlog.get_i32(),
            accepts_per_turn: config.shard.accepts_per_turn.count(),
            most_asking: most_asking(config, plan.count),
            slice_sends: config.shard.slice_sends.count(),
            turn_sends: config.shard.turn_sends.count(),
            rest_ms: plan.rest_ms,
            send: config.shard.send,
            order_queue: config.shard.order_queue.count(),
            backlog_bytes: config.shard.backlog_bytes.count(),
            block_bytes: config.shard.block_bytes.count(),
            merge: merge_windows(config),
            bilibili_room_type: config.bilibili.room_type.as_str().into(),
            limits: config.limits,
            seat: steering.map(|steering| steering.seat(id)),
        };
        match spawn(settings, desk.clone(), presence) {
            Ok((running, start)) => {
                shards.push(running);
                (tcp, websocket) = start;
            }
            Err(error) => {
                for shard in shards {
                    // The queue of a shard that has just begun is empty.
                    let _queued = shard.handle.queue(Order::Stop);
                    shard.handle.wake();
                }
                return Err(ApplianceError::Shard { id, error });
            }
        }
    }
    Ok((shards, tcp, websocket))
}

/// A shard's part of what may be upstream without an answer. Half of it stays free for messages, and for clients that were
/// taken in before they asked.
fn most_asking(config: &Config, shards: u16) -> u32 {
    (config.trunk.pending.get_u32() / 2 / u32::from(shards)).max(1)
}

fn merge_windows(config: &Config) -> MergeWindows {
    let by_type = config.shard.merge_ms_by_type.iter().map(|(kind, window)| (kind.clone(), window.get_u32()));
    MergeWindows { default_ms: config.shard.merge_ms.get_u32(), by_type: by_type.collect() }
}

fn start_trunk(parts: Parts) -> io::Result<TrunkThread> {
    let (stop, stops) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new()
        .name("trunk".to_owned())
        .spawn(move || runtime.block_on(trunk::run(parts, stops)))?;
    Ok(TrunkThread { thread, stop })
}

fn node_address(config: &Config, tcp: &[SocketAddr], websocket: &[SocketAddr]) -> NodeAddress {
    let mut addresses = config.node.addresses.clone();
    if addresses.is_empty() {
        addresses = tcp.iter().chain(websocket).map(|address| address.ip().to_string()).collect();
        addresses.sort_unstable();
        addresses.dedup();
    }
    NodeAddress {
        hostname: config.node.hostname.clone(),
        addresses,
        tcp_port: u32::from(tcp.first().map_or(0, SocketAddr::port)),
        ws_port: u32::from(websocket.first().map_or(0, SocketAddr::port)),
        wss_port: 0,
        region: config.node.region.clone(),
        zone: config.node.zone.clone(),
        weight: config.node.weight,
    }
}
