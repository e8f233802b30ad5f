//! `cargo xtask bench`: the appliance under load, built with optimisation, on loopback.
//!
//! Clients and daemons share this machine's CPUs, so the figures say what this machine did, not what a host can do.
//! Each row is a run of `perf-tests clients`, which fails when a message is lost, doubled or out of order.

use std::fs;
use std::process::Command;

use crate::rig::appliance::{Appliance, Plan, Ports};
use crate::run::{build, lock};
use crate::setup::{self, Purpose};
use crate::workspace;

/// Away from the ports of `run`, so that both can be up.
const BASE_PORT: u16 = 3300;

/// Options of `bench`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask bench --clients 10000")]
pub(crate) struct Arguments {
    /// Clients of each row
    #[arg(long, default_value_t = 5_000)]
    clients: u32,
    /// Messages published in each row
    #[arg(long, default_value_t = 200)]
    messages: u32,
}

/// A row: what it is, and the generator's options for it.
const ROWS: [(&str, &[&str]); 4] = [
    ("TCP, goim, one room", &["--transport", "tcp", "--rooms", "1"]),
    ("WebSocket, goim, one room", &["--transport", "websocket", "--rooms", "1"]),
    ("WebSocket, Bilibili, one room", &["--transport", "websocket", "--dialect", "bilibili", "--rooms", "1"]),
    ("TCP, goim, 100 rooms", &["--transport", "tcp", "--rooms", "100"]),
];

/// Builds, starts the appliance, and runs every row.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    setup::ensure(Purpose::Build)?;
    let binaries = build(true)?;
    let directory = workspace::target().join("run/bench");
    fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let _lock = lock(&directory)?;
    let ports = Ports::from_base(BASE_PORT);
    let plan = Plan {
        prefix: "bench",
        binaries: &binaries,
        directory: &directory,
        object: None,
        generic: false,
        ports: &ports,
    };
    let mut appliance = Appliance::start(&plan)?;
    let mut failed = Vec::new();
    for (name, options) in ROWS {
        println!("\n== {name}");
        let port = if options.contains(&"websocket") { ports.websocket } else { ports.tcp };
        let mut load = Command::new(binaries.join("perf-tests"));
        load.arg("clients")
            .args(options)
            .args(["--clients", &arguments.clients.to_string(), "--messages", &arguments.messages.to_string()])
            .args(["--connect", &format!("127.0.0.1:{port}"), "--http", &format!("127.0.0.1:{}", ports.publisher)]);
        if let Err(error) = workspace::run(&mut load) {
            eprintln!("xtask: {error}");
            failed.push(name);
        }
        appliance.look_after()?;
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("rows that failed: {}", failed.join(", "))) }
}
