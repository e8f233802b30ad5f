//! How the shards are, and where connections were put, as the tables say: the daemon's own, or those that are pinned.

use std::path::Path;

use abi::steer::{
    ALL, CHOICES, Choice, MAX_PLACES, MAX_SHARDS, STEER_COUNTS, STEER_CPUS, STEER_ORDER, STEER_SHARDS, STEER_SOCKETS,
    ShardState, ShardWord, Span, slot,
};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use serde::Serialize;

use super::{
    super::error::{KernelError, io_error_of_map},
    super::pin::PinDir,
    read_failed, sys,
};

/// What there is to say of the steering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SteerReport {
    /// Some shard listens. False: the daemon that made the tables has ended, or every shard is full.
    pub in_force: bool,
    /// The shards, by number.
    pub shards: Vec<ShardReport>,
    /// Connections by where they were put.
    pub choices: Vec<ChoiceCount>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// Its number.
    pub shard: u32,
    /// The CPU that it stays on.
    pub cpu: Option<u32>,
    /// `open`, `full`, `draining` or `gone`. What says `open` and does not listen is `gone`.
    pub state: &'static str,
    /// Connections that it has, or had last.
    pub connections: u32,
    /// Addresses that it listens on.
    pub listeners: u32,
}

/// Connections that were put somewhere for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChoiceCount {
    /// `own_cpu`, `other_cpu`, `crowded`, `kernel_hash`, `refused`; and `migrated`, which counts some of the others again.
    pub choice: &'static str,
    /// How many, over all CPUs.
    pub connections: u64,
    /// The same for each CPU that had any: its number and how many.
    pub by_cpu: Vec<(u32, u64)>,
}

/// The tables, opened for reading.
pub(super) struct View {
    sockets: MapData,
    shards: Array<MapData, ShardWord>,
    order: Array<MapData, u32>,
    /// The CPU of the shard at each position of the order; it never changes.
    cpus: Vec<Option<u32>>,
    counts: PerCpuArray<MapData, u64>,
}

/// How the shards are and where connections were put, as pinned under `pin_root`. `None`: no daemon has steered there.
///
/// # Errors
/// A pin cannot be opened or read.
pub fn steering(pin_root: &Path) -> Result<Option<SteerReport>, KernelError> {
    let pins = PinDir::new(pin_root);
    if !pins.file(STEER_SHARDS).exists() {
        return Ok(None);
    }
    let open = |name: &str| {
        let path = pins.file(name);
        let opened = MapData::from_pin(&path);
        opened.map_err(|error| KernelError::system(format!("open {}", path.display()), io_error_of_map(error)))
    };
    View::of(open)?.report().map(Some)
}

impl View {
    /// Of the tables that `open` finds by name.
    pub(super) fn of(open: impl Fn(&str) -> Result<MapData, KernelError>) -> Result<Self, KernelError> {
        let spans = Array::try_from(Map::Array(open(STEER_CPUS)?)).map_err(read_failed)?;
        Ok(Self {
            sockets: open(STEER_SOCKETS)?,
            shards: Array::try_from(Map::Array(open(STEER_SHARDS)?)).map_err(read_failed)?,
            order: Array::try_from(Map::Array(open(STEER_ORDER)?)).map_err(read_failed)?,
            cpus: cpus_by_position(&spans)?,
            counts: PerCpuArray::try_from(Map::PerCpuArray(open(STEER_COUNTS)?)).map_err(read_failed)?,
        })
    }

    pub(super) fn report(&self) -> Result<SteerReport, KernelError> {
        let mut shards = Vec::with_capacity(self.cpus.len());
        for (position, cpu) in self.cpus.iter().enumerate() {
            let shard = self.order.get(&(position as u32), 0).map_err(read_failed)?;
            let word = self.shards.get(&shard, 0).map_err(read_failed)?;
            let said = ShardState::ALL.into_iter().find(|state| *state as u32 == word.state);
            let state = said.unwrap_or(ShardState::Gone).name();
            shards.push(ShardReport { shard, cpu: *cpu, state, connections: word.load, listeners: 0 });
        }
        self.find_listeners(&mut shards)?;
        for shard in shards.iter_mut().filter(|shard| shard.listeners == 0 && shard.state == ShardState::Open.name()) {
            shard.state = ShardState::Gone.name();
        }
        shards.sort_by_key(|shard| shard.shard);
        let in_force = shards.iter().any(|shard| shard.listeners > 0);
        Ok(SteerReport { in_force, shards, choices: self.choices()? })
    }

    fn find_listeners(&self, shards: &mut [ShardReport]) -> Result<(), KernelError> {
        for place in 0..MAX_PLACES {
            let mut found = false;
            for shard in &mut *shards {
                let has = sys::has_socket(self.sockets.fd(), slot(place, shard.shard));
                let has = has.map_err(|error| KernelError::system("look for a shard's listeners", error))?;
                shard.listeners += u32::from(has);
                found |= has;
            }
            // Addresses are numbered from 0 on.
            if !found {
                break;
            }
        }
        Ok(())
    }

    fn choices(&self) -> Result<Vec<ChoiceCount>, KernelError> {
        let mut choices = Vec::with_capacity(CHOICES as usize);
        for choice in Choice::ALL {
            let counts = self.counts.get(&(choice as u32), 0).map_err(read_failed)?;
            let by_cpu: Vec<_> = (0..).zip(counts.iter().copied()).filter(|(_, count)| *count > 0).collect();
            let connections = by_cpu.iter().map(|(_, count)| count).sum();
            choices.push(ChoiceCount { choice: choice.name(), connections, by_cpu });
        }
        Ok(choices)
    }
}

fn cpus_by_position(spans: &Array<MapData, Span>) -> Result<Vec<Option<u32>>, KernelError> {
    let all = spans.get(&ALL, 0).map_err(read_failed)?;
    let mut cpus = vec![None; all.count.min(MAX_SHARDS) as usize];
    for cpu in 0..ALL {
        let span = spans.get(&cpu, 0).map_err(read_failed)?;
        for position in span.first..span.first.saturating_add(span.count) {
            if let Some(of) = cpus.get_mut(position as usize) {
                *of = Some(cpu);
            }
        }
    }
    Ok(cpus)
}
