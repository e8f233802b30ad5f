//! Steering: new connections go to a shard of the CPU that they came in on, by an sk_reuseport program.
//!
//! The tables are made anew by each process, since sockets do not outlive it, and take the pins of those before them; two
//! daemons on the same ports, an old one that drains and its successor, so never mix theirs. Without steering the kernel's hash
//! spreads connections.
//!
//! It does not: listen, accept, or decide when a shard is full. It knows no connection.
//!
//! Layout: [`Steering`] load and pin · [`Seat`] what one shard needs · `report` what is in force, also from the pins · `sys` system
//! calls and the mapping of the shards' words

mod report;
mod seat;
mod sys;

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use abi::steer::{ALL, MAX_CPUS, MAX_SHARDS, PINNED, STEER, ShardState, ShardWord, Span};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{ProgramError, SkReuseport},
};
use rustix::event::{EventfdFlags, eventfd};

use super::{
    config::KernelConfig,
    error::KernelError,
    pin::{self, PinDir},
};
use report::View;
pub use report::{ChoiceCount, ShardReport, SteerReport, steering};
pub use seat::Seat;
use sys::Words;

/// Times that a program is loaded: the verifier gives up when a signal arrives, and can be asked again.
const LOADS: u32 = 5;

/// The program and its tables, not attached to anything yet: each shard does that with its listeners. Ends with the last
/// listener, whatever becomes of this.
pub struct Steering {
    program: OwnedFd,
    sockets: OwnedFd,
    places: OwnedFd,
    bell: OwnedFd,
    words: Arc<Words>,
    view: View,
    claim: Arc<Claim>,
}

impl Steering {
    /// As [`Self::load`], where the settings want it. An edge without it is worse balanced, not wrong: why there is none is
    /// said in the log.
    #[must_use]
    pub fn load_if_wanted(config: &KernelConfig, cpus: &[Option<usize>]) -> Option<Self> {
        if !config.steer {
            tracing::info!("steer = false: the kernel's hash spreads connections over the shards");
            return None;
        }
        match Self::load(config, cpus) {
            Ok(steering) => {
                tracing::info!(shards = cpus.len(), "connections are steered to the CPU that they come in on");
                Some(steering)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot steer connections; the kernel's hash spreads them (steer = false silences this)");
                None
            }
        }
    }

    /// Loads the program from the object of `config`, for shards on `cpus` (one each; none: on no CPU in particular), and pins
    /// its tables under the pin root, which has to be there.
    ///
    /// # Errors
    /// The kernel refuses (before Linux 5.17 it has no loop for the program), or we may not, or there are more shards than fit.
    pub fn load(config: &KernelConfig, cpus: &[Option<usize>]) -> Result<Self, KernelError> {
        if cpus.len() > MAX_SHARDS as usize {
            return Err(KernelError::Config(format!("steer = true: more than {MAX_SHARDS} shards ({})", cpus.len())));
        }
        let pins = PinDir::new(&config.pin_root);
        let mut object = load_object(config, &pins)?;
        let (order, spans) = by_cpu(cpus);
        fill(&mut object, abi::steer::STEER_ORDER, order.into_iter().enumerate())?;
        fill(&mut object, abi::steer::STEER_CPUS, spans)?;
        let program = load_program(&mut object, &config.object)?;
        {
            let _lock = pins.lock()?;
            pin_all(&mut object, &pins)?;
        }
        let [sockets, places, shards] = [abi::steer::STEER_SOCKETS, abi::steer::STEER_PLACES, abi::steer::STEER_SHARDS]
            .map(|name| descriptor(&object, name));
        let shards = shards?;
        let words = Words::map(&shards, MAX_SHARDS as usize)
            .map_err(|error| KernelError::system("map the table of the shards", error))?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| KernelError::system("make the bell of the shards", error))?;
        let sockets = sockets?;
        let claim = Arc::new(Claim { pin: pins.file(abi::steer::STEER_SOCKETS), id: map_id(&sockets)? });
        let view = View::of(|name| MapData::from_fd(descriptor(&object, name)?).map_err(read_failed))?;
        Ok(Self { program, sockets, places: places?, bell, words: Arc::new(words), view, claim })
    }

    /// For the shard with this number. It is not steered to before it says that it is open.
    #[must_use]
    pub fn seat(&self, shard: u16) -> Seat {
        self.words.set(usize::from(shard), ShardWord { state: ShardState::Gone as u32, load: 0 });
        Seat {
            shard,
            program: self.program.as_raw_fd(),
            sockets: self.sockets.as_raw_fd(),
            places: self.places.as_raw_fd(),
            bell: self.bell.as_raw_fd(),
            words: Arc::clone(&self.words),
            claim: Arc::clone(&self.claim),
        }
    }

    /// What [`Seat::ring`] rings, for whoever shares this descriptor table.
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Whether another process has taken the pins since, which does so before it listens.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.claim.is_superseded()
    }

    /// What is in force.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn report(&self) -> Result<SteerReport, KernelError> {
        self.view.report()
    }
}

/// Whose table is pinned is who steers.
#[derive(Debug)]
struct Claim {
    pin: PathBuf,
    /// Of our table.
    id: u32,
}

impl Claim {
    fn is_superseded(&self) -> bool {
        // Without a pin nobody has taken it.
        let pinned = MapData::from_pin(&self.pin);
        pinned.ok().and_then(|map| map.info().ok()).is_some_and(|info| info.id() != self.id)
    }
}

