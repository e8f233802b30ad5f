//! `cargo xtask run`: the whole appliance on this machine, to look at and to type into.
//!
//! As root the edge lives in a network namespace behind a veth pair with the filter on it, and the host's loopback
//! ports lead to it through the viewers' namespace. Without root it runs on loopback, without a kernel plane.
//! Ctrl-C takes everything down again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::rig::appliance::{Appliance, Plan, Ports, pin_root};
use crate::setup::{self, Purpose};
use crate::{ebpf, workspace};

/// How often the daemons are looked after.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Options of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build with optimisation, as for measuring
    #[arg(long)]
    release: bool,
    /// Run on loopback, without namespaces and without the filter, even as root
    #[arg(long)]
    no_kernel: bool,
    /// Attach the filter in the kernel's generic path instead of the driver's
    #[arg(long)]
    generic: bool,
    /// Prefix of everything that is made: namespaces, interfaces, pins, files (at most 8 characters)
    #[arg(long, default_value = "push", value_parser = prefix)]
    prefix: String,
    /// Ports on the host: base+1 TCP, base+2 WebSocket, base+11 publisher API, base+90 page
    #[arg(long, default_value_t = 3100, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    base_port: u16,
}

/// Interface names end at 15 characters.
fn prefix(text: &str) -> Result<String, String> {
    let fits =
        (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err("1 to 8 lower-case letters and digits".to_owned()) }
}

/// Sets up, builds, starts, and waits for Ctrl-C.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let with_kernel = !arguments.no_kernel && setup::is_root();
    setup::ensure(if with_kernel { Purpose::Run } else { Purpose::Build })?;
    let object = if with_kernel { Some(ebpf::make()?) } else { None };
    let binaries = build(arguments.release)?;

    let directory = workspace::target().join("run").join(&arguments.prefix);
    fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let _lock = lock(&directory)?;
    let ports = Ports::from_base(arguments.base_port);

    let (stop, stopped) = channel();
    ctrlc::set_handler(move || {
        // The receiver is gone only when we are leaving already.
        let _leaving = stop.send(());
    })
    .map_err(|error| format!("cannot watch for Ctrl-C: {error}"))?;

    let mut appliance = Appliance::start(&Plan {
        prefix: &arguments.prefix,
        binaries: &binaries,
        directory: &directory,
        object: object.as_deref(),
        generic: arguments.generic,
        ports: &ports,
    })?;
    greet(&appliance, arguments, &ports, &binaries);
    loop {
        match stopped.recv_timeout(WATCH_INTERVAL) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => appliance.look_after()?,
        }
    }
    println!("\nstops: daemons, pins, namespaces");
    drop(appliance);
    println!("nothing is left running");
    Ok(())
}

fn greet(appliance: &Appliance, arguments: &Arguments, ports: &Ports, binaries: &Path) {
    let Ports { tcp, websocket, publisher, page, .. } = ports;
    println!("\nThe appliance is up.\n");
    println!("  page        http://127.0.0.1:{page}/");
    println!(
        "  publish     curl -d 'hello' 'http://127.0.0.1:{publisher}/goim/push/room?operation=1000&type=live&room=1000'"
    );
    println!("  clients     tcp 127.0.0.1:{tcp}   websocket ws://127.0.0.1:{websocket}/sub");
    match &appliance.kernel {
        Some(kernel) => {
            let pushctl = binaries.join("pushctl");
            let root = pin_root(&arguments.prefix);
            println!("  filter      on {} in namespace {}", kernel.network.edge_interface(), kernel.network.edge());
            println!("  pushctl     {} --pin-root {} status", pushctl.display(), root.display());
            println!(
                "              {} --pin-root {} filter add 10.203.0.2   (shuts the page's room out)",
                pushctl.display(),
                root.display()
            );
        }
        None => {
            println!("  filter      none: run as root (and without --no-kernel) for the XDP filter on a veth pair")
        }
    }
    println!("\nCtrl-C ends it and takes everything down.");
}

/// Builds all binaries and gives their directory. All at once, so that `run`, `bench` and `test` share what is
/// compiled: the features of a dependency follow from the packages that are built together.
pub(crate) fn build(release: bool) -> Result<PathBuf, String> {
    let mut command = Command::new(workspace::cargo());
    command.args(["build", "--workspace", "--bins"]);
    if release {
        command.arg("--release");
    }
    workspace::run(&mut command)?;
    Ok(workspace::target().join(if release { "release" } else { "debug" }))
}

/// One run of a prefix at a time: what it would find of another is then known to be left over.
pub(crate) fn lock(directory: &Path) -> Result<File, String> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    file.try_lock().map_err(|_| format!("another `cargo xtask` holds {}: end it first", path.display()))?;
    Ok(file)
}
