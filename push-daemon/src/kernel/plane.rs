//! Brings the filter up, or finds it as the last process left it, and takes it down.
//!
//! The decision is here; the steps are in `load`, `attach` and `pin`.

use std::{fs, io, path::Path};

use abi::settings::{DROP_FRAGMENTS, INTERFACE_NAME_BYTES, OBSERVE, ONLY_LISTED_ADDRESSES, Settings};
use aya::programs::ProgramInfo;
use serde::Serialize;

use super::{
    attach::{self, Interface},
    config::{Fragments, KernelConfig, Mode},
    error::KernelError,
    inspect::{self, Attached, Status},
    load::{self, Loaded},
    measure, migrate, netlink,
    pin::{self, PinDir},
    shape::{self, Backend, Shape},
    sys::{self, LinkInfo},
    tables::{Count, Tables},
    trace::Tracer,
};

/// What bringing the filter up came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Nothing was there; the tables are new and empty.
    Fresh,
    /// The tables were there with their rules, and no filter was attached.
    TablesAdopted,
    /// The filter was in force already, as asked; nothing changed but the settings.
    Adopted,
    /// The filter was in force with another program, which was swapped in one step.
    ProgramSwapped,
    /// The filter was attached elsewhere, or in another mode, and was moved.
    Moved,
}

/// The filter in force, and its tables. Dropping it leaves the filter in force.
pub struct KernelPlane {
    pins: PinDir,
    tables: Tables,
    arrival: Arrival,
    notes: Vec<String>,
    shape: Option<Shape>,
    _tracer: Option<Tracer>,
}

impl KernelPlane {
    /// Puts the filter on the configured interface in the configured mode, with the rules that are pinned already.
    ///
    /// After an error the filter is as it was before, or the error says how not.
    pub fn bring_up(config: &KernelConfig) -> Result<Self, KernelError> {
        config.validate()?;
        // Everything that can be told without touching the kernel comes first.
        fs::metadata(&config.object).map_err(|source| KernelError::Object { path: config.object.clone(), source })?;
        let interface = Interface::find(&config.interface)?;
        let pins = PinDir::new(&config.pin_root);
        let (lock, old) = pins.create(migrate::FROM)?;
        let had_tables = pins.file(abi::maps::SETTINGS).exists();

        let mut loaded = load::load(config, &pins)?;
        let mut tables = Tables::open_at(pins.clone())?;
        if let Some(old) = &old {
            migrate::take_over(&pins, old, &mut tables, (config.max_hosts, config.max_prefixes))?;
        }
        tables.settle()?;
        let before = tables.settings()?;
        let mut notes = Vec::new();
        let namespace_cookie = match sys::namespace_cookie() {
            Ok(cookie) => cookie,
            Err(error) => {
                notes.push(format!(
                    "connections are not measured: the kernel does not tell its namespaces apart: {error}"
                ));
                0
            }
        };
        finish_interrupted_move(&pins)?;
        let arrival = match find_link(&pins)? {
            None => {
                loaded.pin_program(abi::maps::FILTER, &pins)?;
                attach::attach(loaded.program()?, &interface, config.mode, &pins.link())?;
                if had_tables { Arrival::TablesAdopted } else { Arrival::Fresh }
            }
            Some(link) => match place_of(link, &interface)? {
                Place::Here(mode) if mode == config.mode => {
                    // A program that logs is told by nothing else, and its log only comes out where it was loaded.
                    let logs = config.trace || before.trace != 0;
                    if logs { swap(&mut loaded, &pins)? } else { adopt(&mut loaded, link, &pins)? }
                }
                Place::Here(mode) => change_mode(&mut loaded, &interface, mode, config.mode, &pins)?,
                Place::Elsewhere => move_to(&mut loaded, &interface, config.mode, &pins)?,
            },
        };
        // Only now, so that a refusal above leaves the old settings with the old filter. Until here a new filter guards no port.
        tables.set_management(&config.management)?;
        tables.set_protected_addresses(&config.protected_addresses)?;
        tables.set_settings(Settings {
            observe: if config.observe { OBSERVE } else { 0 },
            fragments: if config.fragments == Fragments::Drop { DROP_FRAGMENTS } else { 0 },
            addresses: if config.protected_addresses.is_empty() { 0 } else { ONLY_LISTED_ADDRESSES },
            max_hosts: config.max_hosts,
            max_prefixes: config.max_prefixes,
            namespace_cookie,
            trace: u32::from(config.trace),
            ..record_of(&interface, config.mode, before)
        })?;
        tables.set_protected_ports(&config.protected_ports)?;
        if before.namespace_cookie != namespace_cookie {
            // Connections of another namespace, whose end nobody will tell.
            tables.forget_open()?;
        }
        notes.extend(bring_up_measuring(config, &mut loaded, &pins, &tables)?);
        let shape = bring_up_shaping(config, &interface, &mut loaded, &pins, &tables)?;
        notes.extend(notes_on(config, &tables)?);
        if let Some(old) = &old {
            pin::remove_dir(old)?;
            notes.push(format!("the rules pinned in {} by an earlier version were taken over", old.display()));
        }
        let tracer = if config.trace { Some(Tracer::start(loaded.logger()?)?) } else { None };
        drop(lock);
        if let Some(Err(reason)) = shape.as_ref().map(Shape::state) {
            notes.push(format!("what leaves {} is not shaped: {reason}", interface.name));
        }
        Ok(Self { pins, tables, arrival, notes, shape, _tracer: tracer })
    }

