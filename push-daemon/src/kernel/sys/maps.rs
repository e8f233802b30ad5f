//! Maps by `bpf(2)`: made without an object, put into an array of maps, and read and written many entries at once.
//!
//! aya makes maps only from an object's definitions, and has no batch operations, without which a million rules take a
//! million system calls. Hashes and tries are treated alike: the kernel's interface is the same.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use aya::Pod;

use super::bpf;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;

const BPF_F_NO_PREALLOC: u32 = 1;

/// `enum bpf_map_type`.
const ARRAY_OF_MAPS: u32 = 12;

/// Entries that one system call moves. More are not faster, and the kernel may be asked to stop in between.
const AT_ONCE: usize = 4096;

/// Room for the kernel's note of where a listing goes on: a key of ours, or a number.
const NOTE_BYTES: usize = 32;

/// The two kinds of map that rules live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Kind {
    Hash,
    LpmTrie,
}

impl Kind {
    /// `enum bpf_map_type`.
    const fn number(self) -> u32 {
        match self {
            Kind::Hash => 1,
            Kind::LpmTrie => 11,
        }
    }
}

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` reads, up to the name.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// The part of `union bpf_attr` that operations on one element read.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that operations on many elements read.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Makes a map whose entries take memory one by one. `name` is for people; the kernel keeps 15 bytes of it.
pub(in crate::kernel) fn create<K: Pod, V: Pod>(kind: Kind, name: &str, max_entries: u32) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        kind: kind.number(),
        key_bytes: size_of::<K>() as u32,
        value_bytes: size_of::<V>() as u32,
        max_entries,
        flags: BPF_F_NO_PREALLOC,
        ..MapCreate::default()
    };
    create_named(attributes, name)
}

/// Makes an array of maps with so many places, for maps like `pattern`.
pub(in crate::kernel) fn create_outer(name: &str, places: u32, pattern: impl AsFd) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        kind: ARRAY_OF_MAPS,
        key_bytes: size_of::<u32>() as u32,
        value_bytes: size_of::<u32>() as u32,
        max_entries: places,
        inner_map: pattern.as_fd().as_raw_fd() as u32,
        ..MapCreate::default()
    };
    create_named(attributes, name)
}

fn create_named(mut attributes: MapCreate, name: &str) -> io::Result<OwnedFd> {
    for (to, from) in attributes.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let descriptor = bpf(BPF_MAP_CREATE, &mut attributes)?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Bytes of a map's keys and values.
pub(in crate::kernel) fn sizes(map: impl AsFd) -> io::Result<(usize, usize)> {
    let map = map.as_fd().try_clone_to_owned()?;
    let info = aya::maps::MapData::from_fd(map).and_then(|data| data.info()).map_err(io::Error::other)?;
    Ok((info.key_size() as usize, info.value_size() as usize))
}

/// The value under `key`.
pub(in crate::kernel) fn lookup<K: Pod, V: Pod>(map: impl AsFd, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attributes = element(map, key);
    attributes.value = value.as_mut_ptr() as u64;
    Ok(found(bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes))?.map(|_| {
        // SAFETY: the kernel filled the whole value, and any bytes are a `V` (it is `Pod`).
        unsafe { value.assume_init() }
    }))
}

/// Writes `value` under `key`.
pub(in crate::kernel) fn update<K: Pod, V: Pod>(map: impl AsFd, key: &K, value: &V) -> io::Result<()> {
    let mut attributes = element(map, key);
    attributes.value = ptr::from_ref(value) as u64;
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Removes what is under `key`. Says whether there was something.
pub(in crate::kernel) fn delete<K: Pod>(map: impl AsFd, key: &K) -> io::Result<bool> {
    Ok(found(bpf(BPF_MAP_DELETE_ELEM, &mut element(map, key)))?.is_some())
}

/// Puts `inner` into `place` of an array of maps; `None` empties the place.
pub(in crate::kernel) fn set_inner(outer: impl AsFd, place: u32, inner: Option<impl AsFd>) -> io::Result<()> {
    match inner {
        Some(inner) => update(outer, &place, &inner.as_fd().as_raw_fd()),
        None => delete(outer, &place).map(drop),
    }
}

/// Writes every pair. On an error some may be written, in the order given.
pub(in crate::kernel) fn update_all<K: Pod, V: Pod>(map: impl AsFd, keys: &[K], values: &[V]) -> io::Result<()> {
    let map = map.as_fd();
    for (keys, values) in keys.chunks(AT_ONCE).zip(values.chunks(AT_ONCE)) {
        let mut attributes = Batch {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len().min(values.len()) as u32,
            map: map.as_raw_fd() as u32,
            ..Batch::default()
        };
        bpf(BPF_MAP_UPDATE_BATCH, &mut attributes)?;
    }
    Ok(())
}

/// Removes every key that is there.
pub(in crate::kernel) fn delete_all<K: Pod>(map: impl AsFd, keys: &[K]) -> io::Result<()> {
    let map = map.as_fd();
    let mut rest = keys;
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(AT_ONCE)];
        let mut attributes = Batch {
            keys: now.as_ptr() as u64,
            count: now.len() as u32,
            map: map.as_raw_fd() as u32,
            ..Batch::default()
        };
        // The kernel stops at a key that is not there, having counted those before it.
        let done = match bpf(BPF_MAP_DELETE_BATCH, &mut attributes) {
            Ok(_) => now.len(),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => attributes.count as usize + 1,
            Err(error) => return Err(error),
        };
        rest = &rest[done.min(rest.len())..];
    }
    Ok(())
}

/// Every pair, in no order. A pair that goes or comes while we list may be missing; in a hash none appears twice.
pub(in crate::kernel) fn entries<K: Pod, V: Pod>(map: impl AsFd) -> io::Result<Vec<(K, V)>> {
    let map = map.as_fd();
    let mut notes = [[0u8; NOTE_BYTES]; 2];
    let mut is_first = true;
    let mut at_once = AT_ONCE;
    let mut all = Vec::new();
    loop {
        let (mut keys, mut values) = (Vec::<K>::with_capacity(at_once), Vec::<V>::with_capacity(at_once));
        let [from, to] = &mut notes;
        let mut attributes = Batch {
            from: if is_first { 0 } else { from.as_ptr() as u64 },
            to: to.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: at_once as u32,
            map: map.as_raw_fd() as u32,
            ..Batch::default()
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes);
        let is_last = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // A bucket of the hash holds more than there was room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && at_once < AT_ONCE << 8 => {
                at_once *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = (attributes.count as usize).min(at_once);
        // SAFETY: the kernel filled this many of each, the capacity holds them, and any bytes are a `K` or a `V` (they are `Pod`).
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        all.extend(keys.into_iter().zip(values));
        if is_last {
            return Ok(all);
        }
        is_first = false;
        notes.swap(0, 1);
    }
}

fn element<K: Pod>(map: impl AsFd, key: &K) -> Element {
    Element { map: map.as_fd().as_raw_fd() as u32, key: ptr::from_ref(key) as u64, ..Element::default() }
}

/// `None` for what is not there, which is an ordinary answer.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
