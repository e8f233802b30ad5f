//! `perf-tests clients`: from the command line to a scenario, and from a report to the screen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use perf_tests::load::engine::Engine;
use perf_tests::load::engine::socket::SocketEngine;
use perf_tests::load::run::run as conduct;
use perf_tests::load::scenario::{Dialect, Publish, Scenario, Transport, open_handshakes, threads_for};
use perf_tests::load::table::Table;
use perf_tests::load::watch::Display;
use wire::goim::op;

use super::behaviour::BehaviourArguments;
use super::fallback;
use super::process::{raise_descriptor_limit, stop_on_signals};
use super::xdp::{self, Server};

/// Connections per source address and destination: below the 28,232 ephemeral ports that Linux offers by default.
pub(super) const CLIENTS_PER_SOURCE: u32 = 20_000;

const EXAMPLES: &str = "\
Examples:
  One room of 10,000 viewers on TCP, 20 messages a second, 1,000 in all:
    perf-tests clients --clients 10000 --messages 1000 --publish-rate 20
  The same on WebSocket in the Bilibili dialect, over 100 rooms, as JSON:
    perf-tests clients --clients 10000 --transport websocket --dialect bilibili --rooms 100 --json
  Idle connections that only say they are alive, for ten minutes:
    perf-tests clients --clients 100000 --listen-only --listen-seconds 600 --heartbeat-seconds 60 --tolerate-loss
  A ramp from 1,000 to 20,000 connects a second within half a minute:
    perf-tests clients --clients 200000 --rate 1000 --ramp-to 20000 --ramp-seconds 30 --messages 10
  200 clients a second go, every other one by reset, and are back after half a second, while messages fly:
    perf-tests clients --clients 10000 --churn 200 --goodbye mixed --away-ms 500
  One of a hundred stops reading; the others must miss nothing, and the server must close the stuck ones:
    perf-tests clients --clients 10000 --stop-reading 0.01 --slow-buffer 4096 --message-bytes 4000 --closes-within 30
  One of a hundred falls silent, and the server's liveness has to find it:
    perf-tests clients --clients 10000 --silent 0.01 --heartbeat-seconds 30 --closes-within 600
  Half of all clients reconnect at once, two seconds after the first message:
    perf-tests clients --clients 10000 --storm 0.5 --storm-after 2
  A push to one client at a time, by user id:
    perf-tests clients --clients 10000 --push-to mids --publish-rate 500
  20,000 clients made of XDP, which take hardly any of the host, on daemons that it starts itself (as root):
    perf-tests clients --engine xdp --connections 20000 --broadcasts 100
  The same with a server of yours, whose TCP port is 3101 and whose publisher API is 3111, in the namespace theirs:
    perf-tests clients --engine xdp --netns theirs --connect 10.0.0.1:3101 --http 127.0.0.1:3111 --connections 20000

Clients that were told not to read as they should are owed nothing: the report says which of them the server closed,
and why, and which are stuck. Who goes and comes back is owed what is published while it is there; what was under way
when it went is counted as in doubt.

Exit code 0: all joined and all was heard, once and in order. 1: not so. 2: the run could not be made.
Ctrl-C ends a run early and still prints what was found; a second one ends it at once.";

