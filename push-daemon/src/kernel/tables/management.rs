//! The source prefixes that are never denied. They belong to the host, not to a rule set: no transaction touches them.

use aya::maps::{LpmTrie, MapData, MapError};

use super::{address::Address, pinned::open};
use crate::kernel::{error::KernelError, pin::PinDir};

/// The management prefixes of one family.
pub(super) struct Management<A: Address> {
    prefixes: LpmTrie<MapData, A::InTrie, u32>,
}

impl<A: Address> Management<A> {
    pub(super) fn open(pins: &PinDir) -> Result<Self, KernelError> {
        Ok(Self { prefixes: open(pins, A::MANAGEMENT)? })
    }

    /// Length of the prefix that holds `address`.
    pub(super) fn of(&self, address: A) -> Result<Option<u8>, KernelError> {
        match self.prefixes.get(&address.prefix(A::BITS), 0) {
            Ok(length) => Ok(u8::try_from(length).ok()),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(KernelError::map("look a management prefix up", error)),
        }
    }

    /// All of them, sorted.
    pub(super) fn list(&self) -> Result<Vec<(A, u8)>, KernelError> {
        let mut prefixes = Vec::new();
        for key in self.prefixes.keys() {
            let key = key.map_err(|error| KernelError::map("list the management prefixes", error))?;
            // Only this code writes the map, and no prefix is longer than 128.
            prefixes.push((A::from_trie(key.data()), key.prefix_len() as u8));
        }
        prefixes.sort_unstable();
        Ok(prefixes)
    }

    /// Makes `wanted` the management prefixes. New ones come before old ones go, so nobody is unguarded in between.
    pub(super) fn set(&mut self, wanted: &[(A, u8)]) -> Result<(), KernelError> {
        let failed = |error| KernelError::map("write the management prefixes", error);
        for (address, length) in wanted {
            self.prefixes.insert(&address.prefix(*length), u32::from(*length), 0).map_err(failed)?;
        }
        for (address, length) in self.list()? {
            if !wanted.contains(&(address, length)) {
                self.prefixes.remove(&address.prefix(length)).map_err(failed)?;
            }
        }
        Ok(())
    }
}