    /// What holds back what leaves, or why nothing does; `None`: it was not asked for.
    #[must_use]
    pub fn shaping(&self) -> Option<Result<Backend, &str>> {
        self.shape.as_ref().map(Shape::state)
    }

    /// Sees to it that shaping goes on as the interface and the rates in force are now; to be called now and then. Hands back a
    /// sentence for the log when something changed.
    pub fn keep_shaping(&mut self) -> Result<Option<String>, KernelError> {
        match &mut self.shape {
            Some(shape) => shape.keep(&self.tables),
            None => Ok(None),
        }
    }

    /// What of the config could not be honoured, in sentences for the log.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How the filter came to be in force.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// The directory of the pins.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        self.pins.path()
    }

    /// The directory that it is in.
    #[must_use]
    pub fn pin_root(&self) -> &Path {
        self.pins.root()
    }

    /// The rules and the counters.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The rules and the counters, to change.
    pub fn tables_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// What is in force, as the kernel tells it.
    pub fn status(&self) -> Result<Status, KernelError> {
        inspect::status_of(&self.pins, &self.tables)
    }

    /// Where the filter runs; cheap, where `status` counts every rule.
    pub fn attached(&self) -> Result<Option<Attached>, KernelError> {
        inspect::attached(&self.pins, &self.tables.settings()?)
    }

    /// Packets and bytes by reason.
    pub fn stats(&self) -> Result<Vec<Count>, KernelError> {
        self.tables.counters()
    }

    /// Detaches the filter and removes its pins, rules included.
    pub fn detach(self) -> Result<usize, KernelError> {
        take_down(self.pins.root())
    }
}

fn bring_up_measuring(
    config: &KernelConfig,
    loaded: &mut Loaded,
    pins: &PinDir,
    tables: &Tables,
) -> Result<Option<String>, KernelError> {
    if config.measure {
        let found = measure::bring_up(config, loaded, pins, tables)?;
        return Ok(found.err().map(|reason| format!("connections are not measured: {reason}")));
    }
    if measure::leave(pins)? {
        tables.forget_open()?;
    }
    Ok(None)
}

fn bring_up_shaping(
    config: &KernelConfig,
    interface: &Interface,
    loaded: &mut Loaded,
    pins: &PinDir,
    tables: &Tables,
) -> Result<Option<Shape>, KernelError> {
    if config.shape {
        return Shape::bring_up(config, interface, loaded, pins, tables).map(Some);
    }
    shape::leave(pins, tables).map(|()| None)
}

/// Detaches every program pinned under `pin_root`, removes the queues that shaping set up, and the pins, of any layout. Says how
/// many pins went; none is no error.
pub fn take_down(pin_root: &Path) -> Result<usize, KernelError> {
    shape::leave_pinned(pin_root)?;
    pin::remove_all(pin_root)
}

/// A table keeps the size that it was made with.
fn notes_on(config: &KernelConfig, tables: &Tables) -> Result<Vec<String>, KernelError> {
    let (hosts, prefixes) = tables.bounds_in_force()?;
    let notes = [("max_hosts", config.max_hosts, hosts), ("max_prefixes", config.max_prefixes, prefixes)];
    let notes = notes.into_iter().filter(|(_, wanted, made)| wanted != made);
    Ok(notes
        .map(|(key, wanted, made)| {
            format!("{key} = {wanted} comes into effect with the next `pushctl apply`: the tables in force hold {made}")
        })
        .collect())
}

/// Where the pinned link is, seen from the interface that was asked for.
enum Place {
    Here(Mode),
    Elsewhere,
}

