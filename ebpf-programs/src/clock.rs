//! The clock that expiry, rates and trials are measured by, and the generation that it chooses.

use abi::generation::{in_force, named, trial_ends_ms};
use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_ktime_get_ns};

use crate::maps::{EDITION, GENERATION};

/// `CLOCK_BOOTTIME` in nanoseconds: it goes on while the machine sleeps, and nobody sets it.
#[inline(always)]
pub fn boot_ns() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of departure times.
#[inline(always)]
pub fn monotonic_ns() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_ns() }
}

/// The clock, read at most once per packet and only when something asks: reading it costs as much as a look-up.
pub struct Moment(u64);

impl Moment {
    /// Not read yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    /// When this packet is judged, as [`boot_ns`].
    #[inline(always)]
    pub fn ns(&mut self) -> u64 {
        if self.0 == 0 {
            self.0 = boot_ns();
        }
        self.0
    }
}

/// The rule set in force, read once per packet. The clock is asked only while a set is on trial.
#[inline(always)]
pub fn generation() -> u32 {
    match GENERATION.get_ptr(0) {
        Some(word) => {
            // SAFETY: an array's entry lives as long as the program; volatile because userspace writes it.
            let word = unsafe { word.read_volatile() };
            if trial_ends_ms(word) == 0 { named(word) } else { in_force(word, boot_ns()) }
        }
        None => 0,
    }
}

/// The edition of the tries, read before they are: what is remembered by it is never newer than it says.
#[inline(always)]
pub fn edition() -> u64 {
    match EDITION.get_ptr(0) {
        // SAFETY: an array's entry lives as long as the program; volatile because userspace writes it.
        Some(edition) => unsafe { edition.read_volatile() },
        None => 0,
    }
}
