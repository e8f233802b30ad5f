//! Shaping of what leaves for an ISP's clients: sets it up, finds it again, keeps it working, takes it down.
//!
//! The program and the interface's root queue work together in one of two ways. With `fq` the program gives each packet its
//! departure time, and a rate changes by changing it in the tables. With HTB it gives each packet a class, and the classes
//! have to follow the tables: whoever changes a rate sees to it, and the daemon looks once a second (a trial that runs
//! out changes rates too). A root queue that somebody set up is never touched: then there is no shaping, unless it is `fq`.
//!
//! Layout: `queue` the queues and classes · `hook` where the program is attached · `message` netlink · here: what to do when.

mod hook;
mod message;
mod queue;

use std::{fmt, path::Path};

use abi::shaping::{CLASSES, DEPARTURES, OFF, Shaping};
use aya::programs::ProgramInfo;
use serde::{Deserialize, Serialize};

use self::queue::Root;
use super::{
    attach::{self, Interface},
    config::KernelConfig,
    error::KernelError,
    load::Loaded,
    pin::PinDir,
    tables::Tables,
};

/// What holds packets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// `fq`, by departure times: each of the hardware's queues has its own, and CPUs do not wait for each other.
    Fq,
    /// HTB, by classes: one lock for all that the interface sends.
    Htb,
}

