//! The arrays of maps that a rule set's tables stand in, made before the object is loaded, which then finds them pinned.
//!
//! Left to the object, their pattern for an inner map would carry its BTF types, and our inner maps carry none. Before
//! Linux 6.2 the kernel takes such a map for one of another kind (its `timer_off` differs) and refuses it with EINVAL.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use abi::{generation::GENERATIONS, rules::RuleValue};
use aya::{Pod, maps::lpm_trie};

use super::{address::Address, table::Key};
use crate::kernel::{
    error::KernelError,
    pin::PinDir,
    sys::{self, maps},
};

/// Makes and pins those that are not there.
pub(in crate::kernel) fn make(pins: &PinDir) -> Result<(), KernelError> {
    make_family::<Ipv4Addr>(pins)?;
    make_family::<Ipv6Addr>(pins)
}

fn make_family<A: Address>(pins: &PinDir) -> Result<(), KernelError> {
    make_one::<A::Host, RuleValue>(pins, A::HOSTS)?;
    make_one::<lpm_trie::Key<A::InTrie>, RuleValue>(pins, A::PREFIXES)?;
    make_one::<lpm_trie::Key<A::InTrie>, u32>(pins, A::ISPS)
}

fn make_one<K: Key, V: Pod>(pins: &PinDir, name: &'static str) -> Result<(), KernelError> {
    let path = pins.file(name);
    if path.exists() {
        return Ok(());
    }
    let make = || -> io::Result<()> {
        // How many entries an inner map holds is no part of the pattern.
        let pattern = maps::create::<K, V>(K::KIND, name, 1)?;
        sys::pin(maps::create_outer(name, GENERATIONS, &pattern)?, &path)
    };
    make().map_err(|error| KernelError::system(format!("make the table {}", path.display()), error))
}
