//! The system calls of steering that no safe wrapper offers, by descriptor number: a shard has a descriptor table of its
//! own, in which the numbers are good and nobody owns them (see `Seat`).
#![allow(unsafe_code)] // `bpf(2)`, `setsockopt(2)` and a shared mapping; see each block.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, RawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use abi::steer::{Place, ShardWord};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;

/// The part of `union bpf_attr` that the commands on elements read.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts a listening socket into the sockarray, in place of what was there.
pub(super) fn put_socket(map: RawFd, slot: u32, socket: impl AsFd) -> io::Result<()> {
    let descriptor = u64::from(socket.as_fd().as_raw_fd().unsigned_abs());
    element(BPF_MAP_UPDATE_ELEM, map, (&raw const slot).cast(), (&raw const descriptor).cast_mut().cast())
}

/// Says which number an address has.
pub(super) fn put_place(map: RawFd, place: &Place, number: u32) -> io::Result<()> {
    element(BPF_MAP_UPDATE_ELEM, map, ptr::from_ref(place).cast(), (&raw const number).cast_mut().cast())
}

/// Whether a socket listens in this slot of the sockarray.
pub(super) fn has_socket(map: impl AsFd, slot: u32) -> io::Result<bool> {
    let mut cookie = 0_u64;
    let map = map.as_fd().as_raw_fd();
    match element(BPF_MAP_LOOKUP_ELEM, map, (&raw const slot).cast(), (&raw mut cookie).cast()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn element(command: libc::c_int, map: RawFd, key: *const u8, value: *mut u8) -> io::Result<()> {
    let mut attributes =
        Element { map: map.unsigned_abs(), padding: 0, key: key as u64, value: value as u64, flags: 0 };
    // SAFETY: the attributes are those of the command and their size is passed along; key and value are as long as those of
    // the maps that the callers name, which `Steering` made, and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<Element>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has `program` choose among the sockets that listen where `socket` does.
pub(super) fn attach(socket: impl AsFd, program: RawFd) -> io::Result<()> {
    let length = size_of_val(&program) as libc::socklen_t;
    // SAFETY: the option takes an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_EBPF,
            (&raw const program).cast(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Wakes whoever waits for the bell, in whichever descriptor table.
pub(super) fn ring(bell: RawFd) -> io::Result<()> {
    let once = 1_u64;
    // SAFETY: eight bytes are read from a value that outlives the call.
    let written = unsafe { libc::write(bell, (&raw const once).cast(), size_of_val(&once)) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The shards' words, mapped: a shard says how it is with a store.
#[derive(Debug)]
pub(super) struct Words {
    base: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory is shared with the kernel and is only ever touched by atomic loads and stores.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

const _: () = assert!(cfg!(target_endian = "little"), "the state is the lower half of the word");

impl Words {
    /// Maps the array `map` of `count` words.
    pub(super) fn map(map: impl AsFd, count: usize) -> io::Result<Self> {
        let bytes = count * size_of::<ShardWord>();
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base =
            unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { base, count })
    }

    /// What shard number `at` says of itself. One that is not there says nothing.
    pub(super) fn get(&self, at: usize) -> ShardWord {
        let word = self.word(at).map_or(0, |word| word.load(Relaxed));
        ShardWord { state: word as u32, load: (word >> 32) as u32 }
    }

    pub(super) fn set(&self, at: usize, word: ShardWord) {
        if let Some(slot) = self.word(at) {
            slot.store(u64::from(word.state) | u64::from(word.load) << 32, Relaxed);
        }
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        // SAFETY: within the mapping, which is page-aligned and lives as long as we do.
        (at < self.count).then(|| unsafe { self.base.add(at).as_ref() })
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody borrows from it any more. It cannot fail for a mapping that exists.
        let _unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.count * size_of::<ShardWord>()) };
    }
}
