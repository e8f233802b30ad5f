//! One map of a rule set: a hash or a trie from a key to a value, pinned by name and generation.
//!
//! An empty table has no map: the packet path then skips it, and it takes no memory. It does not know what its values mean.

use std::{
    fs, io,
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use aya::{Pod, maps::MapData};

use crate::kernel::{
    error::KernelError,
    pin::PinDir,
    sys::maps::{self, Kind},
};

/// Where a table lives: its name, its generation, what it may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Name of the array of maps.
    pub(super) name: &'static str,
    /// Place in it.
    pub(super) generation: u32,
    /// Entries that fit, once it is made.
    pub(super) max_entries: u32,
    /// The config key that sets `max_entries`.
    pub(super) bound: &'static str,
}

impl Place {
    /// The pin of the map in this place. (A bpffs allows no dot in a name.)
    fn pin(&self, pins: &PinDir) -> PathBuf {
        pins.file(&format!("{}_{}", self.name, self.generation))
    }
}

/// A map from `K` to `V`, or none.
pub(super) struct Table<K, V> {
    place: Place,
    map: Option<OwnedFd>,
    entry: PhantomData<(K, V)>,
}

/// The kind of map that a key asks for.
pub(super) trait Key: Pod {
    const KIND: Kind;
}

impl Key for abi::rules::V4 {
    const KIND: Kind = Kind::Hash;
}

impl Key for abi::rules::V6 {
    const KIND: Kind = Kind::Hash;
}

impl<A: Pod> Key for aya::maps::lpm_trie::Key<A> {
    const KIND: Kind = Kind::LpmTrie;
}

impl<K: Key, V: Pod> Table<K, V> {
    /// The table as it is pinned; empty when it is not.
    pub(super) fn open(pins: &PinDir, place: Place) -> Result<Self, KernelError> {
        let path = place.pin(pins);
        let map = match crate::kernel::sys::open_pinned(&path) {
            Ok(map) => Some(map),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(KernelError::system(format!("open the table {}", path.display()), error)),
        };
        let mut table = Self { place, map, entry: PhantomData };
        if let Some(map) = &table.map {
            table.place.max_entries = check::<K, V>(map, &path)?;
        }
        Ok(table)
    }

    /// Makes a table of `entries` that nobody sees yet.
    pub(super) fn build(place: Place, entries: &[(K, V)]) -> Result<Self, KernelError> {
        let mut table = Self { place, map: None, entry: PhantomData };
        if !entries.is_empty() {
            let map = table.create()?;
            let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
            maps::update_all(&map, &keys, &values).map_err(|error| table.refused(error))?;
            table.map = Some(map);
        }
        Ok(table)
    }

    /// Puts the table into its place, in the stead of what was there.
    pub(super) fn publish(&self, pins: &PinDir, outer: impl AsFd) -> Result<(), KernelError> {
        let path = self.place.pin(pins);
        let failed = |error| KernelError::system(format!("put the table {} into its place", path.display()), error);
        maps::set_inner(outer, self.place.generation, self.map.as_ref()).map_err(failed)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        match &self.map {
            Some(map) => pin(map, &path),
            None => Ok(()),
        }
    }

    /// How many entries fit.
    pub(super) fn max_entries(&self) -> u32 {
        self.place.max_entries
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, KernelError> {
        match &self.map {
            Some(map) => maps::lookup(map, key).map_err(|error| KernelError::system("look a rule up", error)),
            None => Ok(None),
        }
    }

    /// Writes one entry; the first makes the table. Whether this was the first.
    pub(super) fn put(&mut self, pins: &PinDir, outer: impl AsFd, key: &K, value: &V) -> Result<bool, KernelError> {
        let makes = self.map.is_none();
        if makes {
            self.map = Some(self.create()?);
            // In its place before it has a name: dying in between leaves an empty map, which is what its absence means.
            self.publish(pins, outer)?;
        }
        match &self.map {
            Some(map) => maps::update(map, key, value).map(|()| makes).map_err(|error| self.refused(error)),
            None => Ok(false),
        }
    }

    /// Whether there was such an entry.
    pub(super) fn remove(&mut self, key: &K) -> Result<bool, KernelError> {
        match &self.map {
            Some(map) => maps::delete(map, key).map_err(|error| KernelError::system("remove a rule", error)),
            None => Ok(false),
        }
    }

    /// Removes many entries, those that are there.
    pub(super) fn remove_all(&mut self, keys: &[K]) -> Result<(), KernelError> {
        match &self.map {
            Some(map) => maps::delete_all(map, keys).map_err(|error| KernelError::system("remove rules", error)),
            None => Ok(()),
        }
    }

    /// Every entry, in no order.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, KernelError> {
        match &self.map {
            Some(map) => maps::entries(map).map_err(|error| KernelError::system("list the rules", error)),
            None => Ok(Vec::new()),
        }
    }

    fn create(&self) -> Result<OwnedFd, KernelError> {
        let doing = || format!("make the table {} for {} entries", self.place.name, self.place.max_entries);
        maps::create::<K, V>(K::KIND, self.place.name, self.place.max_entries)
            .map_err(|error| KernelError::system(doing(), error))
    }

    fn refused(&self, error: io::Error) -> KernelError {
        match error.raw_os_error() {
            // A hash says the one, a trie the other.
            Some(libc::E2BIG | libc::ENOSPC) => {
                KernelError::TableFull { table: self.place.name, max: self.place.max_entries, key: self.place.bound }
            }
            _ => KernelError::system("write a rule", error),
        }
    }
}

/// That the map is what it should be, and how many entries fit.
fn check<K: Key, V: Pod>(map: &OwnedFd, path: &std::path::Path) -> Result<u32, KernelError> {
    let foreign = |source| KernelError::ForeignPin { path: path.into(), source: Box::new(source) };
    let again = map.try_clone().map_err(|error| KernelError::system("hold a table twice", error))?;
    let info = MapData::from_fd(again).and_then(|data| data.info()).map_err(foreign)?;
    if info.key_size() as usize != size_of::<K>() {
        return Err(foreign(aya::maps::MapError::InvalidKeySize {
            size: info.key_size() as usize,
            expected: size_of::<K>(),
        }));
    }
    if info.value_size() as usize != size_of::<V>() {
        return Err(foreign(aya::maps::MapError::InvalidValueSize {
            size: info.value_size() as usize,
            expected: size_of::<V>(),
        }));
    }
    Ok(info.max_entries())
}

fn pin(map: &OwnedFd, path: &std::path::Path) -> Result<(), KernelError> {
    crate::kernel::sys::pin(map, path)
        .map_err(|error| KernelError::system(format!("pin the table {}", path.display()), error))
}
