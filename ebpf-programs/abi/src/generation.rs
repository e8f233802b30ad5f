//! Which of two rule sets is in force: one word, so that a change of a whole set is one store.
//!
//! Every table of rules exists twice, in the two places of an array of maps. A transaction builds the set that is not in
//! force and then stores this word; a packet reads the word once and sees one set, never half of either.
//!
//! The word also carries the end of a trial. A set on trial gives way to the other one by itself when its time is
//! over: the programs compare the clock, so the roll-back needs no process that lives.

/// Rule sets: one in force, one to go to or come back from.
pub const GENERATIONS: u32 = 2;

const TRIAL_SHIFT: u32 = 1;

/// The word for `generation` in force, for good.
#[must_use]
pub const fn settled(generation: u32) -> u64 {
    (generation & 1) as u64
}

/// The word for `generation` on trial: from `ends_ms` on (`CLOCK_BOOTTIME`), the other one is in force.
#[must_use]
pub const fn on_trial(generation: u32, ends_ms: u64) -> u64 {
    // 0 would mean no trial; the machine was not up for a millisecond then.
    let ends_ms = if ends_ms == 0 { 1 } else { ends_ms };
    (ends_ms << TRIAL_SHIFT) | settled(generation)
}

/// When the trial ends, in milliseconds of `CLOCK_BOOTTIME`; 0 = the set is in force for good.
#[inline(always)]
#[must_use]
pub const fn trial_ends_ms(word: u64) -> u64 {
    word >> TRIAL_SHIFT
}

/// The generation that the word names, whether or not its trial is over.
#[inline(always)]
#[must_use]
pub const fn named(word: u64) -> u32 {
    (word & 1) as u32
}

/// The generation in force at `now_ns` of `CLOCK_BOOTTIME`. Without a trial the clock does not matter.
#[inline(always)]
#[must_use]
pub const fn in_force(word: u64, now_ns: u64) -> u32 {
    let ends_ms = trial_ends_ms(word);
    if ends_ms != 0 && now_ns / 1_000_000 >= ends_ms { named(word) ^ 1 } else { named(word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_gives_way_to_the_other_set_at_its_end() {
        for generation in [0, 1] {
            assert_eq!(in_force(settled(generation), u64::MAX), generation);
            let word = on_trial(generation, 5_000);
            assert_eq!((named(word), trial_ends_ms(word)), (generation, 5_000));
            assert_eq!(in_force(word, 4_999_999_999), generation);
            assert_eq!(in_force(word, 5_000_000_000), 1 - generation);
        }
        assert_ne!(trial_ends_ms(on_trial(0, 0)), 0);
    }
}