/// Many socket clients, each message numbered: completeness, order and delay.
///
/// Clients join rooms, a publisher posts numbered and stamped messages through the HTTP API, and every client's numbers
/// are checked for what is missing, doubled or out of order. Clients and publisher share this host's clock.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What holds the clients
    #[arg(long, value_enum, default_value_t = EngineName::Socket)]
    engine: EngineName,
    /// Clients in all
    #[arg(long, short = 'n', visible_alias = "connections", default_value_t = 1000)]
    clients: u32,
    /// Threads, each with a descriptor table of its own [default: the CPUs, or as many as the clients need]
    #[arg(long, short = 't')]
    threads: Option<usize>,
    /// Where the clients connect; several are taken in turn [default: 127.0.0.1:3101, or :3102 for WebSocket]
    #[arg(long, value_delimiter = ',')]
    connect: Vec<SocketAddr>,
    /// With --engine xdp: the network namespace in which a server of yours listens at --connect, as ip netns names it or as a
    /// path (/proc/PID/ns/net). The publisher runs in there too
    #[arg(long, value_name = "NAME|PATH", requires = "connect")]
    netns: Option<PathBuf>,
    /// With --engine xdp: clients and server speak IPv6. With --netns it is --connect that says so
    #[arg(long, conflicts_with = "netns")]
    ipv6: bool,
    /// What carries the packets
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,
    /// What the clients speak
    #[arg(long, value_enum, default_value_t = Dialect::Goim)]
    dialect: Dialect,
    /// First source address; the others follow it
    #[arg(long, default_value_t = Ipv4Addr::new(127, 0, 0, 2))]
    first_source: Ipv4Addr,
    /// Source addresses; 0 lets the kernel choose [default: one per 20,000 clients on loopback, else 0]
    #[arg(long)]
    sources: Option<u32>,
    /// Connects begun per second; 0 is as fast as the open handshakes allow
    #[arg(long, default_value_t = 5000.0)]
    rate: f64,
    /// Handshakes of a thread under way at once
    #[arg(long, default_value_t = open_handshakes())]
    open_handshakes: usize,
    /// Rooms; the clients are spread over them evenly
    #[arg(long, default_value_t = 1)]
    rooms: u32,
    /// The part of a room's name before ://
    #[arg(long, default_value = "live")]
    room_type: String,
    /// Number of the first room
    #[arg(long, default_value_t = 1000)]
    first_room: u32,
    /// User id of the first client
    #[arg(long, default_value_t = 1)]
    first_mid: i64,
    /// Credential that every client brings
    #[arg(long, default_value = "")]
    token: String,
    /// Milliseconds that a client thread sleeps between two looks at its sockets; spares the server the waking, blurs delays
    #[arg(long, value_name = "MS", default_value_t = 0)]
    rest_ms: u64,
    /// Seconds between a client's heartbeats; 0 sends none
    #[arg(long, default_value_t = 60.0)]
    heartbeat_seconds: f64,
    /// The publisher API
    #[arg(long, default_value = "127.0.0.1:3111")]
    http: SocketAddr,
    /// The publisher's key
    #[arg(long, default_value = "")]
    api_key: String,
    /// Messages to publish, over all rooms in turn
    #[arg(long, short = 'm', visible_alias = "broadcasts", default_value_t = 1000)]
    messages: u64,
    /// Messages per second, over all rooms; 0 is as fast as the tier answers
    #[arg(long, default_value_t = 50.0)]
    publish_rate: f64,
    /// Length of each message's body
    #[arg(long, default_value_t = 128)]
    message_bytes: usize,
    /// Publishing connections; a room's messages always use the same one
    #[arg(long, default_value_t = 8)]
    publishers: usize,
    /// Of them, those that may publish to one room at once; above 1 the order of its messages is nobody's
    #[arg(long, default_value_t = 1)]
    abreast: usize,
    /// Operation of the pushes [default: 1000, in the Bilibili dialect 5]
    #[arg(long)]
    operation: Option<i32>,
    /// Publish nothing: only hear what another run publishes
    #[arg(long, conflicts_with_all = ["messages", "publish_rate"])]
    listen_only: bool,
    /// How long to listen with --listen-only
    #[arg(long, default_value_t = 30.0)]
    listen_seconds: f64,
    /// The run to listen to, as its report names it; 0 takes the first one heard
    #[arg(long, default_value_t = 0, requires = "listen_only")]
    run: u32,
    /// Seconds that everybody may take to join, beyond twice the pace
    #[arg(long, default_value_t = 30.0)]
    build_seconds: f64,
    /// Seconds without a new message, after the last was published, until the missing ones count as lost
    #[arg(long, default_value_t = 10.0)]
    settle_seconds: f64,
    /// Milliseconds to listen on when everything has come, for what should not
    #[arg(long, default_value_t = 300)]
    linger_ms: u64,
    /// Let losses, refusals and closed connections pass; duplicates and disorder never do
    #[arg(long)]
    tolerate_loss: bool,
    #[command(flatten)]
    behaviour: BehaviourArguments,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as JSON to this file too
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// Whether the run passed.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let limit = raise_descriptor_limit();
    let scenario = arguments.scenario(limit)?;
    scenario.check(limit)?;
    let stop = stop_on_signals()?;
    let mut display = Display::default();
    let mut report = match arguments.engine {
        EngineName::Socket => {
            if arguments.netns.is_some() {
                return Err("--netns is for --engine xdp: for sockets, run all of it in there (ip netns exec)".into());
            }
            if arguments.ipv6 {
                return Err("--ipv6 is for --engine xdp: for sockets, give --connect an IPv6 address".into());
            }
            let engine = |scenario: &Scenario| Ok(Box::new(SocketEngine::start(scenario)?) as Box<dyn Engine>);
            conduct(scenario, engine, &stop, &mut display)?
        }
        EngineName::Xdp | EngineName::XdpOrSocket => {
            arguments.check_for_xdp()?;
            xdp::check(&scenario)?;
            let server = match &arguments.netns {
                None => Server::Ours { is_ipv6: arguments.ipv6 },
                Some(name) => Server::Theirs(name),
            };
            match xdp::bring_up(&scenario, server) {
                Ok(rig) => xdp::run(&rig, scenario, server, &stop, &mut display)?,
                Err(why) if arguments.engine == EngineName::XdpOrSocket => {
                    fallback::run(scenario, server, why, &stop, &mut display)?
                }
                Err(why) => return Err(why.into()),
            }
        }
    };
    drop(display);
    report.faults = report.judge(arguments.tolerate_loss);
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(path) = &arguments.save {
        std::fs::write(path, &json)
            .map_err(|error| format!("cannot write the report to {}: {error}", path.display()))?;
    }
    if arguments.json {
        println!("{json}");
    } else {
        print!("{}", Table(&report));
    }
    Ok(report.faults.is_empty())
}

