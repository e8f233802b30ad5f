//! Atomic words in map values.
//!
//! In assembly because `AtomicU64`'s operations are not there for this target: rustc takes it to have no compare-and-swap.

use core::arch::asm;

/// Adds without reading back: one `lock add`.
///
/// # Safety
///
/// `counter` points into a live map value and is 8-byte aligned.
#[inline(always)]
pub unsafe fn add_atomically(counter: *mut u64, more: u64) {
    // SAFETY: the caller vouches for `counter`; the instruction touches nothing else.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {more}", counter = in(reg) counter, more = in(reg) more, options(nostack))
    };
}

/// Puts `new` in the place of `old`, and says what stood there: `old`, or it was not done. (Linux 5.12.)
///
/// # Safety
///
/// As for [`add_atomically`].
#[inline(always)]
unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let found;
    // SAFETY: the caller vouches for `word`; the instruction touches nothing else but its register r0.
    unsafe {
        asm!("r0 = cmpxchg_64({word} + 0, r0, {new})", word = in(reg) word, new = in(reg) new, inout("r0") old => found, options(nostack))
    };
    found
}

/// Moves the theoretical arrival time at `moment` by `cost_ns`, unless that runs further ahead of `now_ns` than `credit_ns`.
/// False: it is over the rate, and nothing moved. (`abi::limits` tells the algorithm.)
///
/// A moment further ahead than `most_ahead_ns`, which this rate leaves at most, is brought back to that. Something that costs more
/// than the whole credit goes when nothing ran ahead, else it would never go. A word that other CPUs
/// keep changing under us lets the packet go uncounted: being late is worse than being off by one.
///
/// # Safety
///
/// As for [`add_atomically`].
#[inline(always)]
pub unsafe fn take(moment: *mut u64, now_ns: u64, cost_ns: u64, credit_ns: u64, most_ahead_ns: u64) -> bool {
    for _ in 0..TRIES {
        // SAFETY: the caller vouches for `moment`; volatile because other CPUs write it.
        let seen = unsafe { moment.read_volatile() };
        let start = if seen > now_ns { seen } else { now_ns };
        if start - now_ns > most_ahead_ns {
            // Left by a slower rate of before, whose debt would outlast that rate.
            // SAFETY: as above.
            unsafe { compare_exchange(moment, seen, now_ns + most_ahead_ns) };
            return false;
        }
        if start - now_ns > credit_ns.saturating_sub(cost_ns) {
            return false;
        }
        // SAFETY: as above.
        if unsafe { compare_exchange(moment, seen, start + cost_ns) } == seen {
            return true;
        }
    }
    true
}

/// Moves the moment at `moment` by `cost_ns`, from `now_ns` at least, unless it is further ahead of `now_ns` than `most_ahead_ns`.
/// Hands back where it stood, `now_ns` at least. `None`: too far ahead, and nothing moved.
///
/// A word that other CPUs keep changing is close to where we saw it, so after some tries the cost is just added.
///
/// # Safety
///
/// As for [`add_atomically`].
#[inline(always)]
pub unsafe fn reserve(moment: *mut u64, now_ns: u64, cost_ns: u64, most_ahead_ns: u64) -> Option<u64> {
    let mut start = now_ns;
    for _ in 0..TRIES {
        // SAFETY: the caller vouches for `moment`; volatile because other CPUs write it.
        let seen = unsafe { moment.read_volatile() };
        start = if seen > now_ns { seen } else { now_ns };
        if start - now_ns > most_ahead_ns {
            return None;
        }
        // SAFETY: as above.
        if unsafe { compare_exchange(moment, seen, start + cost_ns) } == seen {
            return Some(start);
        }
    }
    // SAFETY: as above.
    unsafe { add_atomically(moment, cost_ns) };
    Some(start)
}

/// Puts `new` in the place of `old`; false: something else stood there.
///
/// # Safety
///
/// As for [`add_atomically`].
#[inline(always)]
pub unsafe fn replace(word: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller vouches for `word`.
    unsafe { compare_exchange(word, old, new) == old }
}

/// Takes one from the count at `count`, which is not 0 then, and hands back what is left. `None`: it is 0 already, or others
/// keep changing it.
///
/// # Safety
///
/// As for [`add_atomically`].
#[inline(always)]
pub unsafe fn take_one(count: *mut u64) -> Option<u64> {
    for _ in 0..TRIES {
        // SAFETY: the caller vouches for `count`; volatile because other CPUs write it.
        let seen = unsafe { count.read_volatile() };
        if seen == 0 {
            return None;
        }
        // SAFETY: as above.
        if unsafe { compare_exchange(count, seen, seen - 1) } == seen {
            return Some(seen - 1);
        }
    }
    None
}

const TRIES: u32 = 4;