/// The pinned link. One whose interface is gone is unpinned, as if there were none.
fn find_link(pins: &PinDir) -> Result<Option<LinkInfo>, KernelError> {
    let failed = |source| KernelError::system(format!("open the link {}", pins.link().display()), source);
    let link = match sys::open_pinned(&pins.link()) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let info = sys::link_info(&link, sys::LinkKind::Xdp).map_err(failed)?;
    if info.interface_index != 0 {
        return Ok(Some(info));
    }
    pin::detach(&pins.link())?;
    Ok(None)
}

fn place_of(link: LinkInfo, interface: &Interface) -> Result<Place, KernelError> {
    if link.interface_index != interface.index {
        return Ok(Place::Elsewhere);
    }
    // The same index in another namespace is another interface, but it does not run the link's program.
    let at = netlink::xdp_at(interface.index)
        .map_err(|source| KernelError::system(format!("ask which program {} runs", interface.name), source))?;
    Ok(match at {
        Some(at) if at.program_id == link.program_id => Place::Here(at.mode),
        _ => Place::Elsewhere,
    })
}

fn adopt(loaded: &mut Loaded, link: LinkInfo, pins: &PinDir) -> Result<Arrival, KernelError> {
    // Without it we cannot tell that swapping would change nothing, and swapping does no harm.
    if let Some(running) = pinned_program(pins, link)
        && loaded.is_same_as(abi::maps::FILTER, &running, pins)?
    {
        return Ok(Arrival::Adopted);
    }
    swap(loaded, pins)
}

fn swap(loaded: &mut Loaded, pins: &PinDir) -> Result<Arrival, KernelError> {
    loaded.pin_program(abi::maps::FILTER, pins)?;
    attach::replace_program(loaded.program()?, &pins.link())?;
    Ok(Arrival::ProgramSwapped)
}

/// The kernel does not run two modes on one interface, so the old one goes first, and comes back when the new one fails.
fn change_mode(
    loaded: &mut Loaded,
    interface: &Interface,
    old: Mode,
    new: Mode,
    pins: &PinDir,
) -> Result<Arrival, KernelError> {
    loaded.pin_program(abi::maps::FILTER, pins)?;
    pin::detach(&pins.link())?;
    let Err(mut error) = attach::attach(loaded.program()?, interface, new, &pins.link()) else {
        return Ok(Arrival::Moved);
    };
    let restored = attach::attach(loaded.program()?, interface, old, &pins.link());
    if let KernelError::Attach { consequence, .. } = &mut error {
        *consequence = match restored {
            Ok(()) => format!("; the filter stays in {old} mode"),
            Err(again) => format!("; and the filter that ran in {old} mode could not be put back: {again}"),
        };
    }
    Err(error)
}

/// The new place first, then the old one goes: at no moment is neither guarded, and a failure leaves the old one.
fn move_to(loaded: &mut Loaded, interface: &Interface, mode: Mode, pins: &PinDir) -> Result<Arrival, KernelError> {
    let beside = pin::beside(&pins.link());
    attach::attach(loaded.program()?, interface, mode, &beside)?;
    loaded.pin_program(abi::maps::FILTER, pins)?;
    pin::detach(&pins.link())?;
    rename_link(&beside, pins)?;
    Ok(Arrival::Moved)
}

/// A process that died within `move_to` left its new link under the name beside.
fn finish_interrupted_move(pins: &PinDir) -> Result<(), KernelError> {
    let beside = pin::beside(&pins.link());
    if !beside.exists() {
        return Ok(());
    }
    if pins.link().exists() { pin::detach(&beside).map(drop) } else { rename_link(&beside, pins) }
}

fn rename_link(beside: &Path, pins: &PinDir) -> Result<(), KernelError> {
    fs::rename(beside, pins.link())
        .map_err(|source| KernelError::system(format!("rename {}", beside.display()), source))
}

/// The program that the link runs, if it is the pinned one. Asked of the pin, not of the kernel's list of all programs,
/// which takes CAP_SYS_ADMIN to read.
fn pinned_program(pins: &PinDir, link: LinkInfo) -> Option<ProgramInfo> {
    let program = ProgramInfo::from_pin(pins.file(abi::maps::FILTER)).ok()?;
    (program.id() == link.program_id).then_some(program)
}

fn record_of(interface: &Interface, mode: Mode, settings: Settings) -> Settings {
    let mut interface_name = [0; INTERFACE_NAME_BYTES];
    // `validate` bounded the name; the last byte stays zero.
    for (to, from) in interface_name.iter_mut().zip(interface.name.bytes().take(INTERFACE_NAME_BYTES - 1)) {
        *to = from;
    }
    Settings {
        interface_index: interface.index,
        mode: mode.number(),
        namespace: interface.namespace,
        interface_name,
        ..settings
    }
}