fn read_failed(error: aya::maps::MapError) -> KernelError {
    KernelError::map("look at a table of the steering", error)
}

fn missing(object: &Path, name: &str) -> KernelError {
    KernelError::Load { path: object.into(), reason: format!("it holds no {name} of the right kind") }
}

/// A load of its own beside the filter's: what goes wrong here leaves the filter alone. The filter's tables are there already.
fn load_object(config: &KernelConfig, pins: &PinDir) -> Result<Ebpf, KernelError> {
    let path = &config.object;
    let bytes = fs::read(path).map_err(|source| KernelError::Object { path: path.clone(), source })?;
    let mut loader = EbpfLoader::new();
    for name in abi::maps::ALL.into_iter().filter(|name| pins.file(name).exists()) {
        loader.map_pin_path(name, pins.file(name));
    }
    loader.load(&bytes).map_err(|error| KernelError::load(path, error))
}

fn load_program(object: &mut Ebpf, path: &Path) -> Result<OwnedFd, KernelError> {
    let program = object.program_mut(STEER).and_then(|program| <&mut SkReuseport>::try_from(program).ok());
    let program = program.ok_or_else(|| missing(path, STEER))?;
    let mut loaded = program.load();
    for _ in 1..LOADS {
        match loaded {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {
                loaded = program.load();
            }
            _ => break,
        }
    }
    loaded.map_err(|error| KernelError::load_program(path, error))?;
    let loaded = program.fd().map_err(|error| KernelError::program("take hold of the program steer", error))?;
    own(loaded)
}

fn own(descriptor: impl AsFd) -> Result<OwnedFd, KernelError> {
    let cloned = descriptor.as_fd().try_clone_to_owned();
    cloned.map_err(|error| KernelError::system("duplicate a descriptor of the steering", error))
}

/// The table's own data, whatever aya takes it for.
fn data<'a>(object: &'a Ebpf, name: &str) -> Result<&'a MapData, KernelError> {
    match object.map(name) {
        Some(Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::ReusePortSockArray(data)) => {
            Ok(data)
        }
        _ => Err(missing(Path::new("object"), name)),
    }
}

fn descriptor(object: &Ebpf, name: &str) -> Result<OwnedFd, KernelError> {
    own(data(object, name)?.fd())
}

fn map_id(map: &OwnedFd) -> Result<u32, KernelError> {
    let map = MapData::from_fd(own(map)?).map_err(read_failed)?;
    Ok(map.info().map_err(read_failed)?.id())
}

fn fill<T: aya::Pod>(
    object: &mut Ebpf,
    name: &str,
    entries: impl IntoIterator<Item = (usize, T)>,
) -> Result<(), KernelError> {
    let map = object.map_mut(name).ok_or_else(|| missing(Path::new("object"), name))?;
    let mut array = Array::<_, T>::try_from(map).map_err(read_failed)?;
    for (index, value) in entries {
        array
            .set(index as u32, value, 0)
            .map_err(|error| KernelError::map(format!("write the table {name}"), error))?;
    }
    Ok(())
}

/// Each pin takes its name in one step, so that whoever reads finds the old table or the new.
fn pin_all(object: &mut Ebpf, pins: &PinDir) -> Result<(), KernelError> {
    for name in PINNED {
        let (path, map) = (pins.file(name), data(object, name)?);
        replace_pin(&path, |beside| {
            map.pin(beside).map_err(|error| KernelError::pin(format!("pin {}", path.display()), error))
        })?;
    }
    let (path, program) = (pins.file(STEER), object.program_mut(STEER));
    let Some(program) = program else { return Ok(()) };
    replace_pin(&path, |beside| {
        program.pin(beside).map_err(|error| KernelError::pin(format!("pin {}", path.display()), error))
    })
}

fn replace_pin(path: &Path, make: impl FnOnce(&Path) -> Result<(), KernelError>) -> Result<(), KernelError> {
    let beside = pin::beside(path);
    let failed = |source| KernelError::system(format!("pin {}", path.display()), source);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    make(&beside)?;
    fs::rename(&beside, path).map_err(failed)
}

/// The shards, those of one CPU beside each other, and where those of each CPU stand.
fn by_cpu(cpus: &[Option<usize>]) -> (Vec<u32>, Vec<(usize, Span)>) {
    let mut order: Vec<u32> = (0..cpus.len() as u32).collect();
    order.sort_by_key(|shard| cpus[*shard as usize]);
    let mut spans: Vec<(usize, Span)> = vec![(ALL as usize, Span { first: 0, count: order.len() as u32 })];
    for (position, shard) in order.iter().enumerate() {
        let Some(cpu) = cpus[*shard as usize].filter(|cpu| *cpu < MAX_CPUS as usize) else { continue };
        match spans.last_mut() {
            Some((last, span)) if *last == cpu => span.count += 1,
            _ => spans.push((cpu, Span { first: position as u32, count: 1 })),
        }
    }
    (order, spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_of_a_cpu_stand_beside_each_other() {
        let span = |first, count| Span { first, count };
        let (order, spans) = by_cpu(&[Some(0), Some(3), Some(0), Some(3), Some(0)]);
        assert_eq!(order, [0, 2, 4, 1, 3]);
        assert_eq!(spans, [(ALL as usize, span(0, 5)), (0, span(0, 3)), (3, span(3, 2))]);
        assert_eq!(by_cpu(&[None, None]), (vec![0, 1], vec![(ALL as usize, span(0, 2))]), "no CPU in particular");
    }
}