impl Backend {
    /// The word in the config file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Fq => "fq",
            Backend::Htb => "htb",
        }
    }

    pub(super) const fn from_kernel(shaping: &Shaping) -> Option<Backend> {
        match shaping.backend {
            DEPARTURES => Some(Backend::Fq),
            CLASSES => Some(Backend::Htb),
            _ => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What the daemon keeps in order.
pub(super) struct Shape {
    interface: Interface,
    wanted: Option<Backend>,
    horizon_ns: u64,
    /// What works now, or why nothing does.
    state: Result<Backend, String>,
}

impl Shape {
    /// Attaches the program, or swaps the one that is there in one step, and sets up what holds packets back.
    pub(super) fn bring_up(
        config: &KernelConfig,
        interface: &Interface,
        loaded: &mut Loaded,
        pins: &PinDir,
        tables: &Tables,
    ) -> Result<Self, KernelError> {
        let before = tables.shaping()?;
        if before.interface_index != 0
            && (before.interface_index, before.namespace) != (interface.index, interface.namespace)
        {
            leave(pins, tables)?;
        }
        let failed = |error| KernelError::system("look at what runs at the interface's egress", error);
        let running = hook::attached(interface.index, pins).map_err(failed)?;
        loaded.shape()?;
        if !is_current(running, loaded, pins)? {
            loaded.pin_program(abi::maps::SHAPE, pins)?;
            let made = hook::attach(loaded.shape()?, interface, pins, running.is_some())?;
            let before = tables.shaping()?;
            // Noted at once: whatever fails now, `take_down` knows what is ours.
            tables.set_shaping(Shaping {
                interface_index: interface.index,
                namespace: interface.namespace,
                clsact_is_ours: u32::from(made || before.clsact_is_ours == 1),
                ..before
            })?;
        }
        let mut shape = Self {
            interface: interface.clone(),
            wanted: config.shape_by,
            horizon_ns: u64::from(config.drop_horizon_ms) * 1_000_000,
            state: Err(String::new()),
        };
        shape.set_up(tables)?;
        Ok(shape)
    }

    /// What holds packets back now, or why nothing does.
    pub(super) fn state(&self) -> Result<Backend, &str> {
        self.state.as_ref().copied().map_err(String::as_str)
    }

    /// Sees to it that shaping goes on as the interface and the tables are now. Says what changed, for the log.
    pub(super) fn keep(&mut self, tables: &Tables) -> Result<Option<String>, KernelError> {
        let before = self.state.clone();
        self.set_up(tables)?;
        if self.state == before {
            return Ok(None);
        }
        let name = &self.interface.name;
        Ok(Some(match &self.state {
            Ok(backend) => format!("what leaves {name} is shaped by {backend} from now on"),
            Err(reason) => format!("what leaves {name} is not shaped any more: {reason}"),
        }))
    }

    fn set_up(&mut self, tables: &Tables) -> Result<(), KernelError> {
        let index = self.interface.index;
        let root = queue::root(index).map_err(|error| self.failed("list its queues", error))?;
        self.state = self.choose(root)?;
        let root = queue::root(index).map_err(|error| self.failed("list its queues", error))?;
        let before = tables.shaping()?;
        let backend = match self.state {
            Ok(Backend::Fq) => DEPARTURES,
            Ok(Backend::Htb) => CLASSES,
            Err(_) => OFF,
        };
        // Classes first: a packet that names one that is not there would go unhindered.
        if backend == CLASSES {
            let isps = tables.isps_in_force()?;
            queue::follow(index, &isps, self.horizon_ns).map_err(|error| self.failed("set up HTB's classes", error))?;
        }
        let now = Shaping {
            backend,
            horizon_ns: self.horizon_ns,
            queue_is_ours: u32::from(matches!(root, Root::Htb | Root::Fq { ours: true })),
            ..before
        };
        if now != before { tables.set_shaping(now) } else { Ok(()) }
    }

    /// What is to hold packets back, made where it is not there yet.
    fn choose(&self, root: Root) -> Result<Result<Backend, String>, KernelError> {
        let index = self.interface.index;
        let several = match (root, self.wanted) {
            (Root::Fq { .. }, None | Some(Backend::Fq)) => return Ok(Ok(Backend::Fq)),
            (Root::Htb, None | Some(Backend::Htb)) => return Ok(Ok(Backend::Htb)),
            (Root::Htb | Root::Fq { ours: true }, _) => {
                queue::remove(index).map_err(|error| self.failed("remove the queue that we set up", error))?;
                matches!(queue::root(index), Ok(Root::Default(true)))
            }
            (Root::Default(several), _) => several,
            (Root::Fq { ours: false }, Some(Backend::Htb)) => return Ok(Err(self.taken("fq"))),
            (Root::Other(kind), _) => return Ok(Err(self.taken(&kind))),
        };
        if self.wanted != Some(Backend::Htb) {
            match queue::make_fq(index, several) {
                Ok(()) => return Ok(Ok(Backend::Fq)),
                Err(error) if self.wanted.is_some() => return Ok(Err(self.lacks(Backend::Fq, &error))),
                // What kernels without it say; HTB is there for them.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(self.failed("set up fq", error)),
            }
        }
        match queue::make_htb(index) {
            Ok(()) => Ok(Ok(Backend::Htb)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Err(self.lacks(Backend::Htb, &error))),
            Err(error) => Err(self.failed("set up HTB", error)),
        }
    }

    fn taken(&self, kind: &str) -> String {
        let name = &self.interface.name;
        format!(
            "its root queue is {kind}, which somebody else set up (`tc qdisc del dev {name} root` if nobody needs it)"
        )
    }

    fn lacks(&self, backend: Backend, error: &std::io::Error) -> String {
        format!("the kernel has no {backend}: {error} (`modprobe sch_{backend}`)")
    }

    fn failed(&self, doing: &str, source: std::io::Error) -> KernelError {
        KernelError::system(format!("shape what leaves {}: {doing}", self.interface.name), source)
    }
}

/// Whether what runs is the pinned program, with the same instructions and maps as the loaded one.
fn is_current(running: Option<u32>, loaded: &mut Loaded, pins: &PinDir) -> Result<bool, KernelError> {
    let Some(running) = running else { return Ok(false) };
    match ProgramInfo::from_pin(pins.file(abi::maps::SHAPE)) {
        Ok(pinned) if pinned.id() == running => loaded.is_same_as(abi::maps::SHAPE, &pinned, pins),
        _ => Ok(false),
    }
}

/// Makes HTB's classes those of the rates in force, if it is HTB that shapes and its interface is in reach.
pub(super) fn follow(tables: &Tables) -> Result<(), KernelError> {
    let shaping = tables.shaping()?;
    if shaping.backend != CLASSES || shaping.namespace != attach::namespace_inode()? {
        return Ok(());
    }
    let failed = |error| {
        let doing =
            "change the rates of HTB's classes; the tables have the new ones already, and the daemon tries again";
        KernelError::system(doing, error)
    };
    let isps = tables.isps_in_force()?;
    queue::follow(shaping.interface_index, &isps, shaping.horizon_ns).map(drop).map_err(failed)
}

/// Ends shaping: takes the program away and the queues that are ours. Those of an interface in another network namespace
/// stay, and hold nothing back without the program.
pub(super) fn leave(pins: &PinDir, tables: &Tables) -> Result<(), KernelError> {
    let shaping = tables.shaping()?;
    tables.set_shaping(Shaping { backend: OFF, ..shaping })?;
    if shaping.interface_index != 0 && shaping.namespace == attach::namespace_inode()? {
        hook::detach(shaping.interface_index, pins, shaping.clsact_is_ours == 1)?;
        let failed = |error| KernelError::system("remove the queue that shaping set up", error);
        // None is there where the interface is gone.
        if matches!(queue::root(shaping.interface_index), Ok(Root::Htb | Root::Fq { ours: true })) {
            queue::remove(shaping.interface_index).map_err(failed)?;
        }
    } else {
        super::pin::detach(&pins.shape_link())?;
    }
    tables.set_shaping(Shaping::default())
}

/// As [`leave`], for whatever is pinned under `pin_root`, if that is of our layout.
pub(super) fn leave_pinned(pin_root: &Path) -> Result<(), KernelError> {
    let pins = PinDir::new(pin_root);
    if !pins.file(abi::maps::SHAPING).exists() {
        return Ok(());
    }
    match Tables::open(pin_root) {
        Ok(tables) => leave(&pins, &tables),
        // Pins that cannot be read are removed all the same, which detaches what has a link.
        Err(_) => Ok(()),
    }
}
