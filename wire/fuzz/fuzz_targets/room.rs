//! Hands the fuzzer's bytes to [`wire_fuzz::room`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire_fuzz::room(data));