/// What holds the clients of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    /// A kernel socket for each, wherever the server is
    Socket,
    /// No socket: an XDP program plays them all, against daemons that the run starts in a namespace of its own, or against a
    /// server of yours in its namespace. Takes root
    Xdp,
    /// The same where it can be had, and sockets where it cannot, with loud words about it
    XdpOrSocket,
}

impl Arguments {
    /// What clients made of XDP have no use for.
    fn check_for_xdp(&self) -> Result<(), String> {
        let complaint = match (&self.netns, &self.connect[..]) {
            (Some(_), [_]) => return Ok(()),
            (Some(_), _) => "clients made of XDP connect to one address: say --connect once",
            (None, [_, ..]) => {
                "--engine xdp starts the daemons itself, in a namespace of its own: leave out --connect, or say with --netns \
                 in which network namespace your server is"
            }
            (None, []) if self.listen_only => {
                "--engine xdp starts the daemons itself, so nobody else can publish: leave out --listen-only, or say with \
                 --netns and --connect where a server of yours is"
            }
            (None, []) => return Ok(()),
        };
        Err(complaint.to_owned())
    }

    fn scenario(&self, descriptor_limit: u64) -> Result<Scenario, String> {
        let port = if self.transport == Transport::Tcp { 3101 } else { 3102 };
        let connect = match self.connect.is_empty() {
            true => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))],
            false => self.connect.clone(),
        };
        let on_loopback = connect.iter().all(|to| matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback()));
        let usual = if self.dialect == Dialect::Bilibili { op::SEND_MESSAGE_REPLY } else { op::FIRST_OF_APPLICATION };
        let operation = self.operation.unwrap_or(usual);
        Ok(Scenario {
            connect,
            transport: self.transport,
            dialect: self.dialect,
            clients: self.clients,
            threads: self.threads.unwrap_or_else(|| {
                let cpus = std::thread::available_parallelism().map_or(1, usize::from);
                // Fewer threads than clients at least, so that none is without any.
                cpus.min(self.clients as usize).max(threads_for(self.clients, descriptor_limit) as usize)
            }),
            sources: self.sources.unwrap_or(if on_loopback { self.clients.div_ceil(CLIENTS_PER_SOURCE) } else { 0 }),
            first_source: self.first_source,
            connects_per_second: self.rate,
            ramp: self.behaviour.ramp(),
            open_handshakes: self.open_handshakes,
            rooms: self.rooms,
            room_type: self.room_type.clone(),
            first_room: self.first_room,
            first_mid: self.first_mid,
            own_keys: self.behaviour.own_keys.clone(),
            accepts: self.behaviour.accepts(operation),
            behaviour: self.behaviour.behaviour()?,
            token: self.token.clone(),
            api_key: self.api_key.clone(),
            rest: Duration::from_millis(self.rest_ms),
            heartbeat: seconds("--heartbeat-seconds", self.heartbeat_seconds)?,
            publish: (!self.listen_only).then(|| Publish {
                http: self.http,
                messages: self.messages,
                per_second: self.publish_rate,
                message_bytes: self.message_bytes,
                workers: self.publishers,
                abreast: self.abreast,
                operation,
                target: self.behaviour.target(),
            }),
            run: self.run,
            build_within: seconds("--build-seconds", self.build_seconds)?,
            listen_for: seconds("--listen-seconds", self.listen_seconds)?,
            settle: seconds("--settle-seconds", self.settle_seconds)?,
            linger: Duration::from_millis(self.linger_ms),
        })
    }
}

pub(super) fn seconds(option: &str, value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value).map_err(|error| format!("{option} {value}: {error}"))
}
